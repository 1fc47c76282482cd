"""What a data file holds: its columns or arrays, and for text tables the dialect that its lines show."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runner.config import Dialect
from runner.language.dtypes import dtype_name
from runner.plan.data.arrays import array_names
from runner.plan.data.files import ArrayFile, FileFault, describe, groups_of, header_of, open_array, table_names
from runner.plan.data.raw_columns import ROWS_AT_ONCE, cell_blocks
from runner.plan.data.reading.columns import ColumnSummary, columns_of_text
from runner.plan.data.tables.byte_blocks import byte_blocks
from runner.plan.data.tables.cells import BLANK, is_usual_missing, number_of
from runner.plan.data.tables.conversions import Reading
from runner.plan.data.tables.header import DELIMITERS, recognised
from runner.plan.data.tables.parquet import column_parts
from runner.plan.data.tables.parquet_files import columns_without_cells
from runner.plan.data.tables.text_table import column_names

_COMMENTS = ("#", "%", "//")
_CELLS_AT_ONCE = 1 << 22
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")


@dataclass(frozen=True, slots=True)
class FileSummary:
    """What a data file holds."""

    array: ArrayFile
    dialect: dict[str, Any]  # the keys of a text table that are not the defaults
    columns: tuple[ColumnSummary, ...] = ()  # of a table
    arrays: tuple[tuple[str | None, tuple[int, ...], str], ...] = ()  # of other files: key, shape and dtype

    @property
    def rows(self) -> int:
        return self.columns[0].rows if self.columns else 0


def summarise(path: Path) -> FileSummary:
    """What a file holds.

    Raises:
        FileFault: it cannot be read.
    """
    array = open_array(path.name, path.parent)
    if not array.is_table:
        texts = [path.name if key is None else f"{path.name}#{key}" for key in array_names(path)]
        found = [open_array(text, path.parent) for text in texts]
        return FileSummary(array, {}, arrays=tuple((each.key, *_described(each)) for each in found))
    keys = _dialect(array) if array.is_text else {}
    array = replace(array, reading=Reading(Dialect(**keys)))
    columns = _columns(array, (BLANK,))
    absent = _missing_texts(columns) if array.is_text else []
    if any(column.missing for column in columns):
        absent = [None, *absent]
    if absent:
        keys["missing"] = absent
        array = replace(array, reading=Reading(Dialect(**keys)))
        columns = _columns(array, array.reading.dialect.missing)
    return FileSummary(array, keys, tuple(columns))


def _described(array: ArrayFile) -> tuple[tuple[int, ...], str]:
    try:
        header = header_of(array)
    except FileFault as fault:
        if "would need pickle" not in fault.message:
            raise
        return (), "Python objects, which are not read"
    if header.text is not None:
        return header.shape, "text"
    shape, dtype = describe(array)
    return shape, dtype_name(dtype)


def _columns(array: ArrayFile, absent: Sequence[str]) -> list[ColumnSummary]:
    names = list(dict.fromkeys(table_names(array)))
    if array.is_text:
        return columns_of_text(array.paths, array.reading.dialect, names, absent)
    found = [ColumnSummary(name) for name in names]
    total = sum(groups_of(array))
    if not total:
        raise FileFault(f"{array.path.name} has no rows", "add rows")
    others = columns_without_cells(array.paths)
    for column in found:
        if column.name in others:
            column.rows, column.kinds, column.is_readable = total, {others[column.name]}, False
            column.missing = sum(block[column.name].null_count for block in _parts(array, column.name))
    _add_cells(array, [column for column in found if column.is_readable], absent)
    return found


def _parts(array: ArrayFile, name: str) -> Iterator[Mapping[str, Any]]:
    for path in array.paths:
        for _, block in column_parts(path, [name]):
            yield block


def _add_cells(array: ArrayFile, found: Sequence[ColumnSummary], absent: Sequence[str]) -> None:
    rows = min(ROWS_AT_ONCE, max(1, sum(groups_of(array))))
    at_once = max(1, _CELLS_AT_ONCE // rows)
    for start in range(0, len(found), at_once):
        some = found[start : start + at_once]
        for _, _, block in cell_blocks(array, [column.name for column in some]):
            for column in some:
                column.add(block[column.name], absent)


def _missing_texts(columns: Sequence[ColumnSummary]) -> list[Any]:
    """The texts that mean a missing number in columns that hold numbers otherwise."""
    found: list[Any] = []
    for column in columns:
        words = column.distinct or set()
        texts = {word for word in words if number_of(word, column.decimal) is None}
        if texts and len(texts) < len(words) and all(map(is_usual_missing, texts)):
            found += sorted(texts - set(found))
    return found


def _dialect(array: ArrayFile) -> dict[str, Any]:
    """The keys that a text table needs, by its first lines and its bytes."""
    found: dict[str, Any] = {}
    encoding = _encoding(array.path)
    if encoding is not None:
        found["encoding"] = encoding
    usual = DELIMITERS[array.suffix]
    head = next(byte_blocks(array.path, Dialect(**found), usual), None)
    text = "" if head is None else head.content[: 1 << 16].decode(errors="replace")
    lines = text.splitlines()
    comment = next((mark for mark in _COMMENTS if lines and lines[0].startswith(mark)), None)
    if comment is not None and len(lines) > 1 and lines[0].count(usual) != lines[1].count(usual):
        found["comment"] = comment
        text = "\n".join(line for line in lines if not line.startswith(comment))
    first = text.partition("\n")[0]
    if usual not in first and (other := recognised(text, usual)) is not None:
        found["delimiter"] = other
    delimiter = found.get("delimiter", usual)
    cells = [cell.strip() for line in text.splitlines()[1:50] for cell in line.split(delimiter)]
    if any(map(_DECIMAL_COMMA.fullmatch, cells)):
        found["decimal"] = ","
    try:
        column_names(array.paths, Dialect(**found))
    except FileFault as fault:
        if "names no columns" not in fault.message:
            raise
        found["header"] = False
    return found


def _encoding(path: Path) -> str | None:
    """The encoding of a text table, or None if it is UTF-8."""
    with path.open("rb") as file:
        start = file.read(2)
    if start in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    try:
        for _ in byte_blocks(path, Dialect(quote=None), ","):
            pass
    except FileFault as fault:
        if "is not UTF-8" not in fault.message:
            raise
        return "cp1252" if _decodes(path, "cp1252") else "latin-1"
    return None


def _decodes(path: Path, encoding: str) -> bool:
    try:
        for _ in byte_blocks(path, Dialect(quote=None, encoding=encoding), ","):
            pass
    except FileFault:
        return False
    return True
