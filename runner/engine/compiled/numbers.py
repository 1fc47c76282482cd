"""The numbers that change between iterations, computed in Python for the next iterations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Number = bool | int | float

Ahead = Callable[[int], Tensor]
"""Maps a number of iterations to their numbers, float64 `(iterations, count)`."""


def counted(start: Callable[[], float]) -> Ahead:
    """Returns one number that increases by one in each iteration."""

    def ahead(iterations: int) -> Tensor:
        first = start()
        return torch.arange(first, first + iterations, dtype=torch.float64)[:, None]

    return ahead


def computed(values: Callable[[int], Sequence[Number]], first: Callable[[], int]) -> Ahead:
    """Returns numbers that are a function of a counter; `first` returns the counter of the first iteration."""

    def ahead(iterations: int) -> Tensor:
        start = first()
        return torch.tensor([values(start + place) for place in range(iterations)], dtype=torch.float64)

    return ahead


class Numbers:
    """All numbers of an iteration, computed ahead."""

    __slots__ = ("_parts", "count")

    def __init__(self) -> None:
        self._parts: list[Ahead] = []
        self.count = 0

    def add(self, count: int, ahead: Ahead) -> slice:
        """Adds numbers, and returns their positions among all."""
        if count:
            self._parts.append(ahead)
        self.count += count
        return slice(self.count - count, self.count)

    def ahead(self, iterations: int, device: str) -> Tensor:
        """Returns all numbers of the next iterations: float64 `(iterations, count)`."""
        if not self._parts:
            return torch.zeros(iterations, 0, dtype=torch.float64, device=device)
        return torch.cat([part(iterations) for part in self._parts], 1).to(device)


def flat(value: Any) -> tuple[Number, ...]:
    """Returns the elements of an option, or a tuple of the option itself."""
    return tuple(value) if isinstance(value, tuple) else (value,)
