"""Covariances of samples without weights. PyTorch's own read numbers back from tensors, which no trace contains."""

from __future__ import annotations

import torch
from torch import Tensor


def cov(input: Tensor, *, correction: int = 1, fweights: None = None, aweights: None = None) -> Tensor:
    """Computes `torch.cov` of observations `(variables, n)` or `(n,)`: `(variables, variables)`, or `()` of one."""
    given = input if input.is_floating_point() or input.is_complex() else input.to(torch.get_default_dtype())
    rows = given if given.ndim == 2 else given.reshape(1, -1)
    centred = rows - rows.mean(1, keepdim=True)
    return (centred @ centred.mT.conj() / max(rows.shape[1] - correction, 0)).squeeze()


def corrcoef(input: Tensor) -> Tensor:
    """Computes `torch.corrcoef` of observations `(variables, n)` or `(n,)`."""
    found = cov(input)
    if found.ndim == 0:
        return found / found
    diagonal = found.diagonal()
    deviations = (diagonal.real if found.is_complex() else diagonal).sqrt()
    scaled = found / deviations[:, None] / deviations
    if scaled.is_complex():
        return torch.complex(scaled.real.clamp(-1, 1), scaled.imag.clamp(-1, 1))
    return scaled.clamp(-1, 1)
