"""Metrics of predicted numbers: `r2`."""

from __future__ import annotations

import torch
from torch import Tensor

from runner.language.measures.operands import OperandError, wide


def r2(prediction: Tensor, target: Tensor) -> Tensor:
    """Computes the coefficient of determination: one minus the squared error over the variation of the target.

    Args:
        prediction, target: `(samples,)` or `(samples, outputs)`, of one shape; the mean over outputs counts.
    Returns:
        0-d float64. For a constant target it is 1 if every prediction is exact, else 0. NaN for fewer than two
        samples.
    Raises:
        OperandError: the shapes differ.
    Source: `sklearn.metrics.r2_score`.
    """
    if prediction.shape != target.shape or prediction.dim() not in (1, 2):
        shapes = f"{tuple(prediction.shape)} and {tuple(target.shape)}"
        message = f"`prediction` and `target` have the shapes {shapes}, and take one: (samples,) or (samples, outputs)"
        raise OperandError(message, "`squeeze` or `unsqueeze` one of them")
    if len(prediction) < 2:
        return torch.full((), torch.nan, dtype=wide(target[:0]).dtype, device=target.device)
    found, wanted = wide(prediction), wide(target)
    error = ((wanted - found) ** 2).sum(0)
    variation = ((wanted - wanted.mean(0)) ** 2).sum(0)
    constant = torch.where(error == 0, torch.ones_like(error), torch.zeros_like(error))
    return torch.where(variation > 0, 1 - error / variation, torch.where(error.isnan(), error, constant)).mean()
