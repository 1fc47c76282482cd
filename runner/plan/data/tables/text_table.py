"""Text tables: whole columns of one or several files, as numbers or as text."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy
from numpy.typing import NDArray

from runner.config import Dialect
from runner.plan.data.dtypes import EXACT
from runner.plan.data.sandbox import FileFault
from runner.plan.data.tables.byte_blocks import Block
from runner.plan.data.tables.cells import Array, Numbers, Words, first_fault, inexact, numbers_of, words_of
from runner.plan.data.tables.header import Layout, layout_of, long_cells, open_rows, rows_in

CELLS_AT_ONCE = 1 << 16
"""Maximum cells that are Python objects at a time; each needs about 60 bytes, even if short."""

ARROW_FROM = 1 << 20
"""Bytes of the files from which pyarrow reads them. Below, importing it would take longer."""

_WORD_BYTES = 100

Found = Numbers | Words | FileFault


@dataclass(frozen=True, slots=True)
class Place:
    """A cell of a text table."""

    file: str
    line: int
    text: str


def column_names(paths: Sequence[Path], dialect: Dialect) -> tuple[str, ...]:
    """The names of the columns of one or several text tables.

    Raises:
        FileFault: a file is malformed, or has other columns than the first.
    """
    first = layout_of(paths[0], dialect)
    for path in paths[1:]:
        check_same_columns(first.names, layout_of(path, dialect).names, paths[0], path)
    return first.names


def check_same_columns(first: Sequence[str], others: Sequence[str], path: Path, other: Path) -> None:
    """Check that two files have the same columns, in any order.

    Raises:
        FileFault: they have not.
    """
    if tuple(first) == tuple(others):
        return
    for names, beside, here, there in ((others, first, path, other), (first, others, other, path)):
        missing = next((name for name in names if name not in set(beside)), None)
        if missing is not None:
            message = f"{here.name} has no column `{missing}`, and {there.name} has one"
            raise FileFault(message, "give the files of a source the same columns")


Key = tuple[str, bool]
"""A column by its name, and whether it is read as text."""

Part = tuple[Layout, dict[Key, Found], int]
"""The file of consecutive rows, the cells of their columns, and their number."""


def text_blocks(paths: Sequence[Path], dialect: Dialect, wanted: Sequence[Key]) -> Iterator[Part]:
    """Yields the cells of some columns part by part, in the order of the files.

    A column of numbers has a fault where a cell is not a number; later parts leave the column out.

    Raises:
        FileFault: a file is malformed, or has rows of unequal length.
    """
    wanted = list(dict.fromkeys(wanted))
    arrow = sum(path.stat().st_size for path in paths) >= ARROW_FROM
    with long_cells():
        for path in paths:
            layout, blocks = open_rows(path, dialect)
            positions = {name: position for position, name in enumerate(layout.names)}
            for block in blocks:
                for found, rows in _parts(block, layout, {key: positions[key[0]] for key in wanted}, arrow):
                    wanted = [key for key in wanted if not isinstance(found.get(key), FileFault)]
                    yield layout, found, rows


def _parts(
    block: Block, layout: Layout, wanted: Mapping[Key, int], arrow: bool
) -> Iterator[tuple[dict[Key, Found], int]]:
    converted: dict[Key, Found] = {}
    if arrow and wanted:
        from runner.plan.data.tables.arrow_cells import convert  # imports pyarrow, which small tables do not need

        converted = convert(block, layout, wanted) or {}
    rest = {key: position for key, position in wanted.items() if key not in converted}
    if wanted and not rest:
        yield converted, _length(next(iter(converted.values())))
        return
    start = 0
    for found, rows in _by_python(block, layout, rest):
        yield {**{key: _slice(cells, start, start + rows) for key, cells in converted.items()}, **found}, rows
        start += rows


def _by_python(block: Block, layout: Layout, wanted: Mapping[Key, int]) -> Iterator[tuple[dict[Key, Found], int]]:
    rows, file, dialect = rows_in(block, layout), layout.path.name, layout.dialect
    wanted = dict(wanted)
    while chunk := list(itertools.islice(rows, max(1, CELLS_AT_ONCE // max(1, len(wanted))))):
        found: dict[Key, Found] = {}
        for key, position in list(wanted.items()):
            texts = [row[position].strip() for _, row in chunk]
            cells = words_of(texts) if key[1] else numbers_of(texts, dialect)
            if cells is None:
                del wanted[key]
                found[key] = first_fault([line for line, _ in chunk], texts, key[0], file, dialect)
            else:
                found[key] = cells
        yield found, len(chunk)


def _length(cells: Found) -> int:
    assert not isinstance(cells, FileFault)
    return len(cells.codes if isinstance(cells, Words) else cells.values)


def _slice(cells: Found, start: int, end: int) -> Found:
    match cells:
        case Words(codes, words):
            return Words(codes[start:end], words)
        case Numbers(values, missing, blank):
            kept = None if missing is None else missing[start:end]
            inside = blank is not None and start <= blank < end
            return Numbers(values[start:end], kept, blank - start if inside and blank is not None else None)
    return cells


def read_columns(
    paths: Sequence[Path], dialect: Dialect, wanted: Sequence[Key], limit: int | None = None
) -> dict[Key, Found]:
    """Read whole columns in one pass.

    Args:
        limit: maximum bytes of the cells during reading.
    Returns:
        the cells of each column, or in their place the fault of a column of numbers.
    Raises:
        FileFault: a file is malformed, has no rows, or needs more than the limit.
    """
    limit = sys.maxsize if limit is None else limit
    columns = {key: _Joined(key) for key in wanted}
    needed = start = 0
    for layout, found, rows in text_blocks(paths, dialect, wanted):
        for key, cells in found.items():
            needed += columns[key].add(cells, layout, start)
        start += rows
        if needed > limit:
            message = f"reading {layout.path.name} needs more than the {limit >> 20:,} MiB available"
            raise FileFault(message, "use a smaller file, or raise the limit with --max-memory")
    if not start:
        what = "has a header and no rows" if dialect.header is True else "has no rows"
        raise FileFault(f"{paths[0].name} {what}", "add rows")
    return {key: column.whole(paths, dialect) for key, column in columns.items()}


class _Joined:
    """The parts of one column, to be joined."""

    __slots__ = ("_codes", "_fault", "_key", "_numbers", "_places", "_starts")

    def __init__(self, key: Key) -> None:
        self._key = key
        self._numbers: list[Numbers] = []
        self._codes: list[NDArray[numpy.int32]] = []
        self._starts: list[int] = []
        self._places: dict[str, int] = {}
        self._fault: FileFault | None = None

    def add(self, cells: Found, layout: Layout, start: int) -> int:
        """Add the cells of the rows from `start`; returns the bytes that they need until they are joined."""
        match cells:
            case FileFault():
                self._fault, self._numbers = cells, []
                return 0
            case Words(codes, words):
                before = len(self._places)
                places = [self._places.setdefault(word, len(self._places)) for word in words]
                self._codes.append(numpy.array(places, dtype=numpy.int32)[codes])
                return 8 * len(codes) + _WORD_BYTES * (len(self._places) - before)
        self._numbers.append(cells)
        self._starts.append(start)
        return (16 if cells.missing is None else 18) * len(cells.values)

    def whole(self, paths: Sequence[Path], dialect: Dialect) -> Found:
        if self._key[1]:
            return Words(numpy.concatenate(self._codes), tuple(self._places))
        if self._fault is not None:
            return self._fault
        kinds = {part.kind for part in self._numbers if part.kind is not None}
        if _is_mixed(kinds):
            return _mixed(self._key[0], paths)
        dtype = numpy.result_type(*kinds) if kinds else numpy.dtype(numpy.float64)
        if dtype == numpy.float64:
            fault = self._first_inexact(paths, dialect)
            if fault is not None:
                return fault
        joined = self._joined(dtype)
        self._numbers = []  # frees the parts before those of the next column are joined
        return joined

    def _joined(self, dtype: numpy.dtype[numpy.generic]) -> Numbers:
        if len(self._numbers) == 1 and self._numbers[0].values.dtype == dtype:
            return self._numbers[0]
        rows = sum(len(part.values) for part in self._numbers)
        values: Array = numpy.empty(rows, dtype=dtype)
        any_missing = any(part.missing is not None for part in self._numbers)
        missing = numpy.zeros(rows, dtype=bool) if any_missing else None
        blank: int | None = None
        for part, start in zip(self._numbers, self._starts, strict=True):
            here = slice(start, start + len(part.values))
            values[here] = part.values
            if part.missing is not None and missing is not None:
                missing[here] = part.missing
                if part.blank is not None and blank is None:
                    blank = start + part.blank
        if missing is not None and dtype == numpy.float64:
            values[missing] = numpy.nan
        return Numbers(values, missing, blank)

    def _first_inexact(self, paths: Sequence[Path], dialect: Dialect) -> FileFault | None:
        for part, start in zip(self._numbers, self._starts, strict=True):
            row = first_inexact(part.values)
            if row is not None:
                return inexact_at(paths, dialect, start + row, self._key[0])
        return None


def _is_mixed(kinds: set[numpy.dtype[numpy.generic]]) -> bool:
    return len(kinds) > 1 and numpy.dtype(bool) in kinds


def _mixed(column: str, paths: Sequence[Path]) -> FileFault:
    name = paths[0].name if len(paths) == 1 else "the files"
    return FileFault(f"the column `{column}` of {name} mixes booleans and numbers", "write 0 and 1")


class MixedKinds:
    """Finds columns with booleans in some parts and numbers in others."""

    __slots__ = ("_kinds", "_paths")

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._kinds: dict[Key, set[numpy.dtype[numpy.generic]]] = {}

    def check(self, found: Mapping[Key, Found]) -> None:
        """Look at the next part. Raises `FileFault`."""
        for key, cells in found.items():
            if isinstance(cells, Numbers) and self.is_mixed(key, cells):
                raise _mixed(key[0], self._paths)

    def is_mixed(self, key: Key, cells: Numbers) -> bool:
        """Whether a column has both, with the cells of its next part."""
        kinds = self._kinds.setdefault(key, set())
        if cells.kind is not None:
            kinds.add(cells.kind)
        return _is_mixed(kinds)


def first_inexact(values: Array) -> int | None:
    """The place of the first integer that float64 cannot represent."""
    if values.dtype == numpy.int64:
        for row in numpy.nonzero(abs(values) > EXACT)[0].tolist():
            if int(float(int(values[row]))) != int(values[row]):
                return int(row)
    return None


def inexact_at(paths: Sequence[Path], dialect: Dialect, row: int, column: str) -> FileFault:
    """The fault of an integer that float64 cannot represent, by its row from 0."""
    place = place_in_text(paths, dialect, row, column)
    return inexact(place.file, place.line, place.text, column)


def place_in_text(paths: Sequence[Path], dialect: Dialect, row: int, column: str) -> Place:
    """The file, the line and the text of a cell, by its row from 0."""
    with long_cells():
        for path in paths:
            layout, blocks = open_rows(path, dialect)
            position = layout.names.index(column)
            for block in blocks:
                for line, cells in rows_in(block, layout):
                    if row == 0:
                        return Place(path.name, line, cells[position].strip())
                    row -= 1
    raise FileFault(f"{paths[0].name} has changed since it was read", "do not change data files during a run")
