"""Expressions lowered and run on the tensors of one small scope."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from runner.language.graph.computation import Computation, extract
from runner.language.graph.lowered import Lowered
from runner.language.inference.inference import Bounds, Inference
from runner.language.lowering.lower import lower_statements, uses_grad
from runner.language.lowering.scope import Function, Scope, declare_functions
from runner.language.text.arithmetic import Scalar
from runner.language.text.faults import LanguageError

SCALARS: Mapping[str, Scalar] = {"n": 3, "rate": 0.1, "flag": True}
ROLES = {"x": "parameter", "w": "parameter", "b": "constant", "c": "constant", "k": "constant", "z": "constant"}
TABLES: Mapping[str, tuple[Scalar, ...]] = {"c": (0.5, 0.25, 4.0), "k": (2, 0, 1)}


def tensors() -> dict[str, Tensor]:
    """What the expressions read: `x` (2, 3), `w` (3, 2), `b`, `c`, `k` and `z` of 3 elements, `z` complex."""
    generator = torch.Generator().manual_seed(0)
    return {
        "x": torch.randn(2, 3, generator=generator).requires_grad_(),
        "w": torch.randn(3, 2, generator=generator).requires_grad_(),
        "b": torch.randn(3, generator=generator),
        "c": torch.tensor(TABLES["c"]),
        "k": torch.tensor(TABLES["k"]),
        "z": torch.randn(3, generator=generator, dtype=torch.complex64),
    }


def functions(declarations: Mapping[str, str]) -> dict[str, Function]:
    """Helper functions, without faults."""
    declared, faults = declare_functions(declarations)
    assert not faults, faults
    return declared


def scope(given: Mapping[str, Tensor], declarations: Mapping[str, str] | None = None, **fields: Any) -> Scope:
    found: dict[str, Any] = {
        "tensors": given,
        "roles": {name: ROLES.get(name, "constant") for name in given},
        "scalars": SCALARS,
        "tables": TABLES,
        "running": {"iteration": 1},
        "fixed": {"training": True},
        "functions": functions(declarations or {}),
    }
    return Scope(**(found | fields))


def lower(
    text: str,
    declarations: Mapping[str, str] | None = None,
    given: Mapping[str, Tensor] | None = None,
    bounds: Bounds | None = None,
    **fields: Any,
) -> Lowered:
    found = scope(tensors() if given is None else given, declarations, **fields)
    return lower_statements(text, found, Inference(bounds or Bounds(), uses_grad(text, found)))


def compute(computation: Computation, given: Mapping[str, Any], iteration: int = 1) -> tuple[Any, ...]:
    """The outputs of a computation, of the inputs that it asks for."""
    return computation.function(None, *[{"iteration": iteration, **given}[name] for name in computation.inputs])


def value_of(
    text: str,
    declarations: Mapping[str, str] | None = None,
    given: Mapping[str, Tensor] | None = None,
    iteration: int = 1,
    **fields: Any,
) -> Any:
    """What the last statement gives when it is run."""
    given = tensors() if given is None else given
    lowered = lower(text, declarations, given, **fields)
    return compute(extract(lowered, [lowered.result]), given, iteration)[0]


def fault_of(text: str, declarations: Mapping[str, str] | None = None, **fields: Any) -> LanguageError:
    """The fault that lowering an expression ends in."""
    try:
        lowered = lower(text, declarations, **fields)
    except LanguageError as error:
        return error
    raise AssertionError(f"{text!r} was lowered to {lowered.values}")


def same(one: Any, other: Any) -> bool:
    """Whether two values are bit-equal, of one dtype and shape, NaN in the same places; or equal numbers of a type."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        if one.dtype != other.dtype or one.shape != other.shape:
            return False
        return bool(torch.equal(one, other) or torch.allclose(one, other, rtol=0, atol=0, equal_nan=True))
    if isinstance(one, (tuple, list)) and isinstance(other, (tuple, list)):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and (one == other or (one != one and other != other))
