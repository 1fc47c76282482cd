"""Operators of each element at values chosen for their meaning, against torch: zeros, infinities, NaN, the ends."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import torch
from torch import Tensor

from runner.language.xla.operators import choices, elementwise
from runner.language.xla.operators.facts import Facts, as_array
from runner.language.xla.operators.table import RULES
from tests.engine.xla.operators.traced import FAST_COMPILATION, TOLERANCES, as_tensor
from tests.tables import over

inf, nan = float("inf"), float("nan")
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 3.0, -7.0, 1e-3, 100.0, inf, -inf, nan)
INTEGERS = (0, 1, -1, 2, -2, 3, -7, 100, 2**31, -(2**31), 2**62, 1 - 2**63)
SMALL = (0, 1, -1, 2, -2, 3, -7, 100, 127, -128)
VALUES: dict[torch.dtype, Sequence[Any]] = {
    torch.float64: FLOATS,
    torch.float32: FLOATS,
    torch.bfloat16: FLOATS,
    torch.float16: FLOATS,
    torch.int64: INTEGERS,
    torch.int8: SMALL,
    torch.uint8: (0, 1, 2, 3, 100, 255),
    torch.bool: (False, True),
    torch.complex128: (0j, 1 + 0j, -1 + 0j, 1j, 0.5 - 2j, -3 + 4j),
}
TESTS = [f"aten.{name}.default" for name in ("bitwise_not", "isinf", "isnan", "logical_not", "signbit")]
PAIRED = (torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.int8, torch.uint8, torch.bool)


def operator(name: str) -> Any:
    _, packet, overload = name.split(".")
    return getattr(getattr(torch.ops.aten, packet), overload)


def compared(calls: dict[str, tuple[Any, ...]], same: Callable[[str, Tensor, Tensor], None]) -> int:
    """Runs calls in torch and, in one compilation, in XLA; returns how many torch can do."""
    expected: dict[str, Any] = {}
    for name, arguments in calls.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected[name] = operator(name)(*arguments)
        except (RuntimeError, NotImplementedError, TypeError):
            continue  # torch has no such operation for this dtype, or raises an error for a value

    def together(given: dict[str, list[Any]]) -> dict[str, Any]:
        found = {}
        for name, values in given.items():
            whole = iter(values)
            complete = _complete(name, calls[name])
            arguments = [next(whole) if isinstance(each, Tensor) else each for each in complete]
            results = expected[name] if isinstance(expected[name], tuple) else (expected[name],)
            found[name] = RULES[name](Facts(tuple(results), complete), *arguments)
        return found

    with jax.enable_x64(True):
        tensors = {name: [as_array(each) for each in calls[name] if isinstance(each, Tensor)] for name in expected}
        found = jax.jit(together).lower(tensors).compile(FAST_COMPILATION)(tensors)
    for name, value in expected.items():
        pairs = zip(found[name], value, strict=True) if isinstance(value, tuple) else [(found[name], value)]
        for mine, theirs in pairs:
            same(name, as_tensor(mine), theirs)
    return len(expected)


def _complete(name: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Adds the defaults of the schema."""
    schema = operator(name)._schema.arguments
    return (*arguments, *(each.default_value for each in schema[len(arguments) :]))


def close(name: str, mine: Tensor, theirs: Tensor) -> None:
    tolerance = TOLERANCES.get(theirs.dtype, 0.0)
    theirs = theirs.resolve_conj()
    try:
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance / 10, equal_nan=True)
    except AssertionError as error:
        differs = ~torch.isclose(mine, theirs, rtol=tolerance, atol=tolerance / 10, equal_nan=True)
        places = differs.nonzero()[:4].tolist()
        shown = [(place, mine[tuple(place)].item(), theirs[tuple(place)].item()) for place in places]
        raise AssertionError(f"{name}: {shown}") from error


@over("dtype", sorted(VALUES, key=str))
def test_a_function_of_one_argument_has_the_values_of_torch(dtype: torch.dtype) -> None:
    x = torch.tensor(VALUES[dtype], dtype=dtype)
    assert compared(dict.fromkeys([*elementwise.UNARY, *TESTS], (x,)), close) > 5


@over("dtype", PAIRED)
def test_a_function_of_two_arguments_has_the_values_of_torch(dtype: torch.dtype) -> None:
    values = torch.tensor(VALUES[dtype], dtype=dtype)
    divisors = values[values != 0] if not dtype.is_floating_point else values
    x, y = values[:, None], values[None, :]
    names = [*elementwise.BINARY, *(name for name in choices.RULES if name.endswith(".Tensor") and "clamp" not in name)]
    names += ["aten.add.Tensor", "aten.sub.Tensor", "aten.pow.Tensor_Tensor", "aten.logical_xor.default"]
    calls = {name: (x, y) for name in names if not name.endswith(".Scalar")}
    calls |= {f"aten.{name}.Tensor": (x, divisors[None, :]) for name in ("fmod", "remainder")}
    assert compared(calls, close) > 10
