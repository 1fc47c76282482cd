from __future__ import annotations

import pytest
import torch

from runner.plan.rows.columns import Column
from runner.record.rows.storage import from_stored, stack, stored_column, to_stored
from tests.record.building import bits
from tests.tables import over

EIGHT_BITS = [
    torch.float8_e4m3fn,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2,
    torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu,
]
SIXTEEN_BITS = [torch.float16, torch.bfloat16]


def every_value(dtype: torch.dtype) -> torch.Tensor:
    if dtype.itemsize == 1:
        return torch.arange(256, dtype=torch.uint8).view(dtype)
    return torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)


@over("dtype", EIGHT_BITS + SIXTEEN_BITS)
def test_every_narrow_float_comes_back_with_its_bits(dtype: torch.dtype) -> None:
    tensor = every_value(dtype)
    stored = to_stored(tensor)
    assert stored.dtype == torch.float32
    assert bits(from_stored(stored, dtype)) == bits(tensor)


@over("dtype", EIGHT_BITS + SIXTEEN_BITS)
def test_widening_keeps_the_value(dtype: torch.dtype) -> None:
    tensor = every_value(dtype)
    assert torch.equal(to_stored(tensor).nan_to_num(), tensor.float().nan_to_num())
    assert torch.equal(to_stored(tensor).isnan(), tensor.float().isnan())


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("dtype", [torch.complex32, torch.complex64, torch.complex128], ids=str)
def test_complex_numbers_get_a_trailing_axis_of_two(dtype: torch.dtype) -> None:
    tensor = torch.complex(torch.tensor([1.0, -0.0]), torch.tensor([2.0, float("nan")])).to(dtype)
    stored = to_stored(tensor)
    assert stored.shape == (2, 2)
    assert stored[0].tolist() == [1.0, 2.0]
    assert bits(from_stored(stored, dtype)) == bits(tensor)


def test_a_conjugated_view_is_stored_with_its_values() -> None:
    tensor = torch.tensor([1 + 2j, 3 - 4j])
    assert to_stored(tensor.conj()).tolist() == [[1.0, -2.0], [3.0, 4.0]]
    assert to_stored(tensor.conj().imag).tolist() == [-2.0, 4.0]


@over(
    ("shape", "layout"),
    [
        ((), "scalar"),
        ((1,), "tensor"),
        ((64, 64), "tensor"),
        ((4097,), "bytes"),
        ((0,), "list"),
        ((3, 0, 2), "list"),
        (None, "list"),
    ],
)
def test_the_layout_follows_the_shape(shape: tuple[int, ...] | None, layout: str) -> None:
    assert stored_column(Column("x", "weight", torch.float32, shape)).layout == layout


def test_the_axis_of_a_complex_column_counts() -> None:
    assert stored_column(Column("x", "weight", torch.complex64, ())).layout == "tensor"
    assert stored_column(Column("x", "weight", torch.complex64, (4096,))).layout == "bytes"


def test_stacking_builds_no_graph() -> None:
    stacked, present = stack([torch.ones(2, requires_grad=True) * 2] * 3, torch.zeros(2))
    assert not stacked.requires_grad
    assert present is None


def test_stacking_says_what_is_missing() -> None:
    stacked, present = stack([None, torch.ones(2), None], torch.zeros(2))
    assert stacked.tolist() == [[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]
    assert present == [False, True, False]
