"""The multilabel margin loss as a trace can contain it: PyTorch's decomposition counts labels that are not given."""

from __future__ import annotations

import torch
from torch import Tensor


def multilabel_margin_loss(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """Computes `torch.nn.functional.multilabel_margin_loss` of scores `()`, `(classes,)` or `(n, classes)`.

    The labels of a row end at its first -1.
    """
    count = input.shape[-1] if input.ndim else 1
    scores, labels = input.reshape(-1, count), target.reshape(-1, count)
    classes = torch.arange(count, device=scores.device)
    given = (labels != -1).cumprod(1).bool()
    label = torch.where(labels == -1, 0, labels)  # torch checks also those that do not count
    is_label = ((label[:, :, None] == classes) & given[:, :, None]).any(1)
    gaps = torch.relu(1 - scores.gather(1, label)[:, :, None] + scores[:, None, :])
    counted = given[:, :, None] & ~is_label[:, None, :]
    losses: Tensor = torch.where(counted, gaps, 0).sum((1, 2)) / count
    if reduction == "none":
        return losses.reshape(input.shape[:-1])
    return losses.sum() if reduction == "sum" else losses.mean()
