"""Covariances without reading numbers back are those of PyTorch, with gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from runner.language.graph.covariance import corrcoef, cov
from tests.tables import over


def observations(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    if not dtype.is_floating_point and not dtype.is_complex:
        return torch.randint(9, shape, generator=generator)
    return torch.randn(*shape, generator=generator, dtype=dtype)


@over(
    ("given", "correction"),
    [
        (observations(3, 5), 1),
        (observations(3, 5), 0),
        (observations(1, 5), 2),
        (observations(5), 1),
        (observations(3, 5, dtype=torch.complex128), 1),
        (observations(3, 5, dtype=torch.int64), 1),
    ],
)
def test_they_are_those_of_torch(given: Tensor, correction: int) -> None:
    torch.testing.assert_close(cov(given, correction=correction), torch.cov(given, correction=correction))
    torch.testing.assert_close(corrcoef(given), torch.corrcoef(given))


def test_a_trace_has_the_gradients_of_torch() -> None:
    given = observations(3, 5)

    def gradient(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        return torch.autograd.grad((cov(x) * corrcoef(x) ** 2).sum(), x)[0]

    x = given.clone().requires_grad_()
    (torch.cov(x) * torch.corrcoef(x) ** 2).sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(make_fx(gradient)(given)(given), x.grad)


@pytest.mark.filterwarnings("ignore:cov\\(\\). degrees of freedom is <= 0:UserWarning")
def test_without_degrees_of_freedom_they_are_not_finite() -> None:
    given = observations(2, 3)
    torch.testing.assert_close(cov(given, correction=4), torch.cov(given, correction=4), equal_nan=True)
    assert math.isnan(cov(given[:, :1])[0, 0])
