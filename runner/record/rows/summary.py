"""Summary statistics of a tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Summary:
    """Statistics in float64 of a tensor's finite elements, or of their magnitudes if it is complex."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    mean: float | None  # None: no element is finite
    std: float | None  # of the population
    min: float | None
    max: float | None
    norm: float  # Euclidean
    zeros: int
    nan: int
    inf: int

    @property
    def nonfinite(self) -> int:
        return self.nan + self.inf


def summarize(tensor: Tensor) -> Summary:
    """The statistics of a tensor of any shape, dtype and device."""
    with torch.no_grad():
        values = _real(tensor.detach()).reshape(-1)
        low, high = _range(values)
        nan = inf = 0
        if not (math.isfinite(low) and math.isfinite(high)):  # also if an element is NaN, or if there are none
            nan = int(values.isnan().sum())
            finite = values[values.isfinite()]
            inf = values.numel() - finite.numel() - nan
            values = finite
            low, high = _range(values)
        if values.numel() == 0:
            return Summary(tuple(tensor.shape), tensor.dtype, None, None, None, None, 0.0, 0, nan, inf)
        return Summary(
            shape=tuple(tensor.shape),
            dtype=tensor.dtype,
            mean=float(values.mean()),
            std=float(values.std(correction=0)),
            min=low,
            max=high,
            norm=float(torch.linalg.vector_norm(values)),
            zeros=values.numel() - int(values.count_nonzero()),
            nan=nan,
            inf=inf,
        )


def summarize_slices(tensor: Tensor, dimensions: int) -> list[Summary]:
    """The statistics of each slice of a tensor along its first `dimensions` dimensions, in row-major order.

    They equal those of `summarize` up to rounding: all slices are reduced at once.
    """
    with torch.no_grad():
        tensor = tensor.detach().flatten(0, dimensions - 1)
        values = _real(tensor).reshape(len(tensor), -1)
        if not values.numel() or not bool(values.isfinite().all()):
            return [summarize(piece) for piece in tensor]
        low, high = torch.aminmax(values, dim=1)
        found = torch.stack(
            [
                values.mean(1),
                values.std(1, correction=0),
                low,
                high,
                torch.linalg.vector_norm(values, dim=1),
                (values == 0).sum(1).double(),
            ],
            1,
        )
        shape = tuple(tensor.shape[1:])
        return [
            Summary(shape, tensor.dtype, mean, std, least, most, norm, int(zeros), nan=0, inf=0)
            for mean, std, least, most, norm, zeros in found.tolist()
        ]


def _range(values: Tensor) -> tuple[float, float]:
    if values.numel() == 0:
        return math.nan, math.nan
    low, high = torch.aminmax(values)
    return float(low), float(high)


def _real(tensor: Tensor) -> Tensor:
    return tensor.to(torch.complex128).abs() if tensor.dtype.is_complex else tensor.to(torch.float64)
