"""Runs a point until an iteration of its last loop, and lets it go on from there later, in the bits of one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from runner.engine.session import KEPT
from runner.engine.state import State
from runner.plan import Plan
from runner.plan.program.instructions import Instruction, LoopEnd, LoopStart
from runner.plan.program.last_loop import last_loop
from runner.record.checkpoints.store import decode, encode, restore_state, state_contents


def cut(plan: Plan, until: int) -> Plan | None:
    """The plan that ends after `until` iterations of the last loop; None if its loop has no more than that."""
    loop = last_loop(plan.program)
    if loop is None or loop.times <= until:
        return None
    program: list[Instruction] = []
    for instruction in plan.program[: loop.end + 1]:
        if isinstance(instruction, LoopStart | LoopEnd) and instruction.loop == loop.loop:
            program.append(replace(instruction, times=until))
        else:
            program.append(instruction)
    return replace(plan, program=tuple(program))


@dataclass(slots=True)
class Kept:
    """The state of a point at the end of a rung."""

    contents: Any = None  # as JSON
    tensors: dict[str, Tensor] | None = None
    row: int = 0  # the number of the next row

    def keeps(self, plan: Plan, state: State) -> Any:
        """The function that an engine calls to save the state; only that of the end of the last loop is kept."""

        def save(tag: str | None) -> None:
            if tag == KEPT:
                self.tensors = {}
                self.contents = encode(state_contents(plan, state), self._store)
                self.row = state.row

        return save

    def _store(self, path: tuple[str | int, ...], tensor: Tensor) -> Mapping[str, Any]:
        assert self.tensors is not None
        name = ".".join(map(str, path))
        self.tensors[name] = tensor.clone()
        return {"tensor": name, "complex": False}


def go_on(plan: Plan, state: State, contents: Any, tensors: Mapping[str, Tensor]) -> None:
    """Put a new state where a point was at the end of its last rung."""
    with torch.no_grad():
        restore_state(state, decode(contents, tensors), plan.device)
