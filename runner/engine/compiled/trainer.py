"""Runs `train` steps in regions: computes many iterations at once, and yields their rows."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from torch import Tensor

from runner.engine import eager
from runner.engine.binding import Binding
from runner.engine.compiled.building import Built, Drawn, Lengths
from runner.engine.compiled.drawing import Cursors, Drawing
from runner.engine.compiled.numbers import Inexact
from runner.engine.compiled.preparing import Preparing
from runner.engine.compiled.write_back import Computed, block_of, finite_iterations, sound_iterations, write_back
from runner.engine.faults import FAULTS
from runner.engine.rows import AnyRows, Block, Compiling, Path, Row, Rows
from runner.engine.session import KEPT, SaveCheckpoint, Session
from runner.engine.state import State
from runner.engine.steps import steps
from runner.engine.steps.step_code import Run
from runner.engine.watch.watch import Watch
from runner.language.inference.generators import manual_seed
from runner.language.lowering.diagnosis import memory_message
from runner.plan.checks.engines.compilable import loop_around
from runner.plan.plan import Plan
from runner.plan.program.instructions import Action, LoopStart, Train
from runner.plan.rows.layout import Held, copied
from runner.plan.streams import stream_seed


class Untraced(Exception):
    """torch cannot trace a step; the cause is its error."""


@contextmanager
def tracing() -> Iterator[None]:
    """Context manager that raises `Untraced` for an error in its block, unless memory is short."""
    try:
        yield
    except FAULTS as error:
        if memory_message(error) is not None:
            raise
        raise Untraced from error


class Compiled(Protocol):
    """A step for certain batch lengths, compiled at its first call."""

    @property
    def built(self) -> Built: ...
    @property
    def longest(self) -> int:
        """The maximum number of iterations per call."""
        ...

    def shorten(self) -> bool:
        """Reduces `longest`, so that a call needs less memory; false if it cannot be less."""
        ...

    def call(
        self, carry: list[Tensor], each: list[Tensor], fixed: list[Tensor], seed: Callable[[int], None]
    ) -> tuple[list[Tensor], list[Tensor], Tensor | None]:
        """Runs the iterations in `each`.

        Returns the carry after them, their stacked outputs, and whether torch would have computed each without an
        error: bool `(iterations,)`; None if it would.

        Args:
            seed: seeds torch's random numbers for the iteration at a place in `each`.

        Raises:
            Untraced: torch cannot trace the step.
        """
        ...


class Library(Protocol):
    """The compiled code of `train` steps that are equal."""

    @property
    def longest(self) -> int:
        """The maximum number of iterations of any call."""
        ...

    def compiled(
        self, key: Hashable, lengths: Lengths, drawn: Callable[[], Drawn], iteration: Callable[[], int], path: str
    ) -> Compiled:
        """Returns the compiled step for some batches. Calls with equal keys share one compilation.

        Raises:
            Untraced: torch cannot trace the step.
        """
        ...


class Trainer:
    """One `train` instruction of a run.

    Args:
        position: the position of the instruction in the program.
        loop: the loop whose body is only this instruction, if any.
        library: its compiled code, shared with equal steps.
        shared: whether its rows may share memory with the run.
        by_row: whether it runs one iteration at a time.
        together: whether it yields the rows of a region as one object.
    """

    def __init__(
        self,
        session: Session,
        position: int,
        loop: LoopStart | None,
        library: Library,
        *,
        shared: bool,
        by_row: bool,
        together: bool,
    ) -> None:
        binding = session.binding
        action = binding.plan.program[position]
        assert isinstance(action, Action)
        assert isinstance(action.argument, Train)
        self._binding = binding
        self._watch = session.watch
        self._position = position
        self._action = action
        self._argument = action.argument
        self._loop = loop
        self._library = library
        self._shared = shared
        self._by_row = by_row
        self._together = together
        self._drawing = Drawing(binding.state, action.argument, loop)
        self._preparing = Preparing(binding.plan, binding.state, action.argument)
        self._eager = steps.bind(session, action.argument, action.loops)
        self._partial = any(
            output.name in binding.plan.partial for output in action.argument.evaluation.computation.outputs
        )
        last = session.last_loop
        self._keeps = None
        if loop is not None and last is not None and loop.loop == last.loop:
            session.keeping.add(position)
            self._keeps = session.checkpoint
        self._compiled: Compiled | None = None
        self._untraced: BaseException | None = None
        self._random = any(computation.random for computation in action.argument.evaluation.computations())

    def run(self) -> Held:
        """Runs one iteration, and returns the values of its row."""
        computed = self._next_finite(1)
        if computed is None:
            return self._eagerly()
        block = block_of(self._binding, self._argument, computed, self._shared)
        self._write_back(computed, block)
        return block.values(0)

    def rows(self) -> Iterator[AnyRows]:
        """Runs the next iterations of the loop, at least one, and yields those of their rows that the log keeps.

        Until the last row is yielded, the state is that at the start of the region: a run that resumes there repeats
        the region. Then the state is that at its end, with the loop at the region's last iteration. Rows that are
        yielded together are the last ones.
        """
        assert self._loop is not None
        state, first = self._binding.state, self._iteration()
        number, path, left = state.row, self._path(), 1 if self._by_row else self._loop.times - first + 1
        computed = self._next_finite(left)
        if computed is None:
            yield from self._one()
            return
        self._keep(first + computed.iterations - 1)
        block = block_of(self._binding, self._argument, computed, self._shared)
        kept = self._kept(first, computed.iterations)
        for place in () if self._together else kept[:-1]:
            yield self._row(number, first + place, path, None, block, place)
            number += 1
        self._write_back(computed, block)
        state.iterations[self._loop.loop] += computed.iterations - 1
        state.position = self._position + 1
        if not kept:
            return
        if self._together:
            state.row = number + len(kept)
            yield Rows(number, self._action.kind, path, self._binding.layout, block, first, kept)
        else:
            state.row = number + 1
            yield self._row(number, first + kept[-1], path, None, block, kept[-1])

    def _one(self) -> Iterator[Row]:
        """Runs one iteration as the eager engine does."""
        state, path, iteration = self._binding.state, self._path(), self._iteration()
        self._keep(iteration)
        values = self._eagerly()
        state.position = self._position + 1
        if self._kept(iteration, 1) or self._watch.failure is not None:
            state.row += 1
            yield self._row(state.row - 1, iteration, path, self._given(values), None, 0)

    def _keep(self, last: int) -> None:
        """Keep the state before a region that ends with iteration `last`, if that is the last of the loop.

        A longer run has a longer region here, and so other random numbers.
        """
        if self._keeps is not None and self._loop is not None and last == self._loop.times:
            self._keeps(KEPT)

    def _row(self, number: int, iteration: int, path: Path, values: Any, block: Block | None, place: int) -> Row:
        before, after = path
        where = f"{before}{iteration}{after}"
        return Row(number, self._action.kind, where, iteration, self._binding.layout, values, block, place)

    def _path(self) -> Path:
        """Returns the parts of the rows' paths before and after the iteration of the loop."""
        assert self._loop is not None
        given: list[Any] = list(self._binding.state.iterations)
        given[self._loop.loop] = "\0"
        before, _, after = self._action.path.format(*given).partition("\0")
        return before, after

    def _iteration(self) -> int:
        loops = self._action.loops
        return self._binding.state.iterations[loops[-1]] if loops else 1

    def _kept(self, first: int, iterations: int) -> Sequence[int]:
        """Returns the indices of the iterations whose rows the log keeps."""
        assert self._loop is not None
        every, last = self._binding.plan.log.every, self._loop.times - first
        kept = range(-first % every, iterations, every)
        return [*kept, last] if last < iterations and last not in kept else kept

    def _given(self, values: Held) -> Held:
        return values if self._shared else copied(values)

    def _eagerly(self) -> Held:
        values = self._eager()
        assert values is not None
        return values

    # a region

    def _next_finite(self, most: int) -> Computed | None:
        """Computes the next iterations, up to one that fails or has a non-finite value that is looked for.

        Returns None if that is the very next one, or if the next one differs from those after it.
        The eager step then runs it, and reports any fault at its place in the config.
        """
        if self._untraced is not None:
            raise self._untraced  # the eager step before found no fault
        while True:
            try:
                computed = self._next(most)
            except Untraced as error:
                self._untraced = error.__cause__
                return None
            except FAULTS as error:
                most = self._fewer(most, error)
                if not most:
                    return None
                continue
            if computed is None:
                return None
            most = sound_iterations(computed)
            if self._watch.active or self._partial:
                most = min(most, finite_iterations(computed))
            if most == computed.iterations:
                return computed
            if not most:
                return None

    def _fewer(self, most: int, error: BaseException) -> int:
        """Returns how many iterations to try after a fault in some of `most`: none if the eager step must find it.

        The eager step needs other memory and gives other bits, so it does not replace one that needs too much.
        """
        if isinstance(error, Inexact):
            return error.iterations
        if memory_message(error) is None:
            return min(most, self._library.longest) // 2
        if self._compiled is None or not self._compiled.shorten():
            raise error
        return most

    def _next(self, most: int) -> Computed | None:
        """Computes the next iterations without changing the state; None if the eager step must run the next one."""
        if self._preparing.first_step_differs():
            return None
        self._compiled = None
        self._preparing.prepare()
        cursors = self._drawing.cursors()
        lengths = self._drawing.lengths(cursors, min(most, self._library.longest))
        compiled = self._compiled = self._library.compiled(
            (lengths[0], self._drawing.moving, self._preparing.pattern()),
            lengths[0],
            lambda: self._drawing.examples(cursors),
            self._iteration,
            self._action.path.format(*self._binding.state.iterations),
        )
        alike = len(lengths)
        if lengths.count(lengths[0]) != alike:
            alike = next(place for place, found in enumerate(lengths) if found != lengths[0])
        iterations = min(alike, compiled.longest)
        each, fixed = self._inputs(compiled, cursors, iterations)
        after, outputs, sound = compiled.call(self._preparing.carry(compiled.built), each, fixed, self._seed)
        return Computed(compiled.built, iterations, cursors, each[0], after, outputs, sound)

    def _inputs(self, compiled: Compiled, cursors: Cursors, iterations: int) -> tuple[list[Tensor], list[Tensor]]:
        """Returns the stacked inputs that differ between iterations, and the inputs that they share."""
        state, built = self._binding.state, compiled.built
        each = [built.numbers.ahead(iterations, self._binding.plan.device)]
        stacked = self._drawing.stacked(cursors, iterations)
        each += [stacked[key].contiguous() for key in built.drawn]
        fixed: list[Tensor] = []
        for name in built.fixed:
            kept = self._drawing.kept(cursors, name)
            if kept is None:
                kept = state.constants[name] if name in state.constants else state.parameters[name].detach()
            fixed.append(kept)
        return each, fixed

    def _seed(self, place: int) -> None:
        """Seeds the random numbers of the evaluation at a place of the region as the eager engine does."""
        if self._random:
            plan, number = self._binding.plan, self._binding.state.evaluations + 1 + place
            manual_seed(stream_seed(plan.seed, "expression", "", number), plan.device)

    def _write_back(self, computed: Computed, block: Block) -> None:
        write_back(self._binding, self._argument, computed, block)
        if self._random:
            self._binding.state.evaluations += computed.iterations


def run_in_regions(
    library: MakeLibrary,
    plan: Plan,
    state: State,
    *,
    checkpoint: SaveCheckpoint | None = None,
    shared: bool = False,
    watch: Watch | None = None,
    compiling: Compiling | None = None,
    by_row: bool = False,
    together: bool = False,
) -> Iterator[AnyRows]:
    """Runs a plan as the eager engine does, and yields the same rows.

    A loop whose body is one `train` step runs in regions of many iterations. All other steps run as in the eager
    engine.

    Args:
        library: makes the compiled code of equal steps.
        checkpoint, shared, watch: as in the eager engine. A checkpoint inside a region saves the state at the start
            of the region.
        compiling: called at each compilation.
        by_row: whether each region has only one iteration.
        together: whether the rows of a region are yielded together.
    Raises:
        RunError: a step fails; the problem names the place in the config.
        ExpectationError: an `expect` step does not hold.
    """
    bind = Binder(library, compiling, shared=shared, by_row=by_row, together=together)
    return eager.execute_several(
        plan, state, checkpoint=checkpoint, shared=shared, watch=watch, bind=bind, several=bind.several
    )


MakeLibrary = Callable[[Binding, Train, bool, Compiling], Library]
"""Makes the compiled code of equal steps; the flag says whether one of them runs several iterations at once."""


class Binder:
    """Binds `train` steps to compiled code, and other steps as the eager engine does.

    `several` maps the position of each bound step that is alone in a loop to its iterator over rows.

    Args:
        library: makes the compiled code of equal steps.
        compiling: called at each compilation.
        shared, by_row, together: as in `run_in_regions`.
    """

    def __init__(
        self,
        library: MakeLibrary,
        compiling: Compiling | None,
        *,
        shared: bool,
        by_row: bool,
        together: bool,
    ) -> None:
        self._library = library
        self._compiling = compiling or (lambda path, seconds: None)
        self._shared = shared
        self._by_row = by_row
        self._together = together
        self.several: dict[int, Callable[[], Iterator[AnyRows]]] = {}

    def __call__(self, session: Session, position: int, action: Action) -> Run:
        if not isinstance(action.argument, Train):
            return eager.bind_step(session, position, action)
        binding = session.binding
        libraries = binding.state.compiled
        if not libraries:
            libraries.update(_libraries(binding, self._library, self._compiling))
        loop = loop_around(binding.plan.program, position)
        trainer = Trainer(
            session,
            position,
            loop,
            libraries[position],
            shared=self._shared,
            by_row=self._by_row,
            together=self._together,
        )
        if loop is not None:
            self.several[position] = trainer.rows
        return trainer.run


def _libraries(binding: Binding, make: MakeLibrary, compiling: Compiling) -> dict[int, Library]:
    """Returns the compiled code of each `train` step by its position. Steps with equal keys share one compilation."""
    plan = binding.plan
    found: dict[int, tuple[_Same, LoopStart | None]] = {}
    for position, instruction in enumerate(plan.program):
        if isinstance(instruction, Action) and isinstance(instruction.argument, Train):
            found[position] = _same(instruction, instruction.argument), loop_around(plan.program, position)
    made: list[tuple[_Same, Library]] = []
    libraries: dict[int, Library] = {}
    for position, (same, _) in found.items():
        library = next((library for other, library in made if other == same), None)
        if library is None:
            several = any(loop is not None for other, loop in found.values() if other == same)
            library = make(binding, same[0], several, compiling)
            made.append((same, library))
        libraries[position] = library
    return libraries


_Same = tuple[Train, tuple[int, ...]]
"""The key of a step. Steps with equal keys share one compilation."""


def _same(action: Action, argument: Train) -> _Same:
    """Returns the key of a step: its argument, and the loops whose iteration it reads, if any."""
    reads = any("iteration" in computation.inputs for computation in argument.evaluation.computations())
    return argument, action.loops if reads else ()
