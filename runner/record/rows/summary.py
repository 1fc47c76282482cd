"""Summary statistics of a tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

TOGETHER = 1 << 15
"""The most elements that are reduced at once: too few for torch to start threads, which round otherwise."""


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
            std=_deviation(values),
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


def summarize_together(tensors: Tensor) -> dict[str, Tensor] | None:
    """The statistics of small stacked tensors `(rows, *s)` on the CPU, `(rows,)` each, with the bits of `summarize`.

    Returns:
        None if one of the tensors is not finite.
    """
    with torch.no_grad():
        flat = tensors.detach().reshape(len(tensors), -1)
        parts = list(map(_together, torch.split(flat, max(1, TOGETHER // flat.shape[1]))))
    whole = [part for part in parts if part is not None]
    return {name: torch.cat([part[name] for part in whole]) for name in whole[0]} if len(whole) == len(parts) else None


def _together(tensors: Tensor) -> dict[str, Tensor] | None:
    values = _real(tensors)
    low, high = torch.aminmax(values, dim=1)
    if not bool((low.isfinite() & high.isfinite()).all()):
        return None
    return {
        "mean": values.mean(1),
        "std": _deviations(values),
        "min": low,
        "max": high,
        "norm": torch.linalg.vector_norm(values, dim=1),
        "zeros": (values == 0).sum(1),
        "nonfinite": torch.zeros(len(values), dtype=torch.int64),
    }


def _deviation(values: Tensor) -> float:
    """The standard deviation of float64 `(n,)`, with the same bits whether tensors are summarized together or alone."""
    together = values.numel() <= TOGETHER // 8 and values.device.type == "cpu"
    return float(_deviations(values[None])) if together else float(values.std(correction=0))


def _deviations(values: Tensor) -> Tensor:
    """The standard deviation of each row of float64 `(tensors, n)`.

    As `Tensor.std` of one row does, it adds squares one after another, and rounds the square root once.
    """
    difference = values - values.mean(1, keepdim=True)
    squares = (difference * difference).cumsum(1)[:, -1]
    return torch.from_numpy(numpy.sqrt((squares / values.shape[1]).numpy()))


def _range(values: Tensor) -> tuple[float, float]:
    if values.numel() == 0:
        return math.nan, math.nan
    low, high = torch.aminmax(values)
    return float(low), float(high)


def _real(tensor: Tensor) -> Tensor:
    return tensor.to(torch.complex128).abs() if tensor.dtype.is_complex else tensor.to(torch.float64)
