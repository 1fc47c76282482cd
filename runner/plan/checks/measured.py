"""Warns of steps that follow a result which no iteration measures, or that never run themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runner.faults import ConfigPath, Faults
from runner.plan.program.instructions import (
    Action,
    Break,
    Evaluate,
    Followed,
    Instruction,
    KeepBest,
    LoopStart,
    Plateau,
    When,
    followed_by,
)

MOST_TRIED = 1000
"""The most iterations for which planning computes a condition that reads only `iteration`."""

_NAMES = {Plateau: ("reduce_lr_on_plateau", "on"), KeepBest: ("checkpoint", "best")}


@dataclass(frozen=True, slots=True)
class Never:
    """Why a step never runs: `every` is larger than the count of a loop, or a condition is never true."""

    every: int = 0
    times: int = 0
    condition: When | None = None


def check_measured(program: Sequence[Instruction], faults: Faults) -> None:
    """Warn of `patience`, `reduce_lr_on_plateau` and `checkpoint: {best}` that never run, or whose `evaluate` does not.

    A step never runs if its `every` is larger than the count of its loop, or its `when` is false in each iteration.
    The same holds of the loops around it.
    """
    for path, message, hint in _idle(program).values():
        faults.warn(path, message, hint)


def place_of_followed(instruction: Instruction) -> ConfigPath:
    """The place where a step names the result that it follows."""
    if isinstance(instruction, Action):
        return (*instruction.config_path, *_NAMES[type(instruction.argument)])
    assert isinstance(instruction, Break)
    return (*instruction.config_path, "patience", "on")


def planned_idle(program: Sequence[Instruction]) -> frozenset[int]:
    """The positions of the steps that `check_measured` warns of."""
    return frozenset(_idle(program))


def never_measured(program: Sequence[Instruction]) -> dict[str, Never]:
    """The results of `evaluate` steps of which none ever runs, by name, each with why the first does not."""
    starts = {each.loop: each for each in program if isinstance(each, LoopStart)}
    reasons: dict[str, list[Never | None]] = {}
    for action in program:
        if isinstance(action, Action) and isinstance(action.argument, Evaluate):
            reason = _never(action, starts)
            for each in action.argument.results:
                reasons.setdefault(each.name, []).append(reason)
    return {name: found[0] for name, found in reasons.items() if found[0] is not None and None not in found}


def _idle(program: Sequence[Instruction]) -> dict[int, tuple[ConfigPath, str, str]]:
    """The place, the message and the hint for each position of a step that has nothing to follow."""
    starts = {each.loop: each for each in program if isinstance(each, LoopStart)}
    never = never_measured(program)
    found = {}
    for position, instruction in enumerate(program):
        followed = followed_by(instruction)
        if followed is not None:
            assert isinstance(instruction, (Action, Break))
            first = never.get(followed.result)
            warning = None if first is None else _of_result(instruction, followed, first)
            warning = warning or _of_step(instruction, followed, starts)
            if warning is not None:
                found[position] = warning
    return found


def _of_result(instruction: Instruction, followed: Followed, first: Never) -> tuple[ConfigPath, str, str]:
    """The warning of a step whose result no step measures, and why the first that would does not."""
    result = followed.result
    if first.condition is not None:
        message = f"never-measured: this condition is never true, so `{result}` is not measured"
        return first.condition.config_path, message, "correct it, or remove the step that follows the result"
    message = f"never-measured: `{result}` is measured in every {first.every:,} iterations of a loop of {first.times:,}"
    hint = f"write `every: {first.times}` or less in `evaluate: {result.partition('.')[0]}`"
    return place_of_followed(instruction), message, hint


def _of_step(
    instruction: Action | Break, followed: Followed, starts: Mapping[int, LoopStart]
) -> tuple[ConfigPath, str, str] | None:
    """What to say of a step that never runs; None if it may run."""
    reason = _never(instruction, starts)
    if reason is None:
        return None
    if reason.condition is not None:
        message = f"never-runs: this condition is never true, so nothing follows `{followed.result}`"
        return reason.condition.config_path, message, "correct it, or remove the step"
    message = f"never-runs: this step runs in every {reason.every:,} iterations of a loop of {reason.times:,}"
    return place_of_followed(instruction), message, f"write `every: {reason.times}` or less"


def _never(step: Action | Break, starts: Mapping[int, LoopStart]) -> Never | None:
    """Why a step never runs; None if it may run."""
    loops = [starts[loop] for loop in step.loops]
    if any(loop.times == 0 for loop in loops):
        return None
    inside = [*loops, step][1:]  # each with the loop that is directly around it
    for each, around in zip(inside, loops, strict=True):
        if each.every is not None and each.every > around.times:
            return Never(each.every, around.times)
    for each, loop in zip([*loops, step], [None, *loops], strict=True):
        if each.when is not None and not _may_hold(each.when, 1 if loop is None else loop.times, each.every or 1):
            return Never(condition=each.when)
    return None


def _may_hold(when: When, times: int, every: int) -> bool:
    """Whether a condition is true in an iteration, as far as planning knows."""
    computation = when.computation
    if computation.random or not {*computation.inputs} <= {"iteration"}:
        return True
    tried = range(every, times + 1, every) if computation.inputs else range(1)
    return len(tried) > MOST_TRIED or any(
        computation.function(None, *[iteration] * len(computation.inputs))[0] for iteration in tried
    )
