"""The text of tensors: no bit is lost, and no digit is superfluous."""

from __future__ import annotations

import math
import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from runner.compare.numbers.numerals import NumeralError, from_text, to_text
from runner.compare.numbers.ulp import same_bits
from tests.tables import over

DTYPES = [
    getattr(torch, name)
    for name in [
        *("float16", "bfloat16", "float32", "float64", "complex32", "complex64", "complex128", "bool"),
        *("uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64"),
        *("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"),
    ]
]
quiet = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Any bits in any shape and dtype."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
    count = math.prod(shape)
    if dtype == torch.bool:
        return torch.tensor(draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype=dtype).reshape(shape)
    data = draw(st.binary(min_size=count * dtype.itemsize, max_size=count * dtype.itemsize))
    flat = torch.frombuffer(bytearray(data), dtype=torch.uint8) if count else torch.zeros(0, dtype=torch.uint8)
    return flat.clone().view(dtype).reshape(shape)


@quiet
@given(tensors())
def test_any_tensor_of_any_dtype_survives_bit_for_bit(tensor: Tensor) -> None:
    text = to_text(tensor)
    assert "\n" not in text
    assert same_bits(from_text(text, tensor.dtype, tensor.shape), tensor)


@pytest.mark.slow
@quiet
@over("dtype", [dtype for dtype in DTYPES if dtype.itemsize <= 2 and dtype != torch.bool])
def test_every_pattern_of_a_narrow_dtype_survives(dtype: torch.dtype) -> None:
    integer = torch.uint8 if dtype.itemsize == 1 else torch.int16
    info = torch.iinfo(integer)
    patterns = torch.arange(info.min, info.max + 1).to(integer)
    assert same_bits(from_text(to_text(patterns.view(dtype)), dtype, patterns.shape), patterns.view(dtype))


@given(st.floats(width=32, allow_nan=False))
def test_float32_has_the_fewest_digits(number: float) -> None:
    text = to_text(torch.tensor(number))
    assert float(text) == float(str(torch.tensor(number).numpy()))
    digits = len(text.lstrip("-").partition("e")[0].replace(".", "").strip("0"))
    if math.isfinite(number) and digits > 1:
        shorter = float(f"{number:.{digits - 1}g}")
        if abs(shorter) < 3e38:
            assert struct.unpack("f", struct.pack("f", shorter))[0] != number


@over(
    ("tensor", "text"),
    [
        (torch.tensor(0.1), "0.1"),
        (torch.tensor(0.1, dtype=torch.float64), "0.1"),
        (torch.tensor(1 / 3, dtype=torch.bfloat16), "0.334"),
        (torch.tensor([100.0, -0.0, 1e-8]), "100.0, -0.0, 1e-08"),
        (torch.tensor([math.inf, -math.inf, math.nan]), "inf, -inf, nan"),
        (torch.tensor([-4194304], dtype=torch.int32).view(torch.float32), "nan(0xffc00000)"),
        (torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "1.0, 2.0; 3.0, 4.0"),
        (torch.arange(8).reshape(2, 2, 2), "0, 1; 2, 3;; 4, 5; 6, 7"),
        (torch.arange(4).reshape(2, 2, 1, 1), "0;; 1;;; 2;; 3"),
        (torch.tensor([True, False]), "true, false"),
        (torch.tensor([1 - 2j, complex(-0.0, math.inf)]), "1.0-2.0j, -0.0+infj"),
        (torch.zeros(0, 3), "empty"),
        (torch.tensor([2**64 - 1], dtype=torch.uint64), "18446744073709551615"),
        (torch.tensor(2**63 - 1), "9223372036854775807"),
    ],
)
def test_what_it_looks_like(tensor: Tensor, text: str) -> None:
    assert to_text(tensor) == text
    assert same_bits(from_text(text, tensor.dtype, tensor.shape), tensor)


@over(
    ("text", "dtype", "shape", "told"),
    [
        ("1.0, 2.0", torch.float32, [3], r"2 numbers, and the shape \[3\] needs 3"),
        ("empty", torch.float32, [1], r"0 numbers, and the shape \[1\] needs 1"),
        ("1.0, two", torch.float32, [2], r"`two` is not of dtype float32"),
        ("1.0, ", torch.float32, [2], r"`` is not of dtype float32"),
        ("0x10", torch.float32, [], r"`0x10` is not of dtype float32"),
        ("1_000", torch.float32, [], r"`1_000` is not of dtype float32"),
        ("1.5", torch.int64, [], r"`1.5` is not of dtype int64"),
        ("300", torch.uint8, [], r"`300` is not between 0 and 255"),
        ("-1", torch.uint64, [], r"`-1` is not between 0 and 18446744073709551615"),
        ("1", torch.bool, [], r"`1` is not of dtype bool"),
        ("1.0", torch.complex64, [], r"`1.0` is not of dtype complex64"),
        ("nan(0x12345)", torch.bfloat16, [], r"`nan\(0x12345\)` has more bits than bfloat16"),
        ("9" * 60 + "z", torch.float32, [], r"`9{40}…` is not of dtype float32"),
    ],
)
def test_text_that_is_no_tensor_is_refused(text: str, dtype: torch.dtype, shape: list[int], told: str) -> None:
    with pytest.raises(NumeralError, match=told):
        from_text(text, dtype, shape)
