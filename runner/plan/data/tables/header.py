"""The names of the columns of a text table, and the dialect that its first lines show."""

from __future__ import annotations

import csv
import io
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runner.config import Dialect
from runner.errors import listing
from runner.plan.data.sandbox import FileFault
from runner.plan.data.tables.byte_blocks import Block, byte_blocks
from runner.plan.data.tables.cells import is_number
from runner.plan.data.tables.columns import MOST_COLUMNS
from runner.text import counted

DELIMITERS = {".csv": ",", ".tsv": "\t"}
"""The delimiter of each type of file, unless the config writes another."""

WIDE = 1000
"""A table with more columns is read in larger blocks."""

LARGEST_BLOCK = 64 << 20
"""Maximum bytes of a block of a wide table."""

_BYTES_OF_A_COLUMN = 4096
_CANDIDATES = (",", ";", "\t", "|")

Row = tuple[int, list[str]]
"""The line of a row, from 1, and its cells."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What is known of a text table before its rows are read."""

    path: Path
    dialect: Dialect
    delimiter: str
    names: tuple[str, ...]


def delimiter_of(path: Path, dialect: Dialect) -> str:
    return dialect.delimiter or DELIMITERS[path.suffix.lower()]


def open_rows(path: Path, dialect: Dialect) -> tuple[Layout, Iterator[Block]]:
    """The layout of a text table, and its rows below the header, in blocks.

    Raises:
        FileFault: the file is empty, malformed, has no names, or another delimiter.
    """
    delimiter = delimiter_of(path, dialect)
    blocks = byte_blocks(path, dialect, delimiter)
    first = next(blocks, None)
    if first is None:
        raise FileFault(f"{path.name} is empty", "its first line names the columns")
    _check_width(first, path.name, delimiter)
    with long_cells():
        names, below = _header(first, path.name, dialect, delimiter)
    layout = Layout(path, dialect, delimiter, names)
    if len(names) > WIDE:  # so that a block has many rows: converting a column of a block has a cost of its own
        size = min(LARGEST_BLOCK, _BYTES_OF_A_COLUMN * len(names))
        blocks = byte_blocks(path, dialect, delimiter, size)
        first = next(blocks)
        with long_cells():
            _, below = _header(first, path.name, dialect, delimiter)
    return layout, itertools.chain([] if below is None else [below], blocks)


def layout_of(path: Path, dialect: Dialect) -> Layout:
    """The layout of a text table. Raises as `open_rows`."""
    layout, _ = open_rows(path, dialect)
    return layout


def rows_in(block: Block, layout: Layout) -> Iterator[Row]:
    """The rows of a block, by Python's reader.

    A blank line is a row with one blank cell if there is one column, and is skipped if there are more.

    Raises:
        FileFault: a quote is not closed, or a row has another number of cells than the header.
    """
    width, name = len(layout.names), layout.path.name
    lines = _reader(block, layout.dialect, layout.delimiter)
    begins = 1
    try:
        for row in lines:
            begins, line = lines.line_num + 1, block.line_of(lines.line_num)
            if not row:
                if width > 1:
                    continue
                row = [""]
            if len(row) != width:
                cells = "1 cell" if len(row) == 1 else f"{len(row)} cells"
                message = f"{name}:{line} has {cells}, and {_says(layout.dialect)} {width} columns"
                raise FileFault(message, "give every row the same number of cells")
            yield line, row
    except csv.Error as error:
        raise _malformed(name, block.line_of(begins), error) from error


def _says(dialect: Dialect) -> str:
    if isinstance(dialect.header, bool):
        return "its header names" if dialect.header else "the first row has"
    return "`header` names"


def _malformed(name: str, line: int, error: csv.Error) -> FileFault:
    if "unexpected end" in str(error):
        return FileFault(f"{name}:{line} opens a quote that is not closed", "close it, or write `quote: null`")
    return FileFault(f"{name}:{line} is malformed: {error}", "write the row again, or write `quote: null`")


def _reader(block: Block, dialect: Dialect, delimiter: str) -> csv._reader:  # type: ignore[name-defined]
    text = io.TextIOWrapper(io.BytesIO(block.content), encoding="utf-8", newline="")  # decodes while it reads
    if dialect.quote is None:
        return csv.reader(text, delimiter=delimiter, quoting=csv.QUOTE_NONE, strict=True)
    return csv.reader(text, delimiter=delimiter, quotechar=dialect.quote, strict=True)


def _header(first: Block, name: str, dialect: Dialect, delimiter: str) -> tuple[tuple[str, ...], Block | None]:
    """The names of the columns, and the block without the header."""
    lines = _reader(first, dialect, delimiter)
    try:
        cells = [cell.strip() for cell in next(lines, [])]
    except csv.Error as error:
        raise _malformed(name, first.line_of(1), error) from error
    end = lines.line_num
    named = dialect.header is True
    if named and not any(cells):
        raise FileFault(f"{name}:{first.line_of(1)} is blank", "its first line names the columns")
    if not cells:
        raise FileFault(f"{name}:{first.line_of(1)} is blank", "begin the file with a row")
    _check_delimiter(first, name, dialect, delimiter, cells)
    if not named:
        if dialect.header is False:
            return tuple(map(str, range(len(cells)))), first
        assert not isinstance(dialect.header, bool)
        if len(dialect.header) != len(cells):
            named_columns, found = counted(len(dialect.header), "name"), counted(len(cells), "cell")
            message = f"`header` has {named_columns}, and the first row of {name} has {found}"
            raise FileFault(message, "name each column")
        return dialect.header, first
    if all(map(is_number, cells)):
        message = f"{name} names no columns: its first line is {listing(cells, 5)}"
        raise FileFault(message, "write `header: false`, or add a first line with names")
    content, offset = first.content, 0
    for _ in range(end):
        offset = content.find(b"\n", offset) + 1 or content.find(b"\r", offset) + 1 or len(content)
    if offset >= len(content):
        return tuple(cells), None
    before = first.line_of(end)
    kept = tuple(place - end for place in first.cut if place >= end)
    return tuple(cells), Block(content[offset:], before + 1, kept, first.unusual)


def _check_delimiter(first: Block, name: str, dialect: Dialect, delimiter: str, cells: Sequence[str]) -> None:
    """Check that a table whose first line is one cell is not of another delimiter."""
    if len(cells) != 1:
        return
    if dialect.header is True and cells[0].startswith("#"):
        message = f"the first line of {name} is `{cells[0][:40]}`, which names no columns"
        raise FileFault(message, 'write `comment: "#"`')
    found = recognised(first.content[: 1 << 16].decode(errors="replace"), delimiter)
    shown = delimiter.replace("\t", "\\t")
    if found is not None:
        other = found.replace("\t", "\\t")
        message = f"the cells of {name} are separated by `{other}`, not by `{shown}`"
        raise FileFault(message, f'write `delimiter: "{other}"`')
    if dialect.delimiter is not None:
        raise FileFault(f"the delimiter `{shown}` never occurs in the first line of {name}", "remove `delimiter`")


def recognised(text: str, delimiter: str | None = None) -> str | None:
    """The delimiter that the first two lines of a table share, other than `delimiter`, or None."""
    lines = [line for line in text.splitlines()[:20] if line.strip()][:2]
    if not lines:
        return None
    counts = [Counter(line) for line in lines]
    for candidate in _CANDIDATES:
        if (
            candidate != delimiter
            and counts[0][candidate]
            and all(count[candidate] == counts[0][candidate] for count in counts)
        ):
            return candidate
    return None


def _check_width(first: Block, name: str, delimiter: str) -> None:
    end = first.content.find(b"\n")
    count = first.content.count(delimiter.encode(), 0, len(first.content) if end < 0 else end) + 1
    if count > MOST_COLUMNS:
        message = f"{name} has {count:,} columns, and at most {MOST_COLUMNS:,} are read"
        raise FileFault(message, "save it as a `.npy` file")


@contextmanager
def long_cells() -> Iterator[None]:
    """Context manager that allows cells of any length: rows are limited already, and Python's limit is global."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)
