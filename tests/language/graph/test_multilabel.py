"""The multilabel margin loss of traces is that of PyTorch's kernel, with its gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional

from runner.language.graph.multilabel import multilabel_margin_loss
from tests.tables import over


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@over("target", [[[3, 0, -1, 1], [-1, 2, 1, 0], [1, 3, 0, 2], [2, 2, -1, -1]], [0, -1, 3, 3], 0, -1])
def test_it_is_that_of_torch(target: list[list[int]] | list[int] | int, reduction: str) -> None:
    labels = torch.tensor(target)
    scores = torch.linspace(-1, 2, labels.numel(), dtype=torch.float64).sin().reshape(labels.shape)

    def traced(x: Tensor, y: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        loss = multilabel_margin_loss(x, y, reduction=reduction)
        return torch.cat([loss.detach().reshape(-1), torch.autograd.grad(loss.square().sum(), x)[0].reshape(-1)])

    x = scores.clone().requires_grad_()
    loss = functional.multilabel_margin_loss(x, labels, reduction=reduction)
    loss.square().sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    expected = torch.cat([loss.detach().reshape(-1), x.grad.reshape(-1)])
    assert multilabel_margin_loss(scores, labels, reduction=reduction).shape == loss.shape
    torch.testing.assert_close(make_fx(traced)(scores, labels)(scores, labels), expected, rtol=1e-12, atol=1e-12)


def test_a_label_out_of_range_is_an_error() -> None:
    for labels in ([0, -2, -1, 0], [0, 4, -1, 0], [0, -1, 99, 1], [0, -1, -2, 1]):
        with pytest.raises(RuntimeError, match="out of bounds"):
            multilabel_margin_loss(torch.ones(1, 4), torch.tensor([labels]))
