"""Operators of each element at values chosen for their meaning, against torch: zeros, infinities, NaN, the ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import pytest
import torch

from runner.language.xla.operators import choices, elementwise
from runner.language.xla.operators.facts import Facts, as_array
from runner.language.xla.operators.table import RULES
from tests.engine.xla.operators.calls import assert_same
from tests.tables import over

inf, nan = float("inf"), float("nan")
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 3.0, -7.0, 1e-3, 100.0, inf, -inf, nan)
INTEGERS = (0, 1, -1, 2, -2, 3, -7, 100, 2**31, -(2**31), 2**62, 1 - 2**63)
SMALL = (0, 1, -1, 2, -2, 3, -7, 100, 127, -128)
VALUES: dict[torch.dtype, Sequence[Any]] = {
    torch.float64: FLOATS,
    torch.float32: FLOATS,
    torch.bfloat16: FLOATS,
    torch.int64: INTEGERS,
    torch.int8: SMALL,
    torch.uint8: (0, 1, 2, 3, 100, 255),
    torch.bool: (False, True),
    torch.complex128: (0j, 1 + 0j, -1 + 0j, 1j, 0.5 - 2j, -3 + 4j),
}
TESTS = [f"aten.{name}.default" for name in ("bitwise_not", "isinf", "isnan", "logical_not", "signbit")]
PAIRED = (torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.int8, torch.uint8, torch.bool)


@pytest.mark.slow
@over("dtype", sorted(VALUES, key=str))
def test_a_function_of_one_argument_has_the_values_of_torch(dtype: torch.dtype) -> None:
    x = torch.tensor(VALUES[dtype], dtype=dtype)
    assert assert_same([(name, x) for name in [*elementwise.UNARY, *TESTS]], every=False) > 5


@pytest.mark.slow
@over("dtype", PAIRED)
def test_a_function_of_two_arguments_has_the_values_of_torch(dtype: torch.dtype) -> None:
    values = torch.tensor(VALUES[dtype], dtype=dtype)
    divisors = values[values != 0] if not dtype.is_floating_point else values
    x, y = values[:, None], values[None, :]
    names = [*elementwise.BINARY, *(name for name in choices.RULES if name.endswith(".Tensor") and "clamp" not in name)]
    names += ["aten.add.Tensor", "aten.sub.Tensor", "aten.pow.Tensor_Tensor", "aten.logical_xor.default"]
    calls = [(name, x, y) for name in names if not name.endswith(".Scalar")]
    if dtype in (torch.int8, torch.uint8):  # torch computes these in a wider dtype and cuts the result
        calls = [call for call in calls if call[0] not in ("aten.gcd.default", "aten.lcm.default")]
    calls += [(f"aten.{name}.Tensor", x, divisors[None, :]) for name in ("fmod", "remainder")]
    assert assert_same(calls, every=False) > 10


def test_the_divisor_of_the_least_integer_is_found() -> None:
    least, six = torch.tensor([-(2**63)]), torch.tensor([6])
    with jax.enable_x64(True):
        found = RULES["aten.gcd.default"](Facts((least,), (least, six)), as_array(least), as_array(six))
    assert found.tolist() == [2]  # torch gives -2
