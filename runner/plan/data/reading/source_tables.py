"""The tables of sources: which columns a source reads of its files, and how each becomes numbers."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from runner.config import DataDeclaration, Dialect, Document
from runner.errors import did_you_mean, listing
from runner.faults import ConfigPath, PlacedFault
from runner.plan.data.files import ArrayFile, Columns, FileFault, is_table_name, is_text_name, open_array, table_names
from runner.plan.data.tables.cells import BLANK
from runner.plan.data.tables.columns import chosen_of, expanded, names_in
from runner.plan.data.tables.conversions import Conversion, Reading

_TEXT_KEYS = ("delimiter", "decimal", "quote", "comment", "encoding", "header")
_COLUMN_KEYS = ("classes", "one_hot", "dates", "fill")
_TABLE_KEYS = ("missing", "dates", "fill")
_KEYED = (".npz", ".safetensors")


@dataclass(frozen=True, slots=True)
class Wish:
    """What a source says of one column of its file."""

    key: str  # `classes`, `one_hot`, `dates` or `fill`
    written: str  # the name under the key: a batch column, or the column itself
    value: Any
    path: ConfigPath


@dataclass(frozen=True, slots=True)
class SourceTable:
    """The table of one source, or its arrays if they have classes."""

    name: str
    array: ArrayFile  # the table; the first array of a file that is no table
    columns: Mapping[str, Columns]  # batch column → columns of the file, without globs
    taken: Mapping[str, tuple[str, ...]]  # batch column with a glob → what it took
    wishes: Mapping[str, tuple[Wish, ...]]  # column of the file → what is said of it
    selects: bool = False  # whether not every row may be a sample
    arrays: Mapping[str, ArrayFile] = field(default_factory=dict)  # each column of a file that is no table

    def holding(self, column: str) -> ArrayFile:
        """The array that a column is in."""
        return self.arrays.get(column, self.array)

    def array_of(self, batch_name: str, reading: Reading) -> ArrayFile:
        """The array of a batch column."""
        columns = self.columns[batch_name]
        if isinstance(columns, str) and columns in self.arrays:
            return replace(self.arrays[columns], reading=reading)
        return replace(self.array, columns=columns, reading=reading)

    def reading(self, batch_name: str, dtype: str | None) -> Reading:
        """How a batch column is read."""
        chosen = names_in(self.columns[batch_name])
        conversions = ((column, _conversion(self.wishes[column])) for column in chosen if column in self.wishes)
        return Reading(self.array.reading.dialect, tuple(conversions), is_floating(dtype), self.selects)


def dialect_of(declared: Dialect) -> Dialect:
    """The dialect that a source or a tensor declares."""
    return Dialect.model_construct(**{name: getattr(declared, name) for name in Dialect.model_fields})


def is_floating(dtype: str | None) -> bool:
    return dtype is not None and bool(getattr(torch, dtype).is_floating_point)


def check_keys(declared: Dialect, file: str, path: ConfigPath) -> None:
    """Check that the keys of a declaration go with the format of its file.

    Raises:
        PlacedFault: one of them does not.
    """
    if not is_table_name(file) and Path(file.partition("#")[0]).suffix.lower() not in (".npy", *_KEYED):
        return  # opening it says what is wrong with the file
    written = declared.model_fields_set
    for key in _TEXT_KEYS:
        if key in written and not is_text_name(file):
            raise PlacedFault((*path, key), f"`{key}` is for .csv and .tsv files", f"remove `{key}`", key=True)
    for key in _TABLE_KEYS:
        if key in written and not is_table_name(file):
            message = f"`{key}` is for tables: .csv, .tsv and .parquet files"
            raise PlacedFault((*path, key), message, f"remove `{key}`", key=True)
    text = next((text for text in declared.missing if text != BLANK), None)
    if text is not None and not is_text_name(file):
        message = f"`{text}` is text, and in a .parquet file only nulls are missing"
        raise PlacedFault((*path, "missing"), message, "write `missing: [null]`")


def source_table(
    name: str,
    declared: DataDeclaration,
    document: Document,
    allowed: Iterable[Path],
    memory: int,
    excluded: Collection[str] = (),
) -> SourceTable | None:
    """The table of a source, or its arrays if some have classes; None if it has neither.

    Args:
        memory: maximum bytes of a text table.
        excluded: columns that no glob takes.
    Raises:
        PlacedFault: a file cannot be read, a column or a glob is wrong, or two things are said of one column.
    """
    path: ConfigPath = ("data", name)
    if declared.file is None or not is_table_name(declared.file):
        for file in [declared.file] if declared.file is not None else list(declared.columns.values())[:1]:
            check_keys(declared, file if isinstance(file, str) else "", path)
        return _with_classes(name, declared, document, allowed) if declared.classes or declared.one_hot else None
    check_keys(declared, declared.file, path)
    at: ConfigPath = (*path, "file")
    try:
        reading = Reading(dialect_of(declared))
        array = open_array(declared.file, document.folder(at), allowed, None, reading)
        names = table_names(array, memory)
    except FileFault as fault:
        raise PlacedFault(at, fault.message, fault.hint) from fault
    bound = {*excluded, *_bound(declared, names)}
    columns: dict[str, Columns] = {}
    taken: dict[str, tuple[str, ...]] = {}
    for batch_name, spec in declared.columns.items():
        try:
            columns[batch_name] = expanded(spec, names, bound, array.path.name)
            chosen_of(columns[batch_name], names, array.path.name)
        except FileFault as fault:
            raise PlacedFault((*path, "columns", batch_name), fault.message, fault.hint) from fault
        if columns[batch_name] != spec:
            listed = set(names_in(spec))
            taken[batch_name] = tuple(each for each in names_in(columns[batch_name]) if each not in listed)
    return SourceTable(name, array, columns, taken, _wishes(name, declared, columns), declared.select is not None)


def _with_classes(name: str, declared: DataDeclaration, document: Document, allowed: Iterable[Path]) -> SourceTable:
    """The arrays of a source without a table."""
    path: ConfigPath = ("data", name)
    arrays: dict[str, ArrayFile] = {}
    for batch_name, spec in declared.columns.items():
        at: ConfigPath = (*path, "columns", batch_name)
        folder = document.folder(at if declared.file is None else (*path, "file"))
        try:
            found = open_column(batch_name, declared, folder, allowed)
        except FileFault as fault:
            placed = at if fault.about_columns or declared.file is None else (*path, "file")
            raise PlacedFault(placed, fault.message, fault.hint) from fault
        arrays[spec] = found
    wishes = _wishes(name, declared, declared.columns)
    for column, (wish, *_) in wishes.items():
        if arrays[column].is_table:
            message = f"`{column}` is a table, and `{wish.key}` is for one of its columns"
            raise PlacedFault(
                wish.path, message, f"write `file: {column}`, and name its column under `columns`", key=True
            )
    first = next(iter(arrays.values()))
    return SourceTable(name, first, declared.columns, {}, wishes, declared.select is not None, arrays)


def open_column(batch_name: str, declared: DataDeclaration, folder: Path, allowed: Iterable[Path]) -> ArrayFile:
    """The array of a batch column of a source without a table. Raises as `open_array`."""
    spec, file = declared.columns[batch_name], declared.file
    if file is None:
        if not isinstance(spec, str):
            raise FileFault("these columns name no file", "write `file:` next to `columns:`")
        return open_array(spec, folder, allowed, reading=Reading(dialect_of(declared)))
    suffix = Path(file).suffix.lower()
    if suffix in _KEYED:
        if not isinstance(spec, str):
            raise FileFault(f"a `{suffix}` file has arrays, not columns to stack", "name one array", about_columns=True)
        return open_array(f"{file}#{spec}", folder, allowed)
    if suffix == ".npy":
        raise FileFault("a `.npy` file has no columns", f"leave `file` out, and write `x: {file}` under `columns:`")
    return open_array(file, folder, allowed, spec)


def _bound(declared: DataDeclaration, names: Iterable[str]) -> set[str]:
    """The columns of the file that a source names."""
    known = set(names)
    return {each for spec in declared.columns.values() for each in names_in(spec) if each in known}


def _wishes(name: str, declared: DataDeclaration, columns: Mapping[str, Columns]) -> dict[str, tuple[Wish, ...]]:
    found: dict[str, tuple[Wish, ...]] = {}
    read = dict.fromkeys(column for spec in columns.values() for column in names_in(spec))
    for key in _COLUMN_KEYS:
        for written, value in getattr(declared, key).items():
            path: ConfigPath = ("data", name, key, written)
            if written not in columns and written not in read:
                known = [*columns, *read]
                hint = did_you_mean(written, known, f"it has {listing(list(dict.fromkeys(known)))}")
                raise PlacedFault(path, f"`{name}` has no column `{written}`", hint, key=True)
            for column in names_in(columns[written]) if written in columns else (written,):
                found[column] = (*found.get(column, ()), Wish(key, written, value, path))
    for column, wishes in found.items():
        _check_together(column, wishes)
    return found


def _check_together(column: str, wishes: tuple[Wish, ...]) -> None:
    """Check that what is said of one column can be done together: only `dates` and `fill`."""
    for first, second in itertools.pairwise(wishes):
        if (first.key, second.key) != ("dates", "fill"):
            message = f"the column `{column}` has `{first.key}` as `{first.written}`, and `{second.key}`"
            raise PlacedFault(second.path, message, "remove one of them", key=True)


def _conversion(wishes: tuple[Wish, ...]) -> Conversion:
    values = {wish.key: wish.value for wish in wishes}
    classes = values.get("classes", values.get("one_hot", ()))
    return Conversion(classes, "one_hot" in values, values.get("dates"), values.get("fill"))


def class_counts(declarations: Mapping[str, DataDeclaration]) -> Iterator[tuple[str, int]]:
    """Yields each call `classes(SOURCE.COLUMN)` that scalar expressions may contain, and its value."""
    for name, declared in declarations.items():
        for classes in (declared.classes, declared.one_hot):
            for column, listed in classes.items():
                if not isinstance(listed, str):
                    yield f"classes({name}.{column})", len(listed)
