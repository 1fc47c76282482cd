"""Text tables: numeric columns of `.csv` and `.tsv` files."""

from __future__ import annotations

import csv
import io
import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from runner.errors import listing
from runner.plan.data.dtypes import EXACT
from runner.plan.data.sandbox import FileFault, open_ordinary
from runner.plan.data.tables import Columns, check_alike, chosen_of

Block = NDArray[numpy.generic]

CELLS_AT_ONCE = 1 << 16
"""Maximum cells that are Python objects at a time; each needs about 60 bytes, even if short."""

_BOOLEANS = {"true": True, "false": False}


def read_text(
    path: Path, delimiter: str, specs: Sequence[Columns], limit: int | None = None
) -> dict[Columns, Tensor | FileFault]:
    """Read several selections of columns of a text table in one pass. Its first line names the columns.

    Args:
        limit: maximum bytes of the numbers during reading.
    Returns:
        for each selection, a tensor of int64, bool or float64: `(rows)` for one column, `(rows, columns)` for a list.
        In its place may be an error: a missing column, or a cell that is not a number, with its line.
    Raises:
        FileFault: the file is not UTF-8, malformed, has ragged rows, or is larger than the limit.
    """
    with _rows_of(path, delimiter) as (names, rows):
        chosen: dict[Columns, tuple[str, ...] | FileFault] = {}
        for columns in specs:
            try:
                chosen[columns] = chosen_of(columns, names, path.name)
            except FileFault as fault:
                chosen[columns] = fault
        wanted = tuple(dict.fromkeys(name for found in chosen.values() if isinstance(found, tuple) for name in found))
        table = _Table(path, delimiter, wanted, names)
        table.read(rows, sys.maxsize if limit is None else limit)
    return {
        columns: found if isinstance(found, FileFault) else _result(table, columns, found)
        for columns, found in chosen.items()
    }


def text_blocks(path: Path, delimiter: str, names: Sequence[str], rows: int) -> Iterator[Any]:
    """Yield columns of a text table as text, in Arrow record batches of at most `rows` rows.

    Raises:
        FileFault: a column is missing, or as `read_text`.
    """
    import pyarrow

    with _rows_of(path, delimiter) as (header, lines):
        positions = [header.index(name) for name in chosen_of(tuple(names), header, path.name)]
        while chunk := list(itertools.islice(lines, rows)):
            cells = [pyarrow.array([row[position] for _, row in chunk], pyarrow.string()) for position in positions]
            yield pyarrow.RecordBatch.from_arrays(cells, list(names))


def place_in_text(path: Path, delimiter: str, columns: Columns, index: Sequence[int]) -> tuple[int, str]:
    """The line, from 1, and the column name of an element of a tensor that `read_text` returns."""
    with _rows_of(path, delimiter) as (names, rows):
        chosen = chosen_of(columns, names, path.name)
        line, _ = next(itertools.islice(rows, index[0], None))
        return line, chosen[index[1] if len(index) > 1 else 0]


def _result(table: _Table, columns: Columns, chosen: Sequence[str]) -> Tensor | FileFault:
    try:
        if isinstance(columns, str):
            return torch.from_numpy(table.filled([columns])[:, 0])
        return torch.from_numpy(table.filled(chosen))
    except FileFault as fault:
        return fault


@dataclass(slots=True)
class _Part:
    """Consecutive rows: one block `(rows, columns)` if all cells are of one kind, otherwise a block per column."""

    rows: int
    whole: Block | None
    columns: Sequence[Block | FileFault]

    def column(self, position: int) -> Block | FileFault:
        return self.columns[position] if self.whole is None else self.whole[:, position]


class _Table:
    """The numbers of the selected columns."""

    def __init__(self, path: Path, delimiter: str, wanted: Sequence[str], names: Sequence[str]) -> None:
        self._path, self._delimiter = path, delimiter
        self._width = len(names)
        self._place = {name: place for place, name in enumerate(wanted)}
        where = {name: position for position, name in enumerate(names)}
        self._positions = [where[name] for name in wanted]
        self._wanted = wanted
        self._parts: list[_Part] = []

    def read(self, rows: Iterator[tuple[int, list[str]]], limit: int) -> None:
        """Read all rows."""
        file, columns = self._path.name, max(1, len(self._wanted))
        needed = 0
        while chunk := list(itertools.islice(rows, max(1, CELLS_AT_ONCE // columns))):
            for line, row in chunk:
                if len(row) != self._width:
                    cells = "1 cell" if len(row) == 1 else f"{len(row)} cells"
                    message = f"{file}:{line} has {cells}, and its header names {self._width} columns"
                    raise FileFault(message, "give every row the same number of cells")
            needed += 16 * columns * len(chunk)  # eight bytes per number, twice while they are assembled
            if needed > limit:
                message = f"reading {file} needs more than the {limit >> 20:,} MiB available"
                raise FileFault(message, "use a smaller file, or raise the limit with --max-memory")
            self._parts.append(self._part(chunk))
        if not self._parts:
            raise FileFault(f"{file} has a header and no rows", "add rows")

    def _part(self, chunk: Sequence[tuple[int, list[str]]]) -> _Part:
        texts = [row[position].strip() for _, row in chunk for position in self._positions]
        width = len(self._positions)
        whole = _of_one_kind(texts) if width > 1 else _numbers(texts)
        if whole is not None:
            return _Part(len(chunk), whole.reshape(len(chunk), width), ())
        lines = [line for line, _ in chunk]
        columns = [self._column(lines, texts[place::width], name) for place, name in enumerate(self._wanted)]
        return _Part(len(chunk), None, columns)

    def _column(self, lines: Sequence[int], texts: Sequence[str], name: str) -> Block | FileFault:
        found = _numbers(texts)
        return _first_fault(lines, texts, name, self._path.name) if found is None else found

    def filled(self, chosen: Sequence[str]) -> Block:
        """Some columns as an array `(rows, columns)`, with their common dtype.

        Raises:
            FileFault: a cell is not a number, or the columns have no common dtype.
        """
        places = [self._place[name] for name in chosen]
        kinds = [self._kind(place) for place in places]
        check_alike([numpy.dtype(kind) == numpy.bool_ for kind in kinds], chosen, self._path.name)
        dtype = numpy.result_type(*set(kinds))
        result = numpy.empty((sum(part.rows for part in self._parts), len(places)), dtype=dtype)
        start = 0
        for part in self._parts:
            rows = slice(start, start + part.rows)
            if part.whole is not None and places == list(range(len(self._wanted))):
                self._fill(result[rows], part.whole, chosen, start)
            else:
                for number, place in enumerate(places):
                    block = part.column(place)
                    assert not isinstance(block, FileFault)
                    self._fill(
                        result[rows, number : number + 1], block.reshape(-1, 1), chosen[number : number + 1], start
                    )
            start += part.rows
        return result

    def _kind(self, place: int) -> numpy.dtype[numpy.generic]:
        """The dtype of a column over all parts."""
        kinds = set()
        for part in self._parts:
            block = part.column(place)
            if isinstance(block, FileFault):
                raise block
            kinds.add(block.dtype)
        if len(kinds) > 1 and numpy.dtype(bool) in kinds:
            message = f"the column `{self._wanted[place]}` of {self._path.name} mixes booleans and numbers"
            raise FileFault(message, "write 0 and 1")
        return numpy.result_type(*kinds)

    def _fill(self, target: Block, block: Block, names: Sequence[str], start: int) -> None:
        target[...] = block
        if block.dtype == numpy.int64 and target.dtype == numpy.float64:
            for row, column in zip(*numpy.nonzero(abs(block) > EXACT), strict=True):
                value = int(block[row, column])
                if int(float(value)) != value:
                    line, _ = place_in_text(self._path, self._delimiter, names[column], [start + int(row)])
                    raise _inexact(self._path.name, line, str(value), names[column])


def _of_one_kind(texts: Sequence[str]) -> Block | None:
    """The cells of several columns if all are of one kind; None if they may not be."""
    found = _integers(texts)
    if found is None and not any(text.lstrip("+-").isdecimal() for text in texts):
        found = _booleans(texts)
        return _floats(texts) if found is None else found
    return found


def _numbers(texts: Sequence[str]) -> Block | None:
    """The cells of one column as int64, bool or float64; None if one is not a number."""
    for read in (_integers, _floats, _booleans):
        found = read(texts)
        if found is not None:
            return found
    return None


def _integers(texts: Sequence[str]) -> Block | None:
    if "_" in "".join(texts):  # Python parses 1_000 as a number; in a table it is more likely a name
        return None
    try:
        return numpy.array(list(map(int, texts)), dtype=numpy.int64)
    except (ValueError, OverflowError):
        return None


def _booleans(texts: Sequence[str]) -> Block | None:
    if texts[0].lower() not in _BOOLEANS or any(text.lower() not in _BOOLEANS for text in texts):
        return None
    return numpy.array([_BOOLEANS[text.lower()] for text in texts])


def _floats(texts: Sequence[str]) -> Block | None:
    """The cells as float64; None if one is not a number that float64 can represent."""
    if "_" in "".join(texts):
        return None
    try:
        found = numpy.array(list(map(float, texts)), dtype=numpy.float64)
    except ValueError:
        return None
    large = numpy.nonzero(abs(found) >= EXACT)[0].tolist()
    return None if any(_float64_misfit(texts[place]) for place in large) else found


def _float64_misfit(text: str) -> str | None:
    """Why float64 cannot represent a number, given as text, even with rounding; None if it can."""
    value = float(text)
    if math.isinf(value) and "n" not in text.lower():
        return "which is beyond 1.79769e+308, the largest float64,"
    if text.lstrip("+-").isdecimal() and math.isfinite(value) and not _same_integer(text, value):
        return "which float64 cannot represent exactly,"
    return None


def _same_integer(text: str, value: float) -> bool:
    return len(text) < 400 and int(text) == int(value)


def _first_fault(lines: Sequence[int], texts: Sequence[str], column: str, file: str) -> FileFault:
    for line, text in zip(lines, texts, strict=True):
        if not _is_number(text):
            shown = f"`{text[:40]}`, which is not a number" if text else "nothing"
            hint = "write `nan` for a missing number" if not text else "select other columns, or correct the cell"
            return FileFault(f"{file}:{line} holds {shown} in the column `{column}`", hint)
        reason = _float64_misfit(text)
        if reason is not None and "exactly" in reason:
            return _inexact(file, line, text, column)
        if reason is not None:
            message = f"{file}:{line} holds `{text[:40]}`, {reason} in the column `{column}`"
            return FileFault(message, "write `inf` if that is meant, or correct the cell")
    raise AssertionError


def _inexact(file: str, line: int, text: str, column: str) -> FileFault:
    message = f"{file}:{line} holds `{text[:40]}`, which float64 cannot represent exactly, in the column `{column}`"
    return FileFault(message, "write integers alone in that column and those read with it, or read it separately")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


@contextmanager
def _rows_of(path: Path, delimiter: str) -> Iterator[tuple[list[str], Iterator[tuple[int, list[str]]]]]:
    """Provides the column names in the first line of a table, and the rows below, each with its line.

    A blank line is a row with one blank cell if there is one column, and is skipped if there are more.
    """
    with open_ordinary(path) as file, _long_cells(), _faults(path.name):
        lines = csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), delimiter=delimiter, strict=True)
        names = [cell.strip() for cell in next(lines, [])]
        _check_header(names, path.name, lines.line_num)
        blank = [""] if len(names) == 1 else None
        yield names, ((lines.line_num, row or [""]) for row in lines if row or blank)


def _check_header(names: Sequence[str], file: str, read: int) -> None:
    """Check that the first line names the columns; `read` is the number of lines read so far."""
    if not any(names):
        found = f"{file}:1 is blank" if read else f"{file} is empty"
        raise FileFault(found, "its first line names the columns")
    if all(_is_number(name) for name in names):
        raise FileFault(
            f"{file} names no columns: its first line is {listing(names, 5)}", "add a first line with names"
        )


@contextmanager
def _long_cells() -> Iterator[None]:
    """Context manager that allows cells of any length: the file is limited already, and Python's limit is global."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


@contextmanager
def _faults(name: str) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise FileFault(f"{name} is not UTF-8: {error.reason} at byte {error.start}", "save it as UTF-8") from error
    except csv.Error as error:
        raise FileFault(f"{name} is malformed: {error}", "write the file again") from error
