"""The numbers that change from iteration to iteration, computed in Python for the iterations to come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Number = bool | int | float

Ahead = Callable[[int], Tensor]
"""Of a number of iterations: their numbers, float64 `(iterations, count)`."""


def counted(start: Callable[[], float]) -> Ahead:
    """One number that grows by one."""

    def ahead(iterations: int) -> Tensor:
        first = start()
        return torch.arange(first, first + iterations, dtype=torch.float64)[:, None]

    return ahead


def computed(values: Callable[[int], Sequence[Number]], first: Callable[[], int]) -> Ahead:
    """Numbers that are a function of a count; `first` is the count of the first iteration."""

    def ahead(iterations: int) -> Tensor:
        start = first()
        return torch.tensor([values(start + place) for place in range(iterations)], dtype=torch.float64)

    return ahead


class Numbers:
    """What is computed ahead, side by side."""

    __slots__ = ("_parts", "count")

    def __init__(self) -> None:
        self._parts: list[Ahead] = []
        self.count = 0

    def add(self, count: int, ahead: Ahead) -> slice:
        """Where these numbers stand among all."""
        if count:
            self._parts.append(ahead)
        self.count += count
        return slice(self.count - count, self.count)

    def ahead(self, iterations: int, device: str) -> Tensor:
        """float64 `(iterations, count)`."""
        if not self._parts:
            return torch.zeros(iterations, 0, dtype=torch.float64, device=device)
        return torch.cat([part(iterations) for part in self._parts], 1).to(device)


def flat(value: Any) -> tuple[Number, ...]:
    """An option's elements, or itself."""
    return tuple(value) if isinstance(value, tuple) else (value,)
