"""Runs the lanes of a chunk to the end, also those that part: each goes on with those that are at the same place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from runner.engine.lanes.execute import Ran, run_lanes
from runner.engine.lanes.leaving import Leaving
from runner.engine.lanes.starting import Lane
from runner.engine.lanes.watch import LaneWatch
from runner.engine.session import KEPT, SaveCheckpoint
from runner.engine.state import State
from runner.plan import Plan
from runner.plan.program.instructions import Action, Assign, Checkpoint, Evaluate, Expect
from runner.sweep.lanes.states import Place, joined, key_of, place_of, restoring

WITHOUT = ("iterations", "evaluations", "observations", "optimizers", "batches")
"""What the rest of a program does not read if it only evaluates, assigns and expects, outside of loops."""


@dataclass(slots=True)
class Together:
    """What became of the lanes of a chunk.

    Attributes:
        parts: the rows that lanes had in common, in order, with the number of each lane.
        weights: those of each lane at its end: `(lanes, *s)`.
        sound: for each lane whether it has ended well; if not, it runs again alone.
        first: the number of the first row of each lane.
        ends: the number of the row after the last one of each lane.
        kept: where each lane was after the last loop, and its place among the lanes there.
    """

    plan: Plan
    lanes: Sequence[Lane]
    pauses: bool  # whether the state after the last loop is kept
    parts: list[tuple[Ran, tuple[int, ...]]] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)
    sound: list[bool] = field(init=False)
    first: list[int] = field(init=False)
    ends: list[int] = field(init=False)
    kept: dict[int, tuple[Place, int]] = field(default_factory=dict)
    _waiting: list[tuple[Place, object]] = field(default_factory=list)  # each with its key

    def __post_init__(self) -> None:
        self.sound = [False] * len(self.lanes)
        self.first = [0] * len(self.lanes)
        self.ends = [0] * len(self.lanes)

    def run(self, starts: Sequence[Place] | None, exact: bool, going_on: Callable[[], None]) -> None:
        """Run all lanes.

        Args:
            starts: where they go on; None: they begin.
            exact: whether each lane must have the bits of the run alone.
            going_on: called after each row; what it raises ends the run.
        """
        chosen: dict[Any, Any] = {}

        def run(lanes: tuple[int, ...], place: Place | None) -> None:
            group = _Group(self, lanes, (0,) * len(lanes) if place is None else place.rows)
            given = [self.lanes[lane] for lane in lanes]
            restore = None if place is None else restoring(place)
            ran = run_lanes(
                self.plan, given, exact=exact, going_on=going_on, restore=restore, splitting=group, chosen=chosen
            )
            group.end(ran)

        if starts is None:
            run(tuple(range(len(self.lanes))), None)
        for place in starts or ():
            for lane, row in zip(place.lanes, place.rows, strict=True):
                self.first[lane] = row
            self.wait(place)
        while self._waiting:
            place = self._next()
            run(place.lanes, place)

    def wait(self, place: Place) -> None:
        """Let lanes go on later, unless they are at the end."""
        if place.position < len(self.plan.program):
            without = WITHOUT if _only_evaluates(self.plan, place.position) else ()
            self._waiting.append((place, (place.position, key_of(place, without))))
            return
        self.finish(place.lanes, {name: place.weights(name) for name in self._parameters()}, place.rows)

    def finish(self, lanes: Sequence[int], weights: dict[str, Tensor], rows: Sequence[int]) -> None:
        """Some lanes are at the end."""
        if list(lanes) == list(range(len(self.lanes))):  # lanes that have parted come back in another order
            self.weights = weights
        else:
            for name, value in weights.items():
                if name not in self.weights:
                    self.weights[name] = value.new_zeros((len(self.lanes), *value.shape[1:]))
                self.weights[name][list(lanes)] = value
        for lane, row in zip(lanes, rows, strict=True):
            self.sound[lane], self.ends[lane] = True, row

    def _parameters(self) -> list[str]:
        return [name for name, tensor in self.plan.tensors.items() if tensor.role == "parameter"]

    def _next(self) -> Place:
        """Those that are least far in the program, so that others may join them."""
        _, key = min(self._waiting, key=lambda waiting: waiting[0].position)
        found = [place for place, other in self._waiting if other == key]
        self._waiting = [(place, other) for place, other in self._waiting if other != key]
        return joined(found)


@dataclass(slots=True)
class _Group:
    """Some lanes while they run together; it keeps where lanes go on that leave."""

    whole: Together
    lanes: tuple[int, ...]
    rows: Sequence[int]  # the number of the first row of each
    _now: tuple[Plan, State, Leaving, LaneWatch] | None = None

    def begin(self, plan: Plan, state: State, leaving: Leaving, watch: LaneWatch) -> SaveCheckpoint:
        """The state of all lanes is there; returns what saves it after the last loop."""
        self._now = plan, state, leaving, watch

        def save(tag: str | None) -> None:
            if tag == KEPT and self.whole.pauses:
                self._keep(self._place(leaving.here))

        return save

    def left(self, lanes: Tensor, kept: bool) -> None:
        """Some lanes leave; the state is where they go on. One that may have failed runs again alone."""
        assert self._now is not None
        lanes = lanes & self._now[3].sound_lanes()
        if not lanes.any():
            return
        place = self._place(lanes)
        if kept and self.whole.pauses:
            self._keep(place)
        self.whole.wait(place)

    def end(self, ran: Ran) -> None:
        """All lanes have left or are at the end."""
        self.whole.parts.append((ran, self.lanes))
        ended = (ran.here & torch.tensor(ran.sound)).nonzero().flatten().tolist()
        if not ended:
            return
        whole = len(ended) == len(self.lanes)
        weights = {name: value if whole else value[ended] for name, value in ran.weights.items()}
        self.whole.finish([self.lanes[place] for place in ended], weights, [self._row(place) for place in ended])

    def _keep(self, place: Place) -> None:
        self.whole.kept.update({lane: (place, number) for number, lane in enumerate(place.lanes)})

    def _place(self, lanes: Tensor) -> Place:
        assert self._now is not None
        plan, state, _, _ = self._now
        return place_of(plan, state, lanes, self.lanes, self._row)

    def _row(self, place: int) -> int:
        """The number of the next row of a lane."""
        assert self._now is not None
        return self.rows[place] + self._now[2].count_of(place)


def _only_evaluates(plan: Plan, position: int) -> bool:
    """Whether the rest of a program reads nothing but weights and values: no order, count or random number."""
    return all(
        isinstance(each, Action)
        and isinstance(each.argument, Evaluate | Assign | Expect | Checkpoint)
        and not each.draws
        and not any(
            entry not in ("", "grad") and name in plan.tensors
            for computation in each.computations()
            for name, _, entry in [text.partition(".") for text in computation.inputs]
        )
        for each in plan.program[position:]
    )
