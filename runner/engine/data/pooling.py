"""Combines the values of several batches into one value."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from runner.language.graph.computation import Output
from runner.plan.program.instructions import Part


class Pool(Protocol):
    """Accumulates one output over several batches."""

    def add(self, value: Any, length: int, results: Sequence[Any]) -> None:
        """Adds the value of a batch of `length` samples; `results` are all outputs of its evaluation."""
        ...

    def whole(self) -> Tensor:
        """Returns the value over all batches."""
        ...


Weigh = Callable[[int, Sequence[Any]], float]
"""Returns the weight of a batch from its length and from all outputs of its evaluation."""


def pooling(part: Part, output: Output, device: str, per_sample: int | None = None) -> Callable[[], Pool]:
    """Returns what makes a pool for an output.

    Args:
        per_sample: how many targets each sample has, if all of them count.
    """
    if part.pool in ("rows", "same"):
        return lambda: Gathered(part.pool == "rows", part.dim)
    if part.pool == "last":
        return NotPooled
    if part.pool in ("max", "min"):
        return lambda: Extreme(torch.maximum if part.pool == "max" else torch.minimum)
    weigh: Weigh = _WEIGHS.get(part.pool, lambda length, results: class_weight(part, results))
    if part.pool == "weighted" and per_sample is not None:
        weigh = lambda length, results: float(length * per_sample)  # noqa: E731
    divides = part.pool != "sum"
    one = output.shape == () and not output.dtype.is_complex and device == "cpu"
    if one and (part.pool == "mean" or (part.pool == "weighted" and per_sample == 1)):
        return Means
    return lambda: Numbers(weigh, divides) if one else Averaged(weigh, divides)


_WEIGHS: dict[str, Weigh] = {
    "sum": lambda length, results: 1.0,
    "mean": lambda length, results: float(length),
}


class Averaged:
    """Sums the values of batches times their weights, in float64 or complex128."""

    __slots__ = ("_divides", "_total", "_weigh", "_weight")

    def __init__(self, weigh: Weigh, divides: bool) -> None:
        self._weigh = weigh
        self._divides = divides
        self._total: Tensor | None = None
        self._weight = 0.0

    def add(self, value: Any, length: int, results: Sequence[Any]) -> None:
        weight, total, own = self._weigh(length, results), self._total, wide(value)
        self._weight += weight
        if weight != 1:
            own = own * weight if weight else torch.zeros_like(own)  # a batch whose targets are all ignored gives NaN
        self._total = own if total is None else total + own

    def whole(self) -> Tensor:
        assert self._total is not None
        return self._total / self._weight if self._divides else self._total


class Numbers:
    """Like `Averaged` for values of one element on the CPU: Python's floats have the bits of float64."""

    __slots__ = ("_divides", "_total", "_weigh", "_weight")

    def __init__(self, weigh: Weigh, divides: bool) -> None:
        self._weigh = weigh
        self._divides = divides
        self._total = 0.0
        self._weight = 0.0

    def add(self, value: Any, length: int, results: Sequence[Any]) -> None:
        weight = self._weigh(length, results)
        if weight:
            self._weight += weight
            self._total += (value.item() if isinstance(value, Tensor) else value) * weight

    def whole(self) -> Tensor:
        total = torch.as_tensor(self._total, dtype=torch.float64)
        return total / self._weight if self._divides else total


class Means:
    """`Numbers` that are weighted by the samples of their batches; calling a function for the weight takes time."""

    __slots__ = ("_samples", "_total")

    def __init__(self) -> None:
        self._total = 0.0
        self._samples = 0

    def add(self, value: Any, length: int, results: Sequence[Any]) -> None:
        self._samples += length
        self._total += (value.item() if isinstance(value, Tensor) else value) * length

    def whole(self) -> Tensor:
        return torch.as_tensor(self._total, dtype=torch.float64) / self._samples


class Extreme:
    """Keeps the largest or the smallest value."""

    __slots__ = ("_extreme", "_total")

    def __init__(self, extreme: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._extreme = extreme
        self._total: Tensor | None = None

    def add(self, value: Any, length: int, results: Sequence[Any]) -> None:
        own = wide(value)
        self._total = own if self._total is None else self._extreme(self._total, own)

    def whole(self) -> Tensor:
        assert self._total is not None
        return self._total


class Gathered:
    """Joins the values of all samples; of a value that is the same for every batch it keeps the first."""

    __slots__ = ("_dim", "_joins", "_values")

    def __init__(self, joins: bool, dim: int) -> None:
        self._joins = joins
        self._dim = dim
        self._values: list[Tensor] = []

    def add(self, value: Any, length: int, results: Sequence[Any]) -> None:
        if self._joins or not self._values:
            self._values.append(value.detach().clone())

    def whole(self) -> Tensor:
        values, self._values = self._values, []
        return values[0] if len(values) == 1 else torch.cat(values, self._dim)


class NotPooled:
    """Stands for an output that is computed from others."""

    __slots__ = ()

    def add(self, value: Any, length: int, results: Sequence[Any]) -> None:
        return

    def whole(self) -> Tensor:
        return torch.tensor(math.nan, dtype=torch.float64)


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
