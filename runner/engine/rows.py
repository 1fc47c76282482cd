"""One row of a run: what a step computed, and every weight and gradient after it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from runner.language.dtypes import dtype_name
from runner.plan.rows.columns import Column
from runner.plan.rows.layout import Columns, Held, Values
from runner.text import Table, html_tables, text_tables

LARGEST_WHOLE = 64
"""The most elements of a tensor that is shown whole."""

Path = tuple[str, str]
"""The path of a step in a loop: the text before the iteration of the loop, and the text after it."""

Compiling = Callable[[str, float | None], None]
"""Called as each compilation begins, with the path of the step, and as it ends, with its seconds."""


class Block:
    """The values of consecutive rows that one call computed.

    A stacked column is one tensor `(rows, *shape)`; any other column is the same in each row.
    """

    __slots__ = ("columns", "shared", "stacked")

    def __init__(self, columns: Sequence[Tensor | None], stacked: Sequence[bool], shared: bool) -> None:
        self.columns = columns  # aligned with those of the rows' layout
        self.stacked = stacked
        self.shared = shared  # whether a row may have these tensors rather than copies

    def values(self, place: int) -> Values:
        """The values of one row."""
        found = tuple(self.value(position, place) for position in range(len(self.columns)))
        return found if self.shared else tuple(None if value is None else value.clone() for value in found)

    def value(self, position: int, place: int) -> Tensor | None:
        """The value of one column in one row."""
        value = self.columns[position]
        return value[place] if value is not None and self.stacked[position] else value


SPLIT_ROWS = 512
"""Rows for which a column that was read is split at once."""


class Read:
    """The values of rows that were read from a file. A column is split into rows where they are asked for.

    Args:
        columns: for each column a tensor `(rows, *shape)`, or a list with a tensor or None for each row.
        present: which rows have a value: bool `(rows,)`; None if all do, and for a list.
    """

    __slots__ = ("_columns", "_present", "_split")

    def __init__(self, columns: Sequence[Tensor | list[Tensor | None]], present: Sequence[Tensor | None]) -> None:
        self._columns = columns
        self._present = present
        self._split: list[dict[int, Sequence[Tensor | None]]] = [{} for _ in columns]

    def values(self, place: int) -> Values:
        """The values of one row."""
        return tuple(self.value(position, place) for position in range(len(self._columns)))

    def value(self, position: int, place: int) -> Tensor | None:
        """The value of one column in one row."""
        group, index = divmod(place, SPLIT_ROWS)
        split = self._split[position]
        if group in split:
            return (split[group] or self._splitting(position, group))[index]
        split[group] = ()  # a second row of the group splits it: a single one costs less alone
        column, present = self.between(position, place, place + 1)
        return column[0] if present is None or bool(present[0]) else None

    def between(self, position: int, start: int, stop: int) -> tuple[Tensor | list[Tensor | None], Tensor | None]:
        """A column of the rows from `start` to before `stop`, and which of them have a value."""
        present = self._present[position]
        return self._columns[position][start:stop], None if present is None else present[start:stop]

    def _splitting(self, position: int, group: int) -> Sequence[Tensor | None]:
        column, present = self.between(position, group * SPLIT_ROWS, (group + 1) * SPLIT_ROWS)
        split: Sequence[Tensor | None] = column.unbind() if isinstance(column, Tensor) else column
        if present is not None:
            split = [value if there else None for value, there in zip(split, present.tolist(), strict=True)]
        self._split[position][group] = split
        return split


class Row:
    """The values after one step. Its tensors are never written again.

    `row["f"]`, `row["x1"]`, `row["x1.grad"]` are tensors of the column's shape and dtype, on the run's device.
    They are None if this step did not compute the value, or if the gradient does not exist.
    """

    __slots__ = ("_read", "_values", "block", "held", "iteration", "layout", "number", "path", "place", "step")

    def __init__(
        self,
        number: int,
        step: str,
        path: str,
        iteration: int,
        layout: Columns,
        held: Held | None,
        block: Block | None = None,
        place: int = 0,
        read: Read | None = None,
    ) -> None:
        self.number = number  # from 0, which is `start`
        self.step = step  # "backward"
        self.path = path  # "repeat[12].2.train"
        self.iteration = iteration  # of the innermost loop, from 1
        self.layout = layout
        self.held = held  # the values as the layout has them
        self.block = block  # contains the values, at `place`, if `held` does not
        self.place = place
        self._read = read  # contains the values, at `place`, if neither of both does
        self._values: Values | None = None

    @property
    def values(self) -> Values:
        """The values of all columns, aligned with `layout.columns`."""
        if self._values is None:
            if self.held is not None:
                self._values = self.layout.values(self.held)
            else:
                contained = self._read or self.block
                assert contained is not None
                self._values = contained.values(self.place)
        return self._values

    @property
    def last(self) -> Row:
        """The row itself, as the last of `Rows`."""
        return self

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.layout.columns

    def has(self, position: int) -> bool:
        """Whether a column has a value. It splits no block and no group of columns, so that it costs little."""
        if self._read is not None:
            return self._read.value(position, self.place) is not None
        if self.held is None:
            assert self.block is not None
            return self.block.columns[position] is not None
        return self.layout.has(self.held, position)

    def __getitem__(self, name: str) -> Tensor | None:
        position = self.layout.position(name)
        return self.values[position] if self._read is None else self._read.value(position, self.place)

    def __contains__(self, name: object) -> bool:
        return name in self.layout.positions

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout.positions)

    def __repr__(self) -> str:
        return f"Row({self.number}, {self.step!r}, path={self.path!r}, iteration={self.iteration})"

    def __str__(self) -> str:
        return text_tables(self._tables())

    def _repr_html_(self) -> str:
        return html_tables(self._tables())

    def _tables(self) -> Iterator[Table]:
        yield Table([("row", self.number), ("step", self.step), ("path", self.path), ("iteration", self.iteration)])
        present = ((column, value) for column, value in zip(self.columns, self.values, strict=True))
        cells = [
            (column.name, column.role, "None" if value is None else tensor_text(value))
            for column, value in present
            if value is not None or column.role in ("weight", "gradient")
        ]
        yield Table(cells, ("column", "role", "value"))


class Rows:
    """Consecutive rows of one step in a loop, whose values one block contains.

    It makes a `Row` only where one is asked for.
    """

    __slots__ = ("block", "first", "layout", "number", "path", "places", "step")

    def __init__(
        self, number: int, step: str, path: Path, layout: Columns, block: Block, first: int, places: Sequence[int]
    ) -> None:
        self.number = number  # of the first row
        self.step = step
        self.path = path
        self.layout = layout
        self.block = block
        self.first = first  # iteration of the loop at place 0 of the block
        self.places = places  # of the rows in the block, in order

    def __len__(self) -> int:
        return len(self.places)

    def row(self, index: int) -> Row:
        """One of the rows."""
        place = self.places[index]
        before, after = self.path
        iteration, number = self.first + place, self.number + index
        path = f"{before}{iteration}{after}"
        return Row(number, self.step, path, iteration, self.layout, None, self.block, place)

    @property
    def last(self) -> Row:
        return self.row(len(self) - 1)

    def since(self, number: int) -> Rows:
        """The rows from a number on."""
        out = max(0, number - self.number)
        return Rows(self.number + out, self.step, self.path, self.layout, self.block, self.first, self.places[out:])


def each_row(found: AnyRows) -> Iterable[Row]:
    """The rows one by one."""
    return (found.row(index) for index in range(len(found))) if isinstance(found, Rows) else (found,)


AnyRows = Row | Rows
"""A row, or rows that were computed together."""


def tensor_text(value: Tensor) -> str:
    """A tensor of at most `LARGEST_WHOLE` elements as torch prints it; of a larger one, shape, dtype and norm."""
    value = value.detach()
    if value.numel() <= LARGEST_WHOLE:
        return repr(value.cpu())
    wide = value.to(torch.complex128 if value.is_complex() else torch.float64)
    return f"{tuple(value.shape)} {dtype_name(value.dtype)}  norm {float(torch.linalg.vector_norm(wide)):.5g}"
