"""The result of comparing two sequences of rows: the first difference, and what differs over all rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from runner.compare.numbers.differences import Difference, other_shape
from runner.compare.numbers.digested import Condensed
from runner.compare.numbers.growth import Growth
from runner.plan.rows.columns import Column
from runner.text import Shown, Table


class AnyRow(Protocol):
    """The interface of a row; `runner.engine.Row` implements it."""

    @property
    def number(self) -> int: ...
    @property
    def step(self) -> str: ...
    @property
    def path(self) -> str: ...
    def __getitem__(self, name: str) -> Tensor | Condensed | None: ...
    def __contains__(self, name: object) -> bool: ...


Pair = tuple[AnyRow | None, AnyRow | None]
"""A row as found and as expected; None if that side has no such row."""


@dataclass(frozen=True, slots=True)
class Place:
    """Identifies a row to the user."""

    number: int
    step: str
    path: str

    @classmethod
    def of(cls, row: AnyRow) -> Place:
        return cls(row.number, row.step, row.path)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows that only one side has."""

    count: int
    first: Place | None  # None if there are none


@dataclass(frozen=True, slots=True)
class Redeclared:
    """A column whose dtype or shape is not the expected one."""

    expected: Column
    found: Column

    @property
    def shapes(self) -> str | None:
        """The shapes as text if they differ in every row: then no row has an error."""
        expected, found = self.expected.shape, self.found.shape
        return None if expected is None or found is None or expected == found else other_shape(expected, found)


@dataclass(frozen=True, slots=True)
class Divergence:
    """One tensor of one row that differs."""

    column: Column
    difference: Difference


@dataclass(frozen=True, slots=True)
class Tally:
    """One tensor over all rows."""

    column: Column
    differing: int  # rows
    compared: int
    first_number: int
    largest: float  # relative error; inf if it was missing, new or not finite, NaN if only digests are known


@dataclass(frozen=True, slots=True)
class FirstDifference:
    """The first row that differs, and the rows that its cause is derived from."""

    place: Place
    divergences: tuple[Divergence, ...]  # in causal order
    equal: tuple[Column, ...]  # columns with the same bits in this row, if both have a value; in causal order
    within: tuple[Column, ...]  # columns that differ within the tolerance
    found: AnyRow
    expected: AnyRow
    before: AnyRow | None  # the expected row before this one


@dataclass(frozen=True, slots=True)
class Verdict(Shown):
    """How two sequences of rows differ."""

    compared: int  # number of rows that both sides have
    missing_rows: Rows
    new_rows: Rows
    missing_columns: tuple[Column, ...]
    new_columns: tuple[Column, ...]
    redeclared: tuple[Redeclared, ...]
    first_difference: FirstDifference | None
    unequal_since: tuple[Place, Column] | None  # where bits first differed, unless in the row of `first_difference`
    growth: Growth | None  # of the first tensor that differs; None if it begins with another shape, or on one side
    tallies: tuple[Tally, ...]  # tensors that differ, in the order of the first row in which they do
    same_bits: bool = False  # whether every compared tensor has the expected bits

    @property
    def holds(self) -> bool:
        """Whether nothing differs by more than the tolerance."""
        structure = (self.missing_columns, self.new_columns, self.redeclared)
        return (
            self.first_difference is None and not any(structure) and self.missing_rows.count == self.new_rows.count == 0
        )

    @property
    def other_shapes(self) -> dict[str, str]:
        """The shapes of both sides as text, of each tensor that has another shape in every row."""
        return {each.expected.name: each.shapes for each in self.redeclared if each.shapes is not None}

    def _tables(self) -> Iterator[Table]:
        """What a notebook shows: whether it holds, and each tensor that differs."""
        first = self.first_difference
        yield Table(
            [
                ("verdict", "nothing differs" if self.holds else "differs"),
                ("rows compared", f"{self.compared:,}"),
                *([("first difference", f"row {first.place.number}, {first.place.path}")] if first else ()),
                *((f"rows {word}", f"{rows.count:,}") for word, rows in self._one_sided() if rows.count),
                *(("missing", column.name) for column in self.missing_columns),
                *(("new", column.name) for column in self.new_columns),
                *(("another dtype or shape", each.expected.name) for each in self.redeclared),
            ]
        )
        if self.tallies:
            headings = ("tensor", "rows that differ", "first", "largest relative error")
            shapes = self.other_shapes
            yield Table([_tally_cells(tally, shapes.get(tally.column.name)) for tally in self.tallies], headings)

    def _one_sided(self) -> tuple[tuple[str, Rows], ...]:
        return ("missing", self.missing_rows), ("new", self.new_rows)


def _tally_cells(tally: Tally, shapes: str | None) -> tuple[object, ...]:
    of = f"{tally.differing:,} of {tally.compared:,}"
    return tally.column.name, of, tally.first_number, shapes or f"{tally.largest:.3g}"
