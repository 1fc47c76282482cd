"""`train` steps of lanes in regions: many iterations of all lanes in one call of code that XLA compiled."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from runner.engine.compiled.building import Built, Drawn, Lengths, build
from runner.engine.compiled.drawing import Cursors, Drawing
from runner.engine.compiled.numbers import Inexact
from runner.engine.compiled.preparing import Preparing
from runner.engine.compiled.training import Tensors, step_function
from runner.engine.compiled.write_back import Computed
from runner.engine.eager import Bind
from runner.engine.faults import FAULTS
from runner.engine.lanes.data import LaneBatches
from runner.engine.lanes.operations.tensor import LaneNumber, LaneTensor, NotStackable, number_of
from runner.engine.lanes.starting import Lane
from runner.engine.lanes.translated.region_values import (
    block_of_lanes,
    carry_of_lanes,
    note_lanes,
    of_first,
    of_lanes,
    synchronise,
    write_lanes_back,
)
from runner.engine.rows import Path, Rows
from runner.engine.session import KEPT, Session, open_session
from runner.engine.state import Schedule, initial_state
from runner.engine.steps.step_code import Run
from runner.engine.xla.exchange import Exchange
from runner.engine.xla.finiteness import are_finite
from runner.engine.xla.regions import Region
from runner.engine.xla.translated import REGION_BYTES, STACK_BYTES, shortened
from runner.language.lowering.diagnosis import memory_message
from runner.language.xla.checking import reason_of
from runner.language.xla.operators import Unsupported
from runner.language.xla.tracing import plain_kernels, trace
from runner.plan.checks.engines.compilable import loop_around
from runner.plan.checks.engines.translatable import MOST_AT_ONCE
from runner.plan.plan import Plan
from runner.plan.program.instructions import Action, LoopStart, Train
from runner.plan.rows.layout import Values


@dataclass(slots=True)
class _Compiled:
    """A step of all lanes for certain batch lengths, compiled at its first call."""

    built: Built
    longest: int  # the maximum number of iterations per call
    region: Region | None = None


class LaneBinder:
    """Binds `train` steps of lanes to code of XLA, and other steps as lanes of the eager engine.

    `several` maps the position of each bound step that is alone in a loop to its iterator over rows.

    Args:
        plan: the plan of the first lane.
        others: binds all other steps.
    """

    def __init__(self, plan: Plan, lanes: Sequence[Lane], others: Bind) -> None:
        self._lanes = lanes
        self._others = others
        self._first = _first_lane(plan, lanes)
        self._exchange = Exchange()
        self.several: dict[int, Callable[[], Iterator[Rows]]] = {}

    def __call__(self, session: Session, position: int, action: Action) -> Run:
        if not isinstance(action.argument, Train):
            return self._others(session, position, action)
        trainer = _LaneTrainer(session, self._first, self._lanes, position, action, action.argument, self._exchange)
        if loop_around(session.binding.plan.program, position) is not None:
            self.several[position] = trainer.rows
        return trainer.run


def _first_lane(plan: Plan, lanes: Sequence[Lane]) -> Session:
    """The first lane alone, of which a step is traced: learning rates that differ are numbers of an iteration."""
    state = initial_state(plan)
    for name, number in lanes[0].numbers.items():
        state.constants[name] = number_of(number, plan.dtype)
    for name in _varied(lanes):
        rate = lanes[0].rates[name]
        groups = range(len(plan.optimizers[name].groups))
        state.schedules[name] = tuple(Schedule(group, "lr", lambda t, rate=rate: rate) for group in groups)  # type: ignore[misc]
    return open_session(plan, state)


def _varied(lanes: Sequence[Lane]) -> list[str]:
    """The optimizers whose learning rates differ."""
    return [name for name in lanes[0].rates if len({lane.rates[name] for lane in lanes}) > 1]


class _LaneTrainer:
    """One `train` instruction of all lanes."""

    def __init__(
        self,
        session: Session,
        first: Session,
        lanes: Sequence[Lane],
        position: int,
        action: Action,
        argument: Train,
        exchange: Exchange,
    ) -> None:
        self._session = session
        self._state = session.binding.state
        self._first = first
        self._lanes = lanes
        self._position = position
        self._action = action
        self._argument = argument
        self._loop: LoopStart | None = loop_around(session.binding.plan.program, position)
        self._every = 1 if self._loop is None else session.binding.plan.log.every
        self._drawing = Drawing(self._state, argument, self._loop)
        self._preparing = Preparing(first.binding.plan, first.binding.state, argument)
        self._compiled: dict[Hashable, _Compiled] = {}
        self._exchange = exchange
        self._latest: _Compiled | None = None
        last = session.last_loop
        self._keeps = self._loop is not None and last is not None and self._loop.loop == last.loop
        if self._keeps:
            session.keeping.add(position)

    def run(self) -> Values:
        """Runs one iteration, and returns the values of its row."""
        computed = self._next(1)
        block = block_of_lanes(self._session.binding, self._argument, computed, [0], len(self._lanes))
        write_lanes_back(self._session.binding, self._first.binding.state, self._argument, computed, block)
        return tuple(
            LaneTensor(value[0]) if stacked and value is not None else value
            for value, stacked in zip(block.columns, block.stacked, strict=True)
        )

    def rows(self) -> Iterator[Rows]:
        """Runs the next iterations of the loop, at least one, and yields those of their rows that the log keeps."""
        assert self._loop is not None
        state, first, path, number = self._state, self._iteration(), self._path(), self._state.row
        computed = self._next(self._loop.times - first + 1)
        count = computed.iterations
        if self._keeps and first + count - 1 == self._loop.times:
            self._session.checkpoint(KEPT)
        kept = self._kept(first, count)
        block = block_of_lanes(self._session.binding, self._argument, computed, kept, len(self._lanes))
        write_lanes_back(self._session.binding, self._first.binding.state, self._argument, computed, block)
        state.iterations[self._loop.loop] += count - 1
        state.position = self._position + 1
        if kept:
            state.row += len(kept)
            yield Rows(number, self._action.kind, path, self._session.binding.layout, block, first, kept)

    def _kept(self, first: int, iterations: int) -> Sequence[int]:
        """Returns the indices of the iterations whose rows the log keeps."""
        assert self._loop is not None
        every, last = self._session.binding.plan.log.every, self._loop.times - first
        kept = range(-first % every, iterations, every)
        return [*kept, last] if last < iterations and last not in kept else kept

    def _iteration(self) -> int:
        loops = self._action.loops
        return self._state.iterations[loops[-1]] if loops else 1

    def _path(self) -> Path:
        """Returns the parts of the rows' paths before and after the iteration of the loop."""
        assert self._loop is not None
        given: list[int | str] = list(self._state.iterations)
        given[self._loop.loop] = "\0"
        before, _, after = self._action.path.format(*given).partition("\0")
        return before, after

    def _next(self, most: int) -> Computed:
        """Computes the next iterations of all lanes without changing the state: fewer if memory is short.

        Raises:
            NotStackable: the next step differs from those after it, cannot be translated, or has too large an integer.
        """
        while True:
            self._latest = None
            try:
                return self._once(most)
            except Inexact as error:
                raise NotStackable("it computes an integer beyond 2^53") from error
            except FAULTS as error:
                if memory_message(error) is None or not self._shorten():
                    raise

    def _shorten(self) -> bool:
        """Makes the step that was called last shorter; false if there is none, or it cannot be shorter."""
        latest = self._latest
        if latest is None or shortened(latest.longest) == latest.longest:
            return False
        latest.longest, latest.region = shortened(latest.longest), None
        return True

    def _once(self, most: int) -> Computed:
        if self._preparing.first_step_differs():
            raise NotStackable("the first step of `dampening` differs from the others")
        self._preparing.prepare()
        synchronise(self._first.binding.state, self._state, self._argument.optimizers)
        cursors = self._drawing.cursors()
        lengths = self._drawing.lengths(cursors, min(most, MOST_AT_ONCE))
        alike = next((place for place, found in enumerate(lengths) if found != lengths[0]), len(lengths))
        key = lengths[0], self._preparing.pattern()
        if key not in self._compiled:
            self._compiled[key] = _Compiled(*self._built(lengths[0], cursors))
        compiled = self._latest = self._compiled[key]
        built, iterations = compiled.built, min(alike, compiled.longest)
        stacked = self._drawing.stacked(cursors, iterations)
        numbers = built.numbers.ahead(iterations, "cpu")
        each = [numbers, *[stacked[drawn].contiguous() for drawn in built.drawn]]
        fixed = [self._fixed(cursors, name) for name in built.fixed]
        rates = self._rates(built)
        if rates is not None:
            fixed.append(LaneTensor(rates))
        carry = carry_of_lanes(self._state, self._preparing.carry(built), built.training, len(self._lanes))
        if compiled.region is None:
            compiled.region = self._compile(built, compiled.longest, carry, each, fixed)
        passed = (self._iteration() - 1) % self._every
        after, outputs, sound = compiled.region(carry, each, [of_lanes(value) for value in fixed], passed)
        computed = Computed(built, iterations, cursors, numbers, after, outputs, sound)
        note_lanes(cast(Any, self._session.watch), computed)
        return computed

    def _fixed(self, cursors: Cursors, name: str) -> Tensor:
        kept = self._drawing.kept(cursors, name)
        if kept is not None:
            return kept
        value = self._state.constants.get(name)
        if isinstance(value, LaneNumber):
            return LaneTensor(value.lanes.to(self._first.binding.state.constants[name].dtype))
        return self._state.parameters[name].detach() if value is None else value

    # compiling

    def _built(self, lengths: Lengths, cursors: Cursors) -> tuple[Built, int]:
        """Returns the step of one lane, and the maximum number of iterations per call for all of them."""
        drawn, binding = self._drawing.examples(cursors), self._session.binding
        examples = [{name: of_first(value) for name, value in batch.items()} for batch in drawn.examples]
        with plain_kernels():
            built = build(self._first.binding, self._argument, lengths, Drawn(examples, drawn.moving), self._iteration)
        batch = sum(of_lanes(value).nbytes for each in drawn.examples for value in each.values())
        row = len(self._lanes) * binding.plan.estimates.row
        stacked = batch + row // self._every
        limits = (
            MOST_AT_ONCE,
            REGION_BYTES // max(1, len(self._lanes) * built.bytes + row),
            STACK_BYTES // max(1, stacked),
        )
        return built, max(1, min(limits))

    def _rate_places(self, built: Built) -> list[tuple[int, str]]:
        """The numbers of an iteration that are learning rates of lanes, each with its optimizer."""
        plan, found = self._session.binding.plan, []
        for name in _varied(self._lanes):
            for group in built.training.update_groups:
                if set(group.parameters) <= set(plan.optimizers[name].parameters):
                    found += [(place, name) for place in range(group.numbers.start, group.numbers.stop)]
        return found

    def _rates(self, built: Built) -> Tensor | None:
        """The learning rates of lanes: float64 `(lanes, rates)`; None if they are all equal."""
        places = self._rate_places(built)
        if not places:
            return None
        return torch.tensor([[lane.rates[name] for _, name in places] for lane in self._lanes], dtype=torch.float64)

    def _compile(self, built: Built, longest: int, carry: Tensors, each: Tensors, fixed: Tensors) -> Region:
        step, carried, other = step_function(built.training, are_finite), len(carry), len(fixed)
        places = [place for place, _ in self._rate_places(built)]

        def flat(*given: Tensor) -> list[Tensor]:
            own, shared, drawn = given[:carried], given[carried : carried + other], list(given[carried + other :])
            if places:
                numbers = list(drawn[0].unbind())
                for place, rate in zip(places, shared[-1].unbind(), strict=True):
                    numbers[place] = rate
                drawn[0] = torch.stack(numbers)
            after, outputs = step(list(own), drawn, list(shared))
            return [*after, *outputs]

        moving = [dict(self._drawing_columns())[column] for column, _ in built.drawn]
        axes = [*[0] * carried, *[0 if isinstance(value, LaneTensor) else None for value in fixed], None, *moving]
        examples = [
            *[value[0] for value in carry],
            *map(of_first, fixed),
            each[0][0],
            *[value[0] if axis is None else value[0, 0] for value, axis in zip(each[1:], moving, strict=True)],
        ]
        try:
            traced = trace(flat, examples)
            flags = 1 + bool(built.training.watched)
            region = Region(
                traced.graph, carried, other, longest, self._exchange, lanes=axes, every=self._every, flags=flags
            )
        except Unsupported as error:
            raise NotStackable(reason_of(error)) from error
        region.compile(carry, each, [of_lanes(value) for value in fixed])
        return region

    def _drawing_columns(self) -> Iterator[tuple[str, int | None]]:
        """The batch columns, each with the dimension of lanes in a batch; None if all lanes have the same batches."""
        for column, source in self._argument.evaluation.batches:
            yield column, 0 if isinstance(self._state.batches[source], LaneBatches) else None
