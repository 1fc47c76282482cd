"""Checks the content of a checkpoint against the plan before any of it is restored.

A digest shows that a file is unchanged, but not who wrote it. So a checkpoint is refused unless its counters,
positions, names and shapes are possible in a run of this plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from runner.engine.data.batches import Batches
from runner.engine.state import State
from runner.optim import AnyStepper, Stepper
from runner.plan.plan import Plan
from runner.plan.program.instructions import (
    Action,
    Backward,
    Evaluate,
    Evaluation,
    Forward,
    LoopEnd,
    LoopStart,
    Step,
    Train,
)
from runner.plan.rows.columns import Column
from runner.plan.tensors.from_run_state import MOST_STEPS
from runner.record.json_fields import COUNT, FLAG, Kind, fault_in

SMALLEST_LIMIT = 16 << 20
COPIES = 16
"""The limit on a checkpoint's bytes: this many copies of a run's state, and at least `SMALLEST_LIMIT`."""


class Forged(ValueError):
    """The content of a checkpoint is impossible in any run of the plan."""


def check_state(plan: Plan, state: State, content: Any) -> None:
    """Raise `Forged` unless the state in a checkpoint is possible in a run of `plan`.

    Args:
        state: the state before step 1.
        content: the decoded state, with its stored tensors.
    """
    checks = dict(_CHECKS)
    if state.trackers:
        checks["trackers"] = _check_trackers
    if state.loss_scale is not None:
        checks["loss_scale"] = _check_loss_scale
    _check_keys(content, "it", checks)
    for name, check in checks.items():
        check(plan, state, content[name])
    _check_enclosing_loops(plan, content["position"], content["iterations"])
    _check_measured(state, content)


def largest_checkpoint(plan: Plan, state: State) -> int:
    """The most bytes that the tensors of a run's checkpoint can have."""
    tensors = [*state.parameters.values(), *state.constants.values()]
    for name, stepper in state.steppers.items():
        for parameter in plan.optimizers[name].parameters:
            tensors += [value for value in stepper.state(parameter).values() if isinstance(value, Tensor)]
    histories = [int(optimizer.options.get("history_size", 100)) for optimizer in _with_history(plan)]
    copies = COPIES + 2 * max(histories, default=0)
    row = sum((column.elements or 0) * column.dtype.itemsize for column in plan.columns)
    return max(SMALLEST_LIMIT, copies * (sum(tensor.nbytes for tensor in tensors) + row * max(1, len(plan.program))))


def _with_history(plan: Plan) -> Iterable[Any]:
    return (optimizer for optimizer in plan.optimizers.values() if optimizer.class_name == "LBFGS")


# --- tensors


def _check_weights(plan: Plan, state: State, content: Any) -> None:
    _check_keys(content, "`weights`", state.parameters)
    for name, parameter in state.parameters.items():
        _check_like(content[name], parameter, f"the weight of `{name}`")


def _check_gradients(plan: Plan, state: State, content: Any) -> None:
    _check_keys(content, "`gradients`", state.parameters)
    for name, parameter in state.parameters.items():
        if content[name] is not None:
            _check_like(content[name], parameter, f"the gradient of `{name}`")


def _check_optimizers(plan: Plan, state: State, content: Any) -> None:
    _check_keys(content, "`optimizers`", state.steppers)
    for name, stepper in state.steppers.items():
        parameters = plan.optimizers[name].parameters
        _check_keys(content[name], f"the optimizer `{name}`", ("steps", "state"))
        _check_kind(COUNT, content[name]["steps"], f"the steps of the optimizer `{name}`", most=MOST_STEPS)
        _check_keys(content[name]["state"], f"the state of the optimizer `{name}`", parameters)
        elements = sum(state.parameters[each].numel() for each in parameters)
        for each in parameters:
            _check_entries(stepper, state.parameters[each], each, content[name]["state"][each], elements)


def _check_entries(stepper: AnyStepper, parameter: Parameter, name: str, content: Any, elements: int) -> None:
    """Check one parameter's state. Entries that exist before the first step have a known dtype and shape. Others have
    one of the shapes that optimizers use.
    """
    if not isinstance(content, dict):
        raise Forged(f"the optimizer's state of `{name}` is not a mapping")
    entries = _reference(stepper, name)
    if entries and content:
        _check_keys(content, f"the optimizer's state of `{name}`", entries)
    shape = tuple(parameter.shape)
    shapes = {shape, (), (1,), (elements,), (*shape[:-1], 1), (*shape[:-2], 1, *shape[-1:])}
    for key, value in content.items():
        what = f"`{key}` of the optimizer's state of `{name}`"
        if isinstance(entries.get(key), Tensor):
            _check_like(value, entries[key], what)
            continue
        for tensor in value if isinstance(value, list) else [value]:
            if isinstance(tensor, Tensor) and tuple(tensor.shape) not in shapes:
                raise Forged(f"{what} has the shape {tuple(tensor.shape)}")
            if not isinstance(tensor, (Tensor, int, float, type(None))):
                raise Forged(f"{what} is not a number, a tensor, or a list of them")


def _reference(stepper: AnyStepper, name: str) -> Mapping[str, Any]:
    """The entries of a parameter's state that exist before its first step; only their dtypes and shapes matter."""
    return stepper.first_state(name) if isinstance(stepper, Stepper) else stepper.state(name)


def _check_like(value: Any, tensor: Tensor, what: str) -> None:
    if not isinstance(value, Tensor) or value.shape != tensor.shape or value.dtype != tensor.dtype:
        expected = f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
        raise Forged(f"{what} is not a tensor of {expected}")


def _check_fits(value: Any, column: Column, what: str) -> None:
    if isinstance(value, Tensor) and value.dtype == column.dtype and column.shape in (None, tuple(value.shape)):
        return
    raise Forged(f"{what} is not a tensor of the column `{column.name}`")


# --- values and rows


def _check_values(plan: Plan, state: State, content: Any) -> None:
    if not isinstance(content, dict):
        raise Forged("`values` is not a mapping")
    known = _named_values(plan)
    columns = {column.name: column for column in plan.columns if column.role == "value"}
    for name, value in content.items():
        if name not in known:
            raise Forged(f"`values` names `{name}`, which no step computes")
        if name in columns and isinstance(value, Tensor):
            _check_fits(value, columns[name], f"the value `{name}`")
        elif not isinstance(value, (Tensor, int, float, list)):
            raise Forged(f"the value `{name}` is not a number, a tensor, or a list")


def _named_values(plan: Plan) -> set[str]:
    names: set[str] = set()
    for item in plan.program:
        match item:
            case Action(argument=Evaluate() as argument):
                names.update(result.name for result in argument.results)
                names.update(name for _, name in argument.evaluation.kept)
            case Action(
                argument=Forward(evaluation)
                | Backward(evaluation=evaluation)
                | Train(evaluation=evaluation)
                | Step(closure=Evaluation() as evaluation)
            ):
                names.update(name for _, name in evaluation.kept)
    return names


def _check_withheld(plan: Plan, state: State, content: Any) -> None:
    if not isinstance(content, list):
        raise Forged("`withheld` is not a list")
    for entry in content:
        if not isinstance(entry, list) or len(entry) != 3:
            raise Forged("an entry of `withheld` is not a loop with its iteration and rows")
        loop, iteration, rows = entry
        _check_kind(COUNT, loop, "a loop in `withheld`", most=len(state.iterations) - 1)
        _check_kind(COUNT, iteration, "an iteration in `withheld`", most=_times(plan)[loop])
        _check_rows(plan, state, rows)


def _check_rows(plan: Plan, state: State, content: Any) -> None:
    if not isinstance(content, list):
        raise Forged("the withheld rows are not a list")
    for row in content:
        if not isinstance(row, list) or len(row) != 2 or not isinstance(row[1], list):
            raise Forged("a withheld row is not a position with its values")
        position, values = row
        _check_kind(COUNT, position, "the position of a withheld row", most=len(plan.program) - 1)
        if not isinstance(plan.program[position], Action) or len(values) != len(plan.columns):
            raise Forged("a withheld row does not belong to a step")
        for value, column in zip(values, plan.columns, strict=True):
            if value is not None:
                _check_fits(value, column, f"`{column.name}` in a withheld row")


# --- counters


def _check_position(plan: Plan, state: State, content: Any) -> None:
    _check_kind(COUNT, content, "`position`", most=len(plan.program))


def _check_iterations(plan: Plan, state: State, content: Any) -> None:
    times = _times(plan)
    if not isinstance(content, list) or len(content) != len(state.iterations):
        raise Forged(f"`iterations` is not a list of {len(state.iterations)} numbers")
    for loop, iteration in enumerate(content):
        _check_kind(COUNT, iteration, f"the iteration of loop {loop}", most=times[loop])


def _check_enclosing_loops(plan: Plan, position: int, iterations: list[int]) -> None:
    """Check that all loops around a position have begun."""
    if position == len(plan.program):
        return
    item = plan.program[position]
    enclosing = (item.loop,) if isinstance(item, LoopEnd) else item.loops
    if any(iterations[loop] == 0 for loop in enclosing):
        raise Forged("`position` is in a loop that has not begun")


def _times(plan: Plan) -> dict[int, int]:
    return {item.loop: item.times for item in plan.program if isinstance(item, LoopStart)}


def _check_count(plan: Plan, state: State, content: Any) -> None:
    _check_kind(COUNT, content, "a counter")


def _check_trackers(plan: Plan, state: State, content: Any) -> None:
    _check_keys(content, "`trackers`", map(str, state.trackers))
    number = torch.zeros((), dtype=torch.float64)
    for position, entry in content.items():
        if not isinstance(entry, list) or len(entry) != 4:
            raise Forged(f"the tracker of step {position} is not a list of four values")
        best, worse, cooldown, fresh = entry
        _check_like(best, number, f"the best result of step {position}")
        _check_kind(COUNT, worse, f"the evaluations of step {position}")
        _check_kind(COUNT, cooldown, f"the cooldown of step {position}")
        _check_kind(FLAG, fresh, f"whether step {position} has a new evaluation")


def _check_loss_scale(plan: Plan, state: State, content: Any) -> None:
    if not isinstance(content, list) or len(content) != 2:
        raise Forged("`loss_scale` is not a list of two tensors")
    assert state.loss_scale is not None
    _check_like(content[0], state.loss_scale.scale, "the scale of the objective")
    _check_like(content[1], state.loss_scale.growth, "the count of the loss scaler")


def _check_measured(state: State, content: Any) -> None:
    """Check that each new evaluation that a step has not seen yet has left its result."""
    for position, tracker in state.trackers.items():
        value = content["values"].get(tracker.result)
        if content["trackers"][str(position)][3] and not (isinstance(value, Tensor) and value.numel() == 1):
            raise Forged(f"`values` has no `{tracker.result}`, which step {position} follows")


def _check_batches(plan: Plan, state: State, content: Any) -> None:
    _check_keys(content, "`batches`", state.batches)
    for name, batches in state.batches.items():
        _check_cursor(batches, name, content[name])


def _check_cursor(batches: Batches, name: str, content: Any) -> None:
    kinds = {"epoch": COUNT, "position": COUNT, "drawn": FLAG}
    if isinstance(content, dict) and "computed" in content:
        kinds["computed"] = FLAG
    _check_keys(content, f"the data source `{name}`", kinds)
    fault = fault_in(content, kinds)
    if fault is not None:
        raise Forged(f"in the data source `{name}`, {fault}")
    _check_kind(COUNT, content["position"], f"the position in the data source `{name}`", most=batches.plan.batches)
    if content["epoch"] == 0 and (content["drawn"] or content["position"] != batches.plan.batches):
        raise Forged(f"the data source `{name}` is in a pass that has not begun")


_CHECKS = {
    "weights": _check_weights,
    "gradients": _check_gradients,
    "optimizers": _check_optimizers,
    "values": _check_values,
    "iterations": _check_iterations,
    "position": _check_position,
    "row": _check_count,
    "evaluations": _check_count,
    "observations": _check_count,
    "withheld": _check_withheld,
    "last": _check_rows,
    "batches": _check_batches,
}


def _check_keys(content: Any, what: str, names: Iterable[str]) -> None:
    """Raise `Forged` unless a value is a mapping with exactly these names as keys."""
    if not isinstance(content, dict) or set(content) != set(names):
        listed = ", ".join(names)
        raise Forged(f"{what} is not {f'a mapping of {listed}' if listed else 'an empty mapping'}")


def _check_kind(kind: Kind, value: Any, what: str, most: int | None = None) -> None:
    if not kind.accepts(value):
        raise Forged(f"{what} is not {kind.name}")
    if most is not None and value > most:
        raise Forged(f"{what} is {value:,}, and at most {most:,}")


def check_complex(tensor: Tensor) -> Tensor:
    """Returns the complex tensor of a stored real one; raises `Forged` unless its last axis has length 2."""
    if not tensor.is_floating_point() or tensor.dim() == 0 or tensor.shape[-1] != 2:
        raise Forged("a complex tensor is not stored as pairs of real numbers")
    return torch.view_as_complex(tensor.contiguous())
