"""A large tensor in a few numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Summary:
    """Statistics in float64 over a tensor's finite elements; of their magnitudes where it is complex."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    mean: float | None  # None: there is no finite element
    std: float | None  # of the population
    min: float | None
    max: float | None
    norm: float  # Euclidean
    zeros: int
    nan: int
    inf: int


def summarize(tensor: Tensor) -> Summary:
    """The statistics of a tensor of any shape, dtype and device."""
    with torch.no_grad():
        values = _real(tensor.detach())
        finite = values.isfinite()
        nan = int(values.isnan().sum())
        inf = values.numel() - int(finite.sum()) - nan
        kept = values[finite] if nan or inf else values.reshape(-1)
        if kept.numel() == 0:
            return Summary(tuple(tensor.shape), tensor.dtype, None, None, None, None, 0.0, 0, nan, inf)
        low, high = torch.aminmax(kept)
        return Summary(
            shape=tuple(tensor.shape),
            dtype=tensor.dtype,
            mean=float(kept.mean()),
            std=float(kept.std(correction=0)),
            min=float(low),
            max=float(high),
            norm=float(torch.linalg.vector_norm(kept)),
            zeros=int((kept == 0).sum()),
            nan=nan,
            inf=inf,
        )


def _real(tensor: Tensor) -> Tensor:
    if tensor.dtype == torch.complex32:
        tensor = tensor.to(torch.complex64)
    return (tensor.abs() if tensor.dtype.is_complex else tensor).to(torch.float64)
