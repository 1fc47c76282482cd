"""Converts the steps of a config to a flat program, with jumps for loops."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from runner.config import models
from runner.faults import ConfigPath
from runner.plan.program.instructions import (
    Action,
    Break,
    Instruction,
    LoopEnd,
    LoopStart,
    Train,
)
from runner.plan.program.loops import Loop, Loops
from runner.plan.program.measured_steps import note_measurements, patience
from runner.plan.program.step_context import StepContext
from runner.plan.program.step_kinds import PLANNERS
from runner.plan.scalars import integer

_WITHOUT_ROW = {"expect", "checkpoint", "next"}


@dataclass(slots=True)
class ProgramPlanner:
    """Plans steps one by one, and appends their instructions."""

    context: StepContext
    instructions: list[Instruction] = field(default_factory=list)

    @property
    def _loops(self) -> Loops:
        return self.context.loops

    def plan(self, steps: tuple[models.Step, ...]) -> tuple[Instruction, ...]:
        """Returns the whole program of a config."""
        note_measurements(self.context.values, steps)
        self._block(steps, "")
        return tuple(self.instructions)

    def _block(self, steps: tuple[models.Step, ...], prefix: str) -> None:
        for position, step in enumerate(steps, 1):
            path = f"{prefix}{position}." if len(steps) > 1 else prefix
            if step.kind == "repeat":
                self._repeat(step, path)
            elif step.kind == "for_each":
                self._for_each(step, path)
            elif step.kind in ("stop", "patience"):
                self._stop(step)
            else:
                self._action(step, path)

    def _repeat(self, step: models.Step, path: str) -> None:
        argument = step.argument
        assert isinstance(argument, models.Repeat)
        times = self._count(argument.times, (*step.path, "repeat", "times"))
        outer, every, when = self._loops.numbers, self.context.every(step), self.context.when(step)
        loop = self._loops.new(step, times=times)
        start = len(self.instructions)
        head = LoopStart(loop.number, times, -1, outer, every, when, step.path)
        self._loop(head, loop, argument.steps, f"{path}repeat[{{{loop.number}}}].")
        self.instructions.append(LoopEnd(loop.number, times, start + 1))
        self._close(start, head, loop)

    def _for_each(self, step: models.Step, path: str) -> None:
        argument = step.argument
        assert isinstance(argument, models.ForEach)
        where = (*step.path, "for_each")
        name = self.context.source(argument.data, (*where, "data"))
        epochs = self._count(argument.epochs, (*where, "epochs"))
        outer, every, when = self._loops.numbers, self.context.every(step), self.context.when(step)
        if name in self._loops.sources:
            message = f"this loop over `{name}` is inside another loop over it"
            hint = "declare the source twice, under two names"
            self.context.values.faults.add((*where, "data"), message, hint)
        loop = self._loops.new(step, source=name)
        start = len(self.instructions)
        head = LoopStart(loop.number, 0, -1, outer, every, when, step.path)
        self._loop(head, loop, argument.steps, f"{path}for_each[{{{loop.number}}}].")
        if name is None:
            return
        supply = self.context.values.supply
        supply.drawn.add(name)
        length = self._loops.pass_length(supply.sources[name], loop)
        if length * (loop.more + 1) != supply.sources[name].batches:
            self._end_short(start, name)
        head = replace(head, times=length * epochs, source=name, pass_length=length)
        self.instructions.append(LoopEnd(loop.number, head.times, start + 1, name, length))
        self._close(start, head, loop)

    def _end_short(self, start: int, source: str) -> None:
        """Let the steps of a loop that accumulate take the batches that are left at the end of a pass."""
        for position in range(start, len(self.instructions)):
            action = self.instructions[position]
            train = action.argument if isinstance(action, Action) else None
            if isinstance(action, Action) and isinstance(train, Train) and source in train.draws_again:
                ends = replace(train, ends_with=(*train.ends_with, source))
                self.instructions[position] = replace(action, argument=ends)

    def _count(self, written: Any, path: ConfigPath) -> int:
        values = self.context.values
        return integer(written, path, values.environment.scalars, values.faults, 0) or 0

    def _loop(self, head: LoopStart, loop: Loop, steps: tuple[models.Step, ...], prefix: str) -> None:
        self.instructions.append(head)
        with self._loops.within(loop):
            self._block(steps, prefix)

    def _close(self, start: int, head: LoopStart, loop: Loop) -> None:
        """End the loop here, and set the exit of the loop and of its `stop` steps."""
        after = len(self.instructions)
        self.instructions[start] = replace(head, exit=after)
        for position in loop.leaves:
            leave = self.instructions[position]
            assert isinstance(leave, Break)
            self.instructions[position] = replace(leave, exit=after)

    def _stop(self, step: models.Step) -> None:
        if not self._loops.enclosing:
            hint = "put it inside a `repeat` or `for_each`, or remove it"
            self.context.values.faults.add(step.path, f"`{step.kind}` outside a loop", hint)
            return
        self._loops.enclosing[-1].leaves.append(len(self.instructions))
        found = patience(self.context.values, step, step.argument) if step.kind == "patience" else None
        every, when = self.context.every(step), self.context.when(step)
        self.instructions.append(Break(-1, self._loops.numbers, every, when, step.path, found))

    def _action(self, step: models.Step, path: str) -> None:
        argument = PLANNERS[step.kind](self.context, step, step.argument)
        every, when = self.context.every(step), self.context.when(step)
        if argument is None:
            return
        loops, rows = self._loops.numbers, step.kind not in _WITHOUT_ROW
        self.instructions.append(Action(step.kind, path + step.kind, loops, argument, every, when, rows, step.path))
