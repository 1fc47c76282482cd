"""Combines the values of several batches into one value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from runner.plan.program.instructions import Part


class Pooling:
    """Accumulates one output over several batches, in float64 or complex128; values of all samples are gathered."""

    __slots__ = ("_gathered", "_part", "_total", "_weight")

    def __init__(self, part: Part) -> None:
        self._part = part
        self._total: Tensor | None = None
        self._weight = 0.0
        self._gathered: list[Tensor] = []

    def add(self, value: Any, length: int, results: Sequence[Any]) -> None:
        """Adds the value of a batch of `length` samples; `results` are all outputs of its evaluation."""
        pool, total = self._part.pool, self._total
        if pool == "last":
            return
        if pool in ("rows", "same"):
            if pool == "rows" or not self._gathered:
                self._gathered.append(value.detach().clone())
            return
        own = wide(value)
        if pool in ("max", "min"):
            extreme = torch.maximum if pool == "max" else torch.minimum
            self._total = own if total is None else extreme(total, own)
            return
        weight = 1.0 if pool == "sum" else float(length) if pool == "mean" else class_weight(self._part, results)
        self._weight += weight
        own = own * weight if weight else torch.zeros_like(own)  # a batch whose targets are all ignored gives NaN
        self._total = own if total is None else total + own

    def whole(self) -> Tensor:
        """Returns the value over all batches; needs at least one."""
        if self._gathered:
            found = self._gathered[0] if len(self._gathered) == 1 else torch.cat(self._gathered, self._part.dim)
            self._gathered = []
            return found
        if self._total is None:  # computed from other outputs
            return torch.tensor(math.nan, dtype=torch.float64)
        return self._total / self._weight if self._part.pool in ("mean", "weighted") else self._total


def class_weight(part: Part, results: Sequence[Any]) -> float:
    """Returns the divisor of a batch: the summed weights of the targets that are not ignored, or the sum of `over`."""
    if part.weights is None:  # an `over`
        return float(results[0])
    target, weight, ignored = part.weights
    valid = results[target] != ignored
    if weight is None:
        return float(valid.sum())
    classes = results[target][valid].to(torch.int64)
    return float(results[weight].detach().cpu().double()[classes.cpu()].sum())


def wide(value: Any) -> Tensor:
    """Returns a detached copy in float64 or complex128."""
    if not isinstance(value, Tensor):
        return torch.tensor(value, dtype=torch.float64)
    copied = value.detach()
    if copied.device.type == "mps":  # MPS has no float64
        copied = copied.cpu()
    return copied.to(torch.complex128 if value.is_complex() else torch.float64)
