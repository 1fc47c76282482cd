"""The numbers that change between iterations, computed in Python for the next iterations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Number = bool | int | float

EXACT = 1 << 53
"""Up to this magnitude, float64 has every integer."""


class Inexact(ArithmeticError):
    """An integer beyond 2^53, of which float64 has not all; `iterations` come before the first that needs it."""

    def __init__(self, iterations: int) -> None:
        super().__init__("an integer beyond 2^53 is no number of compiled code")
        self.iterations = iterations


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
        rows = []
        for place in range(iterations):
            row = values(start + place)
            if any(isinstance(value, int) and not -EXACT <= value <= EXACT for value in row):
                raise Inexact(place)
            rows.append(row)
        return torch.tensor(rows, dtype=torch.float64)

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
        """Returns all numbers of the next iterations: float64 `(iterations, count)`.

        Raises:
            Inexact: one is an integer that float64 does not have.
        """
        if not self._parts:
            return torch.zeros(iterations, 0, dtype=torch.float64, device=device)
        return torch.cat([part(iterations) for part in self._parts], 1).to(device)


def flat(value: Any) -> tuple[Number, ...]:
    """Returns the elements of an option, or a tuple of the option itself."""
    return tuple(value) if isinstance(value, tuple) else (value,)
