"""Warns of steps that follow a result which no iteration measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runner.faults import ConfigPath, Faults
from runner.plan.program.instructions import Action, Break, Evaluate, Instruction, KeepBest, LoopStart, Plateau


def check_measured(program: Sequence[Instruction], faults: Faults) -> None:
    """Warn of `patience`, `reduce_lr_on_plateau` and `checkpoint: {best}` whose `evaluate` steps never run.

    An `evaluate` never runs if its `every`, or that of a loop around it, is larger than the count of its loop.
    """
    never = never_measured(program)
    for instruction in program:
        followed = _followed(instruction)
        if followed is None:
            continue
        path, result = followed
        if result in never:
            message = f"never-measured: `{result}` is measured in {never[result].when}"
            faults.warn(path, message, never[result].hint)


@dataclass(frozen=True, slots=True)
class Never:
    """Why a result is never measured."""

    result: str
    every: int
    times: int  # of the loop

    @property
    def when(self) -> str:
        return f"every {self.every:,} iterations of a loop of {self.times:,}"

    @property
    def hint(self) -> str:
        return f"write `every: {self.times}` or less in `evaluate: {self.result.partition('.')[0]}`"


def never_measured(program: Sequence[Instruction]) -> dict[str, Never]:
    """The results of `evaluate` steps that never run, by name."""
    starts = {each.loop: each for each in program if isinstance(each, LoopStart)}
    measured: dict[str, list[tuple[int, int] | None]] = {}
    for action in program:
        if isinstance(action, Action) and isinstance(action.argument, Evaluate):
            for each in action.argument.results:
                measured.setdefault(each.name, []).append(_too_late(action, starts))
    found: dict[str, Never] = {}
    for name, measuring in measured.items():
        late = [each for each in measuring if each is not None]
        if len(late) == len(measuring):
            found[name] = Never(name, *late[0])
    return found


def _too_late(action: Action, starts: dict[int, LoopStart]) -> tuple[int, int] | None:
    """The `every` of a step, or of a loop around it, and the smaller count of the loop; None if it can run."""
    loops = [starts[loop] for loop in action.loops]
    everies = [*(loop.every for loop in loops[1:]), action.every]
    for loop, every in zip(loops, everies, strict=False):
        if every is not None and every > loop.times > 0:
            return every, loop.times
    return None


def _followed(instruction: Instruction) -> tuple[ConfigPath, str] | None:
    """The place where a step names the result that it follows, and the result."""
    match instruction:
        case Break(patience=patience) if patience is not None:
            return (*instruction.config_path, "patience", "on"), patience.followed.result
        case Action(argument=Plateau(followed=followed)):
            return (*instruction.config_path, "reduce_lr_on_plateau", "on"), followed.result
        case Action(argument=KeepBest(followed=followed)):
            return (*instruction.config_path, "checkpoint", "best"), followed.result
    return None
