"""Lanes that part: those in which `stop`, `patience` or `when` says so go on elsewhere in the program.

What has left is computed on with the others, in vain, and nothing reads it: no operation mixes lanes. Once half have
left, those that stay are moved together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from runner.engine import eager
from runner.engine.binding import Binding
from runner.engine.lanes.following import exhausted
from runner.engine.lanes.operations.tensor import LaneTensor
from runner.engine.rows import AnyRows, Rows
from runner.engine.session import KEPT, Session
from runner.engine.state import State
from runner.plan.checks.engines.stackable import reads_tensors
from runner.plan.plan import Plan
from runner.plan.program.instructions import Action, Break, LoopEnd, LoopStart, When

FEWEST_MOVED = 8
"""The fewest lanes that are moved together: choosing their operations anew takes longer than computing some in vain."""

Left = Callable[[Tensor, bool], None]
"""Called with the lanes that leave, bool `(lanes,)`, while the state is where they go on.

The second argument says whether it is the state that a finished run keeps.
"""


class Masked(tuple[Tensor | None, ...]):
    """The values of a row that only some lanes have."""

    lanes: Tensor  # bool `(lanes,)`

    def __new__(cls, values: tuple[Tensor | None, ...], lanes: Tensor) -> Masked:
        made = super().__new__(cls, values)
        made.lanes = lanes
        return made


class Leaving:
    """Which lanes are still here, and which rows each of them has.

    Args:
        left: keeps the state of lanes that leave.
    """

    __slots__ = ("_counts", "_end", "_left", "_rest", "_whole", "here", "masks", "pieces")

    def __init__(self, plan: Plan, count: int, left: Left) -> None:
        self.here = torch.ones(count, dtype=torch.bool)
        self.pieces: list[AnyRows] = []
        self.masks: list[Tensor] = []  # for each of them, where lanes may part, the lanes that have it
        self._left = left
        self._end = len(plan.program)
        self._whole = 0  # rows that all lanes have that are still here
        self._counts = torch.zeros(count, dtype=torch.int64)  # the other rows of each lane
        self._rest = count

    def add(self, row: AnyRows, lanes: Tensor | None = None) -> None:
        """Add rows of all lanes that are here, or one of some of them."""
        if isinstance(row, Rows):
            self.pieces.append(row)
            self._whole += len(row)
            return
        values = row.values
        mask = lanes if lanes is not None else values.lanes & self.here if isinstance(values, Masked) else None
        self.pieces.append(row)
        self.masks.append(self.here if mask is None else mask)
        if mask is None:
            self._whole += 1
        else:
            self._counts += mask

    def count_of(self, lane: int) -> int:
        """The number of rows of a lane so far, if it is here."""
        return self._whole + int(self._counts[lane])

    def part(self, state: State, lanes: Tensor, position: int, following: int, kept: bool = False) -> int:
        """Let some lanes go on from another position; returns that of the others.

        Args:
            lanes: some of those that are here, but not all.
            position: where the others go on.
            following: where these go on.
            kept: whether that is after the last loop.
        """
        state.position = following
        self._left(lanes, kept)
        self.here = self.here & ~lanes
        self._rest -= int(lanes.sum())
        if 2 * self._rest > len(self.here) or len(self.here) < FEWEST_MOVED:
            return position
        state.position = position
        self._left(self.here, False)
        self.here = torch.zeros_like(self.here)
        self._rest = 0
        return self._end


def may_part(plan: Plan) -> bool:
    """Whether lanes of a plan may have different steps or rows."""
    return any(
        not isinstance(each, LoopEnd)
        and (reads_tensors(each.when) or (isinstance(each, Break) and each.patience is not None))
        for each in plan.program
    )


def without_conditions(plan: Plan) -> Plan:
    """The plan whose steps run in all lanes; `condition` says which of them have it."""
    program = tuple(
        replace(each, when=None) if isinstance(each, Action) and reads_tensors(each.when) else each
        for each in plan.program
    )
    return replace(plan, program=program)


def condition(binding: Binding, when: When, loops: tuple[int, ...], lanes: int) -> Callable[[], Tensor]:
    """A function that returns the lanes in which a condition holds: bool `(lanes,)`."""
    computed = binding.call(when.computation, loops, observes=True)

    def holds() -> Tensor:
        value: Any = computed()[0]
        if isinstance(value, LaneTensor):
            return value.lanes.reshape(lanes).bool()
        return torch.full((lanes,), bool(value))

    return holds


def bind_jump(
    session: Session, position: int, instruction: LoopStart | LoopEnd | Break, leaving: Leaving
) -> eager.Jump:
    """Bind a jump that some lanes may take and others not."""
    if isinstance(instruction, LoopStart) and reads_tensors(instruction.when):
        return _enter(session, position, instruction, leaving)
    if isinstance(instruction, Break) and (reads_tensors(instruction.when) or instruction.patience is not None):
        return _leave(session, position, instruction, leaving)
    return eager.bind_jump(session, position, instruction)


def _is_due(binding: Binding, instruction: LoopStart | Break) -> Callable[[], bool]:
    """A function that returns whether the `every` of an instruction allows it now."""
    iterations, every = binding.state.iterations, instruction.every
    loop = instruction.loops[-1] if instruction.loops else -1
    return lambda: every is None or not iterations[loop] % every


def _enter(session: Session, position: int, instruction: LoopStart, leaving: Leaving) -> eager.Jump:
    binding = session.binding
    assert instruction.when is not None
    enter = eager.bind_jump(session, position, replace(instruction, when=None))
    holds = condition(binding, instruction.when, instruction.loops, len(leaving.here))
    is_due, end, times = _is_due(binding, instruction), instruction.exit, instruction.times

    def run(position: int) -> int:
        if not (times and is_due()):
            return end
        entering = holds() & leaving.here
        if not entering.any():
            return end
        others = leaving.here & ~entering
        if others.any():
            following = leaving.part(binding.state, others, position, end)
            if following != position:
                return following
        return enter(position)

    return run


def _leave(session: Session, position: int, instruction: Break, leaving: Leaving) -> eager.Jump:
    """Leave the loop in the lanes that do; the rows of this iteration are the last of those, which the log keeps."""
    binding = session.binding
    state, end, loop = binding.state, instruction.exit, instruction.loops[-1]
    lanes, patience, when = len(leaving.here), instruction.patience, instruction.when
    is_due = _is_due(binding, instruction)
    holds = None if when is None else condition(binding, when, instruction.loops, lanes)
    tired = None if patience is None else exhausted(state, patience, position, lanes)
    is_last = session.last_loop is not None and session.last_loop.loop == loop
    making, program = eager.making_rows(binding, shared=True), binding.plan.program

    def due() -> Tensor:
        if not is_due():
            return torch.zeros(lanes, dtype=torch.bool)
        found = leaving.here if holds is None else leaving.here & holds()
        return found if tired is None or not found.any() else found & tired(found)

    def run(position: int) -> int:
        parting = due()
        if not parting.any():
            return position + 1
        row = state.row
        iteration, rows = state.withheld.get(loop, (0, []))
        for place, values in rows if iteration == state.iterations[loop] else []:
            action = program[place]
            assert isinstance(action, Action)
            own = parting & values.lanes if isinstance(values, Masked) else parting
            leaving.add(making(action, values), own)
        if not (leaving.here & ~parting).any():
            state.withheld.pop(loop, None)
            state.position = end
            if is_last:
                session.checkpoint(KEPT)
            return end
        kept = state.withheld.pop(loop, None)
        following = leaving.part(state, parting, position + 1, end, is_last)
        if kept is not None:
            state.withheld[loop] = kept
        state.row = row
        return following

    return run
