"""The constants and the arithmetic of updates, for the page of a run of a few scalars."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from torch import Tensor

from runner.engine.state import initial_state
from runner.errors import SteprunError
from runner.language.dtypes import dtype_name
from runner.plan.program.instructions import Action, Backward, Step, Train
from runner.report.reading.rows import MOST_CHOSEN
from runner.report.run.numbers import MOST_WRITTEN, number
from runner.report.run.stepping.replaying import pattern_of
from runner.report.run.subject import Subject

MOST_ELEMENTS = 4
"""The most elements of a parameter of such a run."""

MOST_PARAMETERS = 8

_PLAIN = frozenset({"lr", "foreach", "fused", "differentiable"})
"""The arguments that leave SGD at `w - lr * w.grad`."""


def is_small(subject: Subject) -> bool:
    """Whether a run has few rows, few parameters of few elements, and no data."""
    plan = subject.plan
    if plan is None or plan.sources or not 0 < len(subject.rows) <= MOST_CHOSEN:
        return False
    sizes = [math.prod(plan.tensors[name].shape) for name in plan.parameters]
    return len(sizes) <= MOST_PARAMETERS and max(sizes) <= MOST_ELEMENTS


def constants_of(subject: Subject) -> dict[str, Tensor]:
    """The tensor constants of a small run, if they are small."""
    plan = subject.plan
    if plan is None or not is_small(subject):
        return {}
    small = [
        name
        for name, tensor in plan.tensors.items()
        if tensor.role == "constant" and math.prod(tensor.shape) <= MOST_WRITTEN
    ]
    try:
        values = initial_state(plan).constants
    except (SteprunError, OSError):
        return {}
    return {name: values[name] for name in small if isinstance(values.get(name), Tensor)}


def updates_of(subject: Subject, position: int) -> list[str]:
    """The arithmetic of a step for each parameter of one element: a gradient that is added, or plain SGD.

    `x1.grad + ∂ = 10 + 10 = 20`, or `x1 ← x1 − lr · x1.grad = 100 − 0.01 × 10 = 99.9`.
    """
    plan, step = subject.plan, next(each for each in subject.steps if each.position == position)
    if plan is None:
        return []
    action = next(
        (each for each in plan.program if isinstance(each, Action) and re.fullmatch(pattern_of(each.path), step.path)),
        None,
    )
    if action is not None and isinstance(action.argument, Backward):
        return list(_added(subject, action.argument, position))
    if action is None or not isinstance(action.argument, (Step, Train)):
        return []
    return [said for name in action.argument.optimizers for said in _updates(subject, name, position)]


def _added(subject: Subject, backward: Backward, position: int) -> Iterator[str]:
    tensors = {tensor.of.name: tensor.values for tensor in subject.tensors}
    for name in backward.parameters:
        values = tensors.get(f"{name}.grad", {})
        before, after = values.get(position - 1), values.get(position)
        if before is None or after is None or after.numel() != 1 or not before.any():
            continue
        old, new = float(before.detach()), float(after.detach())
        yield f"`{name}.grad ← {name}.grad + ∂` = {number(old)} + {number(new - old)} = {number(new)}"


def _updates(subject: Subject, optimizer: str, position: int) -> Iterator[str]:
    assert subject.plan is not None
    plan = subject.plan.optimizers[optimizer]
    tensors = {tensor.of.name: tensor.values for tensor in subject.tensors}
    for group in plan.groups:
        rate = group.options.get("lr")
        if plan.kind != "sgd" or not set(group.options) <= _PLAIN or not isinstance(rate, (int, float)):
            continue
        for name in group.parameters:
            values = [
                tensors.get(name, {}).get(position - 1),
                tensors.get(f"{name}.grad", {}).get(position),
                tensors.get(name, {}).get(position),
            ]
            if all(value is not None and value.numel() == 1 for value in values):
                before, slope, after = (float(value.detach()) for value in values if value is not None)
                dtype = dtype_name(subject.plan.tensors[name].dtype)
                yield f"`{name} ← {name} − lr · {name}.grad` = {_sum(before, rate, slope, after, dtype)}"


def _sum(before: float, rate: float, slope: float, after: float, dtype: str) -> str:
    found = f"{number(before)} − {number(float(rate))} × {number(slope)} = {number(after)}"
    precise = f"{after:.9g}"
    return found if precise == number(after) else f"{found}, rounded to {dtype}: {precise}"
