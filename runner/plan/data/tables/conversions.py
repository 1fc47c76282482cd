"""How the cells of columns become numbers: classes, one-hot columns, dates, and numbers for missing ones."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy

from runner.config import Dialect
from runner.errors import did_you_mean, listing
from runner.plan.data.tables.cells import BLANK, Array, Numbers, Words, blank_hint

Class = str | int

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_SECONDS: Mapping[str, int] = {"days": 86_400, "seconds": 1}


@dataclass(frozen=True, slots=True)
class Conversion:
    """How the cells of one column become numbers. At most one of `classes` and `unit` is given."""

    classes: tuple[Class, ...] = ()
    one_hot: bool = False  # a column of zeros and ones for each class
    unit: str | None = None  # of dates: `days` or `seconds` since 1970-01-01
    fill: int | float | None = None  # replaces missing numbers

    @property
    def of_text(self) -> bool:
        """Whether the cells are read as text."""
        return bool(self.classes) or self.unit is not None

    @property
    def width(self) -> int | None:
        """Number of columns that one column becomes; None if it stays one."""
        return len(self.classes) if self.one_hot else None


PLAIN = Conversion()


USUAL = Dialect()
"""The dialect of a table of which the config says nothing."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a table is read: its dialect, and the conversion of each column that has one."""

    dialect: Dialect = USUAL
    conversions: tuple[tuple[str, Conversion], ...] = ()
    floating: bool = False  # whether a floating dtype is declared, so that integers may be missing
    lenient: bool = False  # whether unknown classes become -1, as those of rows that are not selected
    _by_column: Mapping[str, Conversion] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_column", dict(reversed(self.conversions)))  # of two, the first counts

    def of(self, column: str) -> Conversion:
        return self._by_column.get(column, PLAIN)

    def allows_blanks(self, column: str) -> bool:
        """Whether a blank cell, or a null, may be a missing number."""
        return BLANK in self.dialect.missing or self.of(column).fill is not None


PLAINLY = Reading()
"""The reading of a table of which the config says nothing."""


class CellFault(Exception):
    """A cell has no number. The caller adds the file and the place."""

    def __init__(self, row: int, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.row = row  # from 0
        self.reason = reason  # such as "which is no class"; empty for a blank cell
        self.hint = hint


def converted(cells: Numbers | Words, column: str, reading: Reading) -> Numbers:
    """The numbers of a column: int64, bool or float64 of shape `(rows)`, or of `(rows, classes)` if one-hot.

    Missing numbers that remain are NaN if floating, and otherwise marked.

    Raises:
        CellFault: a cell is not a class, not a date, or missing where that is not allowed.
    """
    conversion = reading.of(column)
    if isinstance(cells, Words):
        if conversion.classes:
            return _classes(cells, column, conversion, reading)
        return _dates(cells, reading, conversion)
    if conversion.fill is not None:
        return _filled(cells, conversion.fill)
    if cells.blank is not None and not reading.allows_blanks(column):
        raise CellFault(cells.blank, "", blank_hint(reading.dialect))
    return cells


def as_floating(cells: Numbers) -> Numbers:
    """The same numbers as float64, NaN where missing. The caller checks that no integer changes."""
    if cells.values.dtype == numpy.float64:
        return cells
    values = cells.values.astype(numpy.float64)
    if cells.missing is not None:
        values[cells.missing] = numpy.nan
    return Numbers(values, cells.missing, cells.blank)


def missing_integer(cells: Numbers, column: str) -> CellFault | None:
    """The fault of the first missing number of a column that is not floating."""
    if cells.missing is None or cells.values.dtype == numpy.float64 or not cells.missing.any():
        return None
    hint = f"write `fill: {{{column}: 0}}`, or a floating `dtype`"
    return CellFault(int(cells.missing.argmax()), f"a missing number, and the column `{column}` holds integers", hint)


def _filled(cells: Numbers, fill: int | float) -> Numbers:
    floating = cells.values.dtype == numpy.float64
    missing = numpy.isnan(cells.values) if floating else cells.missing
    if missing is None or not missing.any():
        whole = isinstance(fill, int)
        return Numbers(cells.values if floating or whole else cells.values.astype(numpy.float64), None)
    if cells.values.dtype == numpy.int64 and isinstance(fill, int):
        values: Array = cells.values.copy()
    else:
        values = cells.values.astype(numpy.float64)
    values[missing] = fill
    return Numbers(values, None)


def class_codes(words: Sequence[str], classes: Sequence[Class]) -> list[int]:
    """The place of each text in a list of classes; -1 if it is not there. Integers compare by value."""
    places = {value: place for place, value in enumerate(classes)}
    if isinstance(classes[0], int):
        return [places.get(value, -1) if (value := integer_of(word)) is not None else -1 for word in words]
    return [places.get(word, -1) for word in words]


def integer_of(text: str) -> int | None:
    try:
        return int(text) if len(text) < 400 and "_" not in text else None
    except ValueError:
        return None


def _classes(cells: Words, column: str, conversion: Conversion, reading: Reading) -> Numbers:
    table = numpy.array(class_codes(cells.words, conversion.classes), dtype=numpy.int64)
    codes = table[cells.codes]
    if not reading.lenient and len(table) and table.min() < 0 and (unknown := codes < 0).any():
        row = int(unknown.argmax())
        raise unknown_class(row, cells.words[cells.codes[row]], column, reading)
    if not conversion.one_hot:
        return Numbers(codes, None)
    return Numbers(codes[:, None] == numpy.arange(len(conversion.classes)), None)


def unknown_class(row: int, word: str, column: str, reading: Reading) -> CellFault:
    """The fault of a text that is not one of the classes."""
    if word == BLANK:
        return CellFault(row, "", "write a class, or leave the row out")
    if word in reading.dialect.missing:
        hint = f"leave the row out, or add `{word[:40]}` to the classes"
        return CellFault(row, f"which `missing` lists, and `{column}` has classes", hint)
    names = [str(name) for name in reading.of(column).classes]
    shown = f"the classes are {listing(names, 6)}"
    known = shown if integer_of(word) is not None else did_you_mean(word, names, shown)  # no integer is misspelt
    return CellFault(row, f"which is no class of `{column}`", known or "add it to the classes")


def _dates(cells: Words, reading: Reading, conversion: Conversion) -> Numbers:
    assert conversion.unit is not None
    absent = {*reading.dialect.missing, BLANK}
    table = numpy.array([_date(word, _SECONDS[conversion.unit]) for word in cells.words], dtype=numpy.float64)
    if numpy.isnan(table).any():
        allowed = reading.dialect.missing if conversion.fill is None else absent
        wrong = numpy.array(
            [numpy.isnan(value) and word not in allowed for word, value in zip(cells.words, table, strict=True)]
        )
        if (at := wrong[cells.codes]).any():
            row = int(at.argmax())
            if cells.words[cells.codes[row]] == BLANK:
                raise CellFault(row, "", blank_hint(reading.dialect))
            raise CellFault(row, "which is not a date", "write dates such as 2024-01-31")
    values = table[cells.codes]
    return Numbers(values, None) if conversion.fill is None else _filled(Numbers(values, None), conversion.fill)


def _date(text: str, seconds: int) -> float:
    """The time of a date in ISO 8601, in units of some seconds; NaN if the text is none. UTC unless it says."""
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return numpy.nan
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return (moment - _EPOCH) / datetime.timedelta(seconds=seconds)
