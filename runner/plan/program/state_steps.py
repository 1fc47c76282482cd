"""`assign` and `expect`: steps about the state of a run rather than about an objective."""

from __future__ import annotations

from typing import Any

import torch

from runner.config import models
from runner.errors import did_you_mean
from runner.faults import ConfigPath
from runner.language.dtypes import dtype_name
from runner.language.graph.computation import Computation
from runner.optim.plans import broadcasts
from runner.plan.program.expressions import Values
from runner.plan.program.instructions import (
    Assign,
    Expect,
    Expectation,
)
from runner.plan.program.literals import expression_text, gradient_name
from runner.plan.scalars import number


def assign(values: Values, step: models.Step, argument: models.Assign) -> Assign | None:
    texts: dict[str, str] = {}
    for target, value in argument.values.items():
        path = (*step.path, "assign", target)
        fault = target_fault(values, target)
        if fault:
            values.faults.add(path, *fault, key=True)
            continue
        texts[target] = expression_text(value)
        values.read.add(target.removesuffix(".grad"))
    computations = []
    for target, text in texts.items():
        path = (*step.path, "assign", target)
        computation = values.compile(text, path)
        if computation is None:
            continue
        tensor = values.tensors[target.removesuffix(".grad")]
        wanted = tensor.shape
        shape = computation.outputs[0].shape
        if shape is not None and not broadcasts(shape, wanted):
            values.faults.add(
                path,
                f"this value has shape {shape}, `{target}` has {wanted}",
                "give it the shape of what it replaces",
            )
        check_cast(values, computation, tensor.dtype, f"`{target}`", path)
        computations.append((target, computation, path))
    if not computations:
        return None
    return Assign(
        tuple(target for target, _, _ in computations),
        tuple(computation for _, computation, _ in computations),
        tuple(path for _, _, path in computations),
    )


def target_fault(values: Values, target: str) -> tuple[str, str] | None:
    name = target.removesuffix(".grad")
    tensor = values.tensors.get(name)
    if tensor is None:
        if name in values.lowered.values:
            return f"`{target}` is computed by `expression`", "assign to a parameter"
        known = [key for key, plan in values.tensors.items() if plan.role == "parameter"]
        return f"`{target}` is not a parameter", did_you_mean(target, known, f"parameters are {', '.join(known)}") or ""
    if tensor.role == "constant":
        return f"`{name}` is a constant", "declare it under `parameters:` with `requires_grad: false`"
    if target != name and not tensor.requires_grad:
        return f"`{name}` is frozen, and has no gradient", f"assign to `{name}`, or give it `requires_grad: true`"
    return None


def expect(values: Values, step: models.Step, argument: models.Expect) -> Expect:
    found = [expectation(values, step, text, entry) for text, entry in argument.expectations.items()]
    return Expect(tuple(entry for entry in found if entry is not None))


def expectation(values: Values, step: models.Step, text: str, entry: models.Expectation) -> Expectation | None:
    path = (*step.path, "expect", text)
    rtol = tolerance(values, entry.rtol, (*path, "rtol"))
    atol = tolerance(values, entry.atol, (*path, "atol"))
    field_name = gradient_name(text)
    if entry.value is None:
        if field_name is None or field_name.removesuffix(".grad") not in values.tensors:
            values.faults.add(
                path,
                "`null` stands for a gradient that does not exist",
                "write for instance `x1.grad: null`",
                key=True,
            )
            return None
        values.read.add(field_name.removesuffix(".grad"))
        return Expectation(text, None, field_name, None, None, rtol, atol, path)
    actual = values.compile(text, path, key=True)
    expected, value = None, entry.value
    if not isinstance(value, (bool, int, float)):
        dtype = None if actual is None else actual.outputs[0].dtype
        expected = values.compile(expression_text(value, dtype), path)
        if expected is None:
            return None
    if actual is None:
        return None
    check_tolerances(values, text, entry, actual.outputs[0].dtype, path)
    shape = actual.outputs[0].shape
    other = expected.outputs[0].shape if expected is not None else ()
    if shape is not None and other is not None and not broadcasts(other, shape):
        values.faults.add(
            path,
            f"the expected value has shape {other}, `{text}` has {shape}",
            "give it the same shape, or one that broadcasts",
        )
    return Expectation(text, actual, field_name, expected, value, rtol, atol, path)


def tolerance(values: Values, written: Any, path: ConfigPath) -> float | None:
    if written is None:
        return None
    found = number(written, path, values.environment.scalars, values.faults)
    if found is not None and not found >= 0:
        values.faults.add(path, f"a tolerance cannot be negative, found {found!r}", "write 0 or more")
    return found


def check_tolerances(
    values: Values, text: str, entry: models.Expectation, dtype: torch.dtype, path: ConfigPath
) -> None:
    """Tolerances of integers and booleans would be ignored: those are compared exactly."""
    if not (dtype.is_floating_point or dtype.is_complex):
        for name, tolerance in (("rtol", entry.rtol), ("atol", entry.atol)):
            if tolerance not in (None, 0):
                message = f"`{text}` is {dtype_name(dtype)}, and compared exactly"
                values.faults.add((*path, name), message, f"remove `{name}`", key=True)


def check_cast(values: Values, computation: Computation, dtype: torch.dtype, what: str, path: ConfigPath) -> None:
    """A fault where writing the value into `what` would lose its fraction or its imaginary part."""
    found = computation.outputs[0].dtype
    if not torch.can_cast(found, dtype):
        values.faults.add(
            path,
            f"this value is {dtype_name(found)}, and {what} is {dtype_name(dtype)}",
            f"cast it: `.to({dtype_name(dtype)})`" if not found.is_complex else "take its `.real` part",
        )
