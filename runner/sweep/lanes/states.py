"""The states of lanes that pause at a rung of halving: each is saved as that of the point alone, and several go on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runner.engine.lanes.operations.tensor import LaneTensor, NotStackable, stacked
from runner.engine.session import KEPT
from runner.engine.state import State
from runner.plan import Plan
from runner.record.checkpoints.store import decode, encode, restore_state, state_contents
from runner.sweep.points.task import Task
from runner.sweep.record.states import load_states

SHARED = "step"
"""The entry of an optimizer's state that is the same in each lane: the count of its steps."""


@dataclass(slots=True)
class LaneStates:
    """The state of each lane at the end of a rung."""

    contents: Any = None  # as JSON, the same for all lanes; None before the end
    row: int = 0  # the number of the next row
    tensors: dict[str, Tensor] = field(default_factory=dict)  # tensors of lanes, and tensors that all lanes share

    def keeping(self, plan: Plan, state: State) -> Callable[[str | None], None]:
        """The function that an engine calls to save the state; only that of the end of the last loop is kept."""

        def save(tag: str | None) -> None:
            if tag == KEPT:
                self.tensors = {}
                self.contents = encode(state_contents(plan, state), self._store)
                self.row = state.row

        return save

    def of(self, lane: int) -> tuple[Any, dict[str, Tensor]]:
        """The state of one lane, as JSON and tensors."""
        return self.contents, {
            name: (tensor.lanes[lane] if isinstance(tensor, LaneTensor) else tensor).clone()
            for name, tensor in self.tensors.items()
        }

    def _store(self, path: tuple[str | int, ...], tensor: Tensor) -> Mapping[str, Any]:
        name = ".".join(map(str, path))
        self.tensors[name] = LaneTensor(tensor.lanes.clone()) if isinstance(tensor, LaneTensor) else tensor.clone()
        return {"tensor": name, "complex": tensor.is_complex()}


def go_on_together(directory: Path, tasks: Sequence[Task]) -> Callable[[State], None] | None:
    """A function that puts a new state of lanes where the points were at the end of their last rung.

    None if they begin.

    Raises:
        NotStackable: they did not pause at the same place.
        RunError: a state is damaged.
    """
    files: dict[str, list[str]] = {}
    for task in tasks:
        if task.state is not None:
            files.setdefault(task.state, []).append(task.identity)
    if not files:
        return None
    known = {
        (name, identity): state
        for name, identities in files.items()
        for identity, state in load_states(directory, name, identities).items()
    }
    states = [known[task.state or "", task.identity] for task in tasks]
    first, names = states[0]
    described = json.dumps(first)
    if any(json.dumps(contents) != described or each.keys() != names.keys() for contents, each in states):
        raise NotStackable("its points did not pause at the same place")

    def restore(state: State) -> None:
        tensors = {name: _joined(name, [each[name] for _, each in states]) for name in names}
        contents = decode(first, tensors)
        with torch.no_grad():
            for name, parameter in state.parameters.items():
                parameter.lanes = contents["weights"][name].lanes  # type: ignore[attr-defined]
            restore_state(state, {**contents, "weights": state.parameters}, "cpu")

    return restore


def _joined(name: str, tensors: Sequence[Tensor]) -> Tensor:
    if name.startswith("optimizers.") and name.endswith(f".{SHARED}"):
        return tensors[0].clone()
    return LaneTensor(stacked(tensors))
