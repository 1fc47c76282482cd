"""Plans `assign` and `expect`, the steps that work on the state of a run rather than on an objective."""

from __future__ import annotations

from typing import Any

import torch

from runner.config import models
from runner.errors import did_you_mean
from runner.faults import ConfigPath
from runner.language.dtypes import dtype_name
from runner.language.graph.computation import Computation
from runner.language.text.literals import expression_text, gradient_name
from runner.optim.plans import StateEntry, broadcasts
from runner.plan.program.expressions import Values
from runner.plan.program.instructions import (
    Assign,
    Expect,
    Expectation,
)
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
        values.read.add(target.partition(".")[0])
    computations = []
    for target, text in texts.items():
        path = (*step.path, "assign", target)
        computation = values.compile(text, path)
        if computation is None:
            continue
        wanted, dtype = _written(values, target)
        shape = computation.outputs[0].shape
        if shape is not None and not broadcasts(shape, wanted):
            values.faults.add(
                path,
                f"this value has shape {shape}, `{target}` has {wanted}",
                "give it the shape of what it replaces",
            )
        check_cast(values, computation, dtype, f"`{target}`", path)
        computations.append((target, computation, path))
    if not computations:
        return None
    return Assign(
        tuple(target for target, _, _ in computations),
        tuple(computation for _, computation, _ in computations),
        tuple(path for _, _, path in computations),
    )


def _written(values: Values, target: str) -> tuple[tuple[int, ...], torch.dtype]:
    """The shape and dtype of a weight, a gradient or an entry of optimizer state."""
    name, _, entry = target.partition(".")
    if entry and entry != "grad":
        kept = state_of(values, name)[entry]
        return kept.shape, kept.dtype
    tensor = values.tensors[name]
    return tensor.shape, tensor.dtype


def state_of(values: Values, name: str) -> dict[str, StateEntry]:
    """The entries of optimizer state that a parameter has after its first step."""
    found = (optimizer.state.get(name, ()) for optimizer in values.optimizers.values())
    return {entry.name: entry for entries in found for entry in entries}


def target_fault(values: Values, target: str) -> tuple[str, str] | None:
    name, _, entry = target.partition(".")
    tensor = values.tensors.get(name)
    if tensor is None:
        if name in values.lowered.values:
            return f"`{target}` is computed by `expression`", "assign to a parameter"
        known = [key for key, plan in values.tensors.items() if plan.role == "parameter"]
        return f"`{target}` is not a parameter", did_you_mean(target, known, f"parameters are {', '.join(known)}") or ""
    if tensor.role == "constant":
        return f"`{name}` is a constant", "declare it under `parameters:` with `requires_grad: false`"
    if entry not in ("", "grad"):
        kept = sorted(state_of(values, name))
        if entry in kept:
            return None
        owner = next((each for each in values.optimizers.values() if name in each.parameters), None)
        if owner is None:
            return f"`{target}` is no optimizer state: no optimizer holds `{name}`", f"assign to `{name}`"
        if not kept:
            return f"`{owner.kind}` keeps no state of `{name}` that can be written", f"assign to `{name}`"
        hint = did_you_mean(entry, kept, f"it keeps {', '.join(kept)}")
        return f"`{owner.kind}` keeps no `{entry}` for `{name}`", hint or ""
    if entry and not tensor.requires_grad:
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
                "`null` means that there is no gradient",
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
    """Report tolerances for integers and booleans, which are compared exactly."""
    if not (dtype.is_floating_point or dtype.is_complex):
        for name, tolerance in (("rtol", entry.rtol), ("atol", entry.atol)):
            if tolerance not in (None, 0):
                message = f"`{text}` is {dtype_name(dtype)}, and compared exactly"
                values.faults.add((*path, name), message, f"remove `{name}`", key=True)


def check_cast(values: Values, computation: Computation, dtype: torch.dtype, what: str, path: ConfigPath) -> None:
    """Report a value that would lose its fraction or imaginary part when written to `what`."""
    found = computation.outputs[0].dtype
    if not torch.can_cast(found, dtype):
        values.faults.add(
            path,
            f"this value is {dtype_name(found)}, and {what} is {dtype_name(dtype)}",
            f"cast it: `.to({dtype_name(dtype)})`" if not found.is_complex else "take its `.real` part",
        )
