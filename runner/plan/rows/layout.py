"""The columns of a run, and how its rows keep their values: many small tensors of one shape as one tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import torch
from torch import Tensor

from runner.errors import did_you_mean
from runner.plan.rows.columns import Column

LEAST_TOGETHER = 8
"""The fewest tensors that rows keep as one."""

MOST_BYTES = 1 << 12
"""The most bytes of a tensor that rows keep together with others: up to there a copy costs less than new storage."""

Values = tuple[Tensor | None, ...]
"""The values of a row by column."""

Together = Tensor | Values | None
"""The values of some columns of one shape `(*s)` in a row: `(columns, *s)`; one by one if some are missing; or none."""

Held = tuple[Together, ...]
"""The values of a row as the run keeps them: of each column apart, then of each group of columns."""


class Columns:
    """The columns of a run, the position of each in a row, and the place where a row holds it.

    Args:
        groups: the positions of columns that rows hold together, which have one dtype and shape.
    """

    __slots__ = ("apart", "columns", "group_of", "groups", "places", "positions")

    def __init__(self, columns: tuple[Column, ...], groups: Sequence[tuple[int, ...]] = ()) -> None:
        self.columns = columns
        self.positions: Mapping[str, int] = {column.name: position for position, column in enumerate(columns)}
        self.groups = tuple(groups)
        self.group_of = {position: number for number, group in enumerate(groups) for position in group}
        self.apart = tuple(position for position in range(len(columns)) if position not in self.group_of)
        self.places = {position: place for place, position in enumerate(self.apart)}

    def position(self, name: str) -> int:
        """The position of `name` in the values of a row.

        Raises:
            KeyError: there is no such column; the nearest name is suggested.
        """
        try:
            return self.positions[name]
        except KeyError:
            hint = did_you_mean(name, self.positions, f"columns are {', '.join(self.positions)}")
            raise KeyError(f"no column `{name}`; {hint}") from None

    def place_of_group(self, number: int) -> int:
        """The place of a group in what a row holds."""
        return len(self.apart) + number

    def values(self, held: Held) -> Values:
        """The values of all columns, in order."""
        if not self.groups:
            return held  # type: ignore[return-value]
        found: list[Tensor | None] = [None] * len(self.columns)
        for position, value in zip(self.apart, held, strict=False):
            assert not isinstance(value, tuple)
            found[position] = value
        for group, together in zip(self.groups, held[len(self.apart) :], strict=True):
            for position, value in zip(group, split(together, len(group)), strict=True):
                found[position] = value
        return tuple(found)

    def value(self, held: Held, position: int) -> Tensor | None:
        """The value of one column."""
        number = self.group_of.get(position)
        if number is None:
            value = held[self.places[position]]
            assert not isinstance(value, tuple)
            return value
        together = held[self.place_of_group(number)]
        return None if together is None else together[self.groups[number].index(position)]

    def has(self, held: Held, position: int) -> bool:
        """Whether a column has a value."""
        number = self.group_of.get(position)
        if number is None:
            return held[self.places[position]] is not None
        together = held[self.place_of_group(number)]
        return isinstance(together, Tensor) or self.value(held, position) is not None


def split(together: Together, count: int) -> Sequence[Tensor | None]:
    """The values of a group one by one."""
    if together is None:
        return (None,) * count
    return together.unbind() if isinstance(together, Tensor) else together


def joined(values: Sequence[Tensor | None]) -> Together:
    """Copies of values of one shape as one tensor; the values themselves if some are missing, None if all are."""
    try:
        return torch.stack(values)  # type: ignore[arg-type]
    except TypeError:  # checking each value first would cost as much as stacking
        return None if all(value is None for value in values) else tuple(map(_copied, values))


def copied(held: Held) -> Held:
    """Copies of what a row holds."""
    return tuple(tuple(map(_copied, each)) if isinstance(each, tuple) else _copied(each) for each in held)


def _copied(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.detach().clone()


def groups_of(columns: Sequence[Column]) -> tuple[tuple[int, ...], ...]:
    """The positions of the weights, and of the gradients, that rows hold together: many small ones of one shape."""
    return tuple(chain.from_iterable(_alike(columns, role) for role in ("weight", "gradient")))


def _alike(columns: Sequence[Column], role: str) -> Iterator[tuple[int, ...]]:
    found: dict[tuple[torch.dtype, tuple[int, ...]], list[int]] = {}
    for position, column in enumerate(columns):
        if column.role == role and column.shape is not None and column.dtype in (torch.float32, torch.float64):
            found.setdefault((column.dtype, column.shape), []).append(position)
    for (dtype, _), positions in found.items():
        elements = columns[positions[0]].elements or 0
        if len(positions) >= LEAST_TOGETHER and 0 < elements * dtype.itemsize <= MOST_BYTES:
            yield tuple(positions)
