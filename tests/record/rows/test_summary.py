from __future__ import annotations

import math

import pytest
import torch

from runner.record.rows.digest import digest_of, digests_of
from runner.record.rows.summary import summarize, summarize_together
from tests.tables import over


def test_statistics_are_those_of_float64() -> None:
    tensor = torch.randn(50, 30, generator=torch.Generator().manual_seed(0))
    values = [float(value) for value in tensor.flatten()]
    summary = summarize(tensor)
    mean = math.fsum(values) / len(values)
    assert summary.shape == (50, 30)
    assert summary.dtype == torch.float32
    assert summary.mean == pytest.approx(mean, rel=1e-12)
    assert summary.std == pytest.approx(math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values)), rel=1e-12)
    assert (summary.min, summary.max) == (min(values), max(values))
    assert summary.norm == pytest.approx(math.sqrt(math.fsum(v * v for v in values)), rel=1e-12)
    assert (summary.zeros, summary.nan, summary.inf) == (0, 0, 0)


def test_what_is_not_finite_is_counted_and_left_out() -> None:
    summary = summarize(torch.tensor([1.0, math.nan, -math.inf, 0.0, math.inf, 3.0, -0.0]))
    assert (summary.nan, summary.inf, summary.zeros) == (1, 2, 2)
    assert (summary.mean, summary.min, summary.max) == (1.0, 0.0, 3.0)


@pytest.mark.parametrize("tensor", [torch.full((3,), math.nan), torch.zeros(0, 2)], ids=["nan", "empty"])
def test_without_a_finite_element_there_is_no_mean(tensor: torch.Tensor) -> None:
    summary = summarize(tensor)
    assert (summary.mean, summary.std, summary.min, summary.max, summary.norm) == (None, None, None, None, 0.0)


DTYPES = [torch.bool, torch.uint8, torch.uint16, torch.int64, torch.bfloat16, torch.float8_e5m2, torch.complex64]


@over("dtype", DTYPES)
def test_every_dtype_has_statistics(dtype: torch.dtype) -> None:
    summary = summarize(torch.tensor([0.0, 1.0, 1.0, 0.0]).to(dtype).requires_grad_(dtype.is_floating_point))
    assert (summary.mean, summary.min, summary.max, summary.zeros) == (0.5, 0.0, 1.0, 2)


def test_a_complex_tensor_is_told_by_its_magnitudes() -> None:
    assert summarize(torch.tensor([3 + 4j, 0j])).max == 5.0


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64, torch.int32, torch.bool]
)
@pytest.mark.parametrize("shape", [(1,), (3,), (4, 5), (64, 64)])
def test_tensors_summarized_together_have_the_bits_of_each_alone(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = [(torch.randn(shape, generator=generator, dtype=torch.float64) * 9).to(dtype) for _ in range(20)]
    found = summarize_together(torch.stack(tensors))
    assert found is not None
    alone = [summarize(tensor) for tensor in tensors]
    for name, values in found.items():
        assert values.tolist() == [getattr(each, name) for each in alone], name


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_tensors_that_are_not_finite_are_summarized_alone(odd: float) -> None:
    assert summarize_together(torch.tensor([[1.0, 1.0], [1.0, odd]])) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64, torch.int32, torch.bool])
def test_digests_together_are_those_of_each_alone(dtype: torch.dtype) -> None:
    tensors = torch.arange(24).reshape(4, 2, 3).to(dtype)
    assert list(digests_of(tensors)) == [digest_of(tensor) for tensor in tensors]
