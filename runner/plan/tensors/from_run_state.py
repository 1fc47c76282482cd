"""Plans `from_run: {optimizer: true}`: the state of the optimizers in the checkpoint of another run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runner.config import Config
from runner.errors import listing
from runner.faults import ConfigPath, Faults, PlacedFault
from runner.language.dtypes import dtype_name
from runner.optim import OptimizerPlan
from runner.plan.data.files import ArrayFile, FileFault, describe
from runner.plan.tensors.from_run import FromRunPlan

Kept = int | float | None | ArrayFile
"""A value of an optimizer's state; a tensor is where it is stored."""

_GLOBAL = "lbfgs"
_DAMAGED = "is damaged: it has no state of optimizers"
MOST_STEPS = 1 << 53
"""The most steps of an optimizer: beyond this, torch's own count, a float, no longer grows."""


@dataclass(frozen=True, slots=True)
class OptimizerStart:
    """The state that an optimizer starts with."""

    steps: int
    state: Mapping[str, Mapping[str, Kept]]  # parameter → entry → value


def plan_optimizer_starts(
    config: Config, start: FromRunPlan | None, optimizers: Mapping[str, OptimizerPlan], faults: Faults
) -> dict[str, OptimizerStart]:
    """The state that each optimizer starts with, by its name; problems and warnings go to `faults`."""
    if start is None or not start.optimizer or start.weights.checkpoint is None:
        return {}
    path = ("from_run", "optimizer")
    kept = _mapping(_mapping(start.weights.checkpoint.get("state")).get("optimizers"))
    if not kept:
        faults.add(path, f"{start.weights.name} has no state of optimizers", "remove `optimizer`")
        return {}
    found: dict[str, OptimizerStart] = {}
    for name, optimizer in optimizers.items():
        if name not in kept:
            hint = f"name it as the run does: it has {listing([f'`{each}`' for each in kept])}"
            faults.add(path, f"{start.weights.name} has no optimizer `{name}`", hint)
            continue
        with faults.collecting():
            found[name] = _start(optimizer, _mapping(kept[name]), start, path, faults)
    return found


def _start(
    optimizer: OptimizerPlan, kept: Mapping[str, Any], start: FromRunPlan, path: ConfigPath, faults: Faults
) -> OptimizerStart:
    if optimizer.kind == _GLOBAL:
        message = f"the state of {_GLOBAL} belongs to all parameters together, and is not taken from a run"
        raise PlacedFault(path, message, "remove `optimizer`, or use another optimizer")
    steps = kept.get("steps")
    if type(steps) is not int or not 0 <= steps <= MOST_STEPS:
        raise PlacedFault(path, f"{start.weights.name} {_DAMAGED}", "name another checkpoint")
    states = {name: _mapping(entries) for name, entries in _mapping(kept.get("state")).items()}
    without = [name for name in optimizer.parameters if name not in states]
    if without:
        names = listing([f"`{name}`" for name in without], 6)
        faults.warn(path, f"{start.weights.name} has no state of the optimizer for {names}, which starts anew")
    state = {
        name: _entries(optimizer, name, states[name], start, path) for name in optimizer.parameters if name in states
    }
    return OptimizerStart(steps, state)


def _entries(
    optimizer: OptimizerPlan, name: str, kept: Mapping[str, Any], start: FromRunPlan, path: ConfigPath
) -> dict[str, Kept]:
    """The state of one parameter; of a parameter without a step it is empty."""
    expected = {entry.name: entry for entry in optimizer.state.get(name, ())}
    if kept and set(kept) != set(expected):
        ours, theirs = (listing(sorted(names)) or "nothing" for names in (expected, kept))
        message = f"{optimizer.kind} keeps {ours} for `{name}`, and {start.weights.name} has {theirs}"
        raise PlacedFault(path, message, "use the optimizer of the run, or remove `optimizer`")
    found: dict[str, Kept] = {}
    for key, value in kept.items():
        match value:
            case {"tensor": str(tensor), "complex": False}:
                array = ArrayFile(start.weights.path, tensor, None)
                _check(array, expected[key].shape, f"`{key}` of `{name}`", expected[key].dtype, start, path)
                found[key] = array
            case bool():
                raise PlacedFault(path, f"{start.weights.name} {_DAMAGED}", "name another checkpoint")
            case int() | float() | None:
                found[key] = value
            case _:
                raise PlacedFault(path, f"{start.weights.name} {_DAMAGED}", "name another checkpoint")
    return found


def _check(
    array: ArrayFile, shape: tuple[int, ...], what: str, dtype: Any, start: FromRunPlan, path: ConfigPath
) -> None:
    try:
        stored, kind = describe(array)
    except FileFault as fault:
        raise PlacedFault(path, fault.message, fault.hint) from fault
    if (stored, kind) != (shape, dtype):
        ours, theirs = f"{dtype_name(dtype)} {list(shape)}", f"{dtype_name(kind)} {list(stored)}"
        message = f"{what} is {ours}, and in {start.weights.name} it is {theirs}"
        raise PlacedFault(path, message, "use the optimizer of the run, or remove `optimizer`")


def _mapping(value: Any) -> dict[str, Any]:
    """A mapping in the JSON of a checkpoint; an empty one if the value is none."""
    match value:
        case {"mapping": [*pairs]} if all(
            isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs
        ):
            return dict(pairs)
    return {}
