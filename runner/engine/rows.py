"""One row of a run: what a step computed, and every weight and gradient after it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from runner.errors import did_you_mean
from runner.plan.columns import Column


class Columns:
    """The columns of a run and where each stands in a row's values."""

    __slots__ = ("columns", "positions")

    def __init__(self, columns: tuple[Column, ...]) -> None:
        self.columns = columns
        self.positions: Mapping[str, int] = {column.name: position for position, column in enumerate(columns)}

    def position(self, name: str) -> int:
        """Where `name` stands in a row's values.

        Raises:
            KeyError: there is no such column; the nearest name is suggested.
        """
        try:
            return self.positions[name]
        except KeyError:
            hint = did_you_mean(name, self.positions, f"columns are {', '.join(self.positions)}")
            raise KeyError(f"no column `{name}`; {hint}") from None


class Row:
    """What one step left behind. Its tensors are never written again.

    `row["f"]`, `row["x1"]`, `row["x1.grad"]` are tensors of the column's shape and dtype, on the run's device,
    or None where this step did not compute the value or the gradient does not exist.
    """

    __slots__ = ("iteration", "layout", "number", "path", "step", "values")

    def __init__(
        self, number: int, step: str, path: str, iteration: int, layout: Columns, values: tuple[Tensor | None, ...]
    ) -> None:
        self.number = number  # from 0, which is `start`
        self.step = step  # "backward"
        self.path = path  # "repeat[12].2.train"
        self.iteration = iteration  # of the innermost loop, from 1
        self.layout = layout
        self.values = values  # aligned with `layout.columns`

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.layout.columns

    def __getitem__(self, name: str) -> Tensor | None:
        return self.values[self.layout.position(name)]

    def __contains__(self, name: object) -> bool:
        return name in self.layout.positions

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout.positions)

    def __repr__(self) -> str:
        return f"Row({self.number}, {self.step!r}, path={self.path!r}, iteration={self.iteration})"
