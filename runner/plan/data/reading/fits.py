"""What sources take from their rows before a run: sorted classes, and the numbers that replace missing ones.

The first source that asks for it gives it to the others. It becomes part of the config: nothing is fitted again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy

from runner.config import Config, DataDeclaration, rewritten
from runner.faults import ConfigPath, Faults, PlacedFault
from runner.language.text.arithmetic import Scalar
from runner.plan.data.files import ArrayFile, FileFault, array_words, groups_of, header_of, unknown_class_at
from runner.plan.data.reading.source_tables import SourceTable, Wish, source_table
from runner.plan.data.selection.of_source import select_source
from runner.plan.data.selection.planning import columns_named
from runner.plan.data.selection.selection import Mask, Selection
from runner.plan.data.tables.cells import BLANK, Array, Numbers, Words, is_number
from runner.plan.data.tables.columns import names_in
from runner.plan.data.tables.conversions import (
    CellFault,
    Class,
    Conversion,
    Reading,
    as_floating,
    class_codes,
    converted,
    integer_of,
)
from runner.plan.data.tables.parquet import column_parts
from runner.plan.data.tables.parquet_cells import numbers_in, words_in
from runner.plan.data.tables.text_cache import text_columns

MOST_CLASSES = 10_000
"""Maximum classes of one column."""

_FITTED: Mapping[str, tuple[str, ...]] = {
    "classes": ("sorted",),
    "one_hot": ("sorted",),
    "fill": ("mean", "median"),
}


def fitted(
    config: Config,
    scalars: Mapping[str, Scalar],
    faults: Faults,
    allowed: Iterable[Path],
    memory: int,
    recorded: Mapping[tuple[str, str], Any],
) -> Config:
    """The config with the classes and the numbers that its sources take from the rows that they select.

    Args:
        scalars: scalar constants, which `select` may read.
        allowed: additional folders from which reading is allowed.
        memory: available bytes.
        recorded: what the run of `from_run` took, by key and column; it is not taken again.
    """
    asking = [name for name, declared in config.data.items() if any(_asked(declared))]
    if not asking:
        return config
    folders = (*map(Path, faults.document.sandbox.folders), *allowed)
    known: dict[tuple[str, Any, str], Any] = {}
    values: dict[ConfigPath, dict[str, Any]] = {}
    for name in asking:
        try:
            named = columns_named(config.data[name].select)
            table = source_table(name, config.data[name], faults.document, folders, memory, named)
            if table is not None:
                rows = _selected(table, config.data[name], scalars, faults, memory)
                _fit(table, known, values, rows, memory, recorded, faults)
        except PlacedFault as fault:
            faults.problems.append(fault.problem(faults.document))
    return config if faults.problems else rewritten(config, values)


def fits_of(config: Config) -> dict[tuple[str, str], Any]:
    """What the sources of a resolved config took: `("classes", "y")` → classes, `("fill", "mass")` → a number."""
    found: dict[tuple[str, str], Any] = {}
    others: dict[tuple[str, str], Any] = {}
    for declared in config.data.values():
        for key, words in _FITTED.items():
            kind = "fill" if key == "fill" else "classes"
            for column, value in getattr(declared, key).items():
                if value not in words:
                    found.setdefault((kind, column), value)
                    for name in _other_names(declared, column):
                        others.setdefault((kind, name), value)
    return others | found


def _other_names(declared: DataDeclaration, name: str) -> Iterator[str]:
    """The other name of a column: that of the batch column, or that in the file."""
    spec = declared.columns.get(name)
    if isinstance(spec, str):
        yield spec
    yield from (batch_name for batch_name, columns in declared.columns.items() if columns == name)


def _selected(
    table: SourceTable, declared: DataDeclaration, scalars: Mapping[str, Scalar], faults: Faults, memory: int
) -> Mask | None:
    """Which rows a source selects; None for all."""
    if declared.select is None:
        return None
    path: ConfigPath = ("data", table.name)
    arrays = {name: table.array_of(name, table.array.reading) for name in table.columns}
    try:
        rows = _rows(table, memory)
    except FileFault as fault:
        raise PlacedFault((*path, "file"), fault.message, fault.hint) from fault
    found = select_source(declared, path, arrays, rows, scalars, faults, memory)
    return None if found is None else found.selection.mask(0, rows)


def _rows(table: SourceTable, memory: int) -> int:
    """The number of rows of a table."""
    if table.arrays:
        return header_of(table.array).shape[0]
    if not table.array.is_text:
        return sum(groups_of(table.array))
    column = names_in(next(iter(table.columns.values())))[0]
    of_text = any(wish.key != "fill" for wish in table.wishes.get(column, ()))
    cells = text_columns(table.array.paths, table.array.reading.dialect, [(column, of_text)], memory)[column, of_text]
    if isinstance(cells, FileFault):
        raise cells
    return len(cells.codes if isinstance(cells, Words) else cells.values)


def _asked(declared: Any) -> Iterator[bool]:
    for key, words in _FITTED.items():
        yield from (isinstance(value, str) and value in words for value in getattr(declared, key).values())


def _fit(
    table: SourceTable,
    known: dict[tuple[str, Any, str], Any],
    values: dict[ConfigPath, dict[str, Any]],
    rows: Mask | None,
    memory: int,
    recorded: Mapping[tuple[str, str], Any],
    faults: Faults,
) -> None:
    for column, wishes in table.wishes.items():
        for wish in wishes:
            if not isinstance(wish.value, str) or wish.value not in _FITTED.get(wish.key, ()):
                continue
            alone = wish.written in table.columns and len(names_in(table.columns[wish.written])) == 1
            identity = ("fill" if wish.key == "fill" else "classes", wish.value, wish.written if alone else column)
            replaced = wish.written if alone or wish.written == column else column
            if identity not in known:
                earlier = recorded.get((identity[0], replaced), recorded.get((identity[0], column)))
                known[identity] = _fitted(table, column, wish, rows, memory, faults) if earlier is None else earlier
            path = wish.path[:-1]
            values.setdefault((*path, wish.written), {})[replaced] = known[identity]


def _fitted(table: SourceTable, column: str, wish: Wish, rows: Mask | None, memory: int, faults: Faults) -> Any:
    try:
        if wish.key == "fill":
            return _replacement(table, column, wish, rows, memory)
        array = table.holding(column)
        found, absent = _distinct(array, column, rows, memory), {BLANK, *array.reading.dialect.missing}
        counts = {word: count for word, count in found.items() if word not in absent}
        classes = sorted_classes(counts, column, array.path.name)
    except FileFault as fault:
        raise PlacedFault(wish.path, fault.message, fault.hint) from fault
    _warn_of_rare(counts, wish, faults)
    return classes


_RARE = 50
"""A class with one row is probably a misspelling if a class has this many rows on average."""


def _warn_of_rare(counts: Mapping[str, int], wish: Wish, faults: Faults) -> None:
    """Warn of one class alone, and of a class with one row where the others have many."""
    if len(counts) == 1:
        (word,) = counts
        message = f"`{wish.written}` has one class, `{word[:40]}`: nothing can be learnt of it"
        faults.warn(wish.path, message, "use rows of several classes, or leave the column out")
        return
    rare = next((word for word, count in sorted(counts.items()) if count == 1), None)
    if rare is not None and sum(counts.values()) >= _RARE * len(counts):
        hint = "correct the text if it is misspelt, or list the classes"
        faults.warn(wish.path, f"the class `{rare[:40]}` of `{wish.written}` has one row", hint)


def sorted_classes(words: Iterable[str], column: str, file: str) -> tuple[Class, ...]:
    """The distinct texts of a column in order: by code point, or as integers if all are integers.

    Raises:
        FileFault: there are none or too many, they are numbers with a fraction, or two are the same integer.
    """
    found = sorted(set(words) - {BLANK})
    if not found:
        raise FileFault(f"the column `{column}` of {file} holds no text", "leave it out, or list the classes")
    if len(found) > MOST_CLASSES:
        message = f"the column `{column}` of {file} holds more than {MOST_CLASSES:,} different texts"
        raise FileFault(message, "choose another column, or list the classes")
    integers = [integer_of(word) for word in found]
    if None not in integers:
        _check_distinct(found, integers, column, file)
        return tuple(sorted(number for number in integers if number is not None))
    if all(map(is_number, found)):
        shown = next(word for word, number in zip(found, integers, strict=True) if number is None)
        message = f"the column `{column}` of {file} holds numbers such as {shown}, which are no classes"
        raise FileFault(message, "read it as numbers, or list the classes")
    return tuple(found)


def _check_distinct(words: Sequence[str], integers: Sequence[int | None], column: str, file: str) -> None:
    first: dict[int | None, str] = {}
    for word, number in zip(words, integers, strict=True):
        if first.setdefault(number, word) != word:
            message = (
                f"the column `{column}` of {file} holds `{first[number]}` and `{word}`, which are the same integer"
            )
            raise FileFault(message, "write it in one way, or list the classes")


def _distinct(array: ArrayFile, column: str, rows: Mask | None, memory: int) -> Counter[str]:
    """The texts of a column, and the number of rows of each."""
    found: Counter[str] = Counter()
    for cells, start in _word_parts(array, column, memory):
        codes = cells.codes if rows is None else cells.codes[rows[start : start + len(cells.codes)]]
        distinct, counts = numpy.unique(codes, return_counts=True)
        for code, count in zip(distinct.tolist(), counts.tolist(), strict=True):
            found[cells.words[code]] += count
        if len(found) > MOST_CLASSES + 1:
            break
    return found


def check_classes(array: ArrayFile, selection: Selection, memory: int) -> None:
    """Check that the selected rows of an array have only classes that its reading knows.

    Raises:
        FileFault: one has another text; the message has its row.
    """
    for column in names_in(array.columns) if array.is_table else (array.column,):
        conversion = array.reading.of(column)
        if not conversion.classes:
            continue
        for cells, start in _word_parts(array, column, memory):
            known = numpy.array(class_codes(cells.words, conversion.classes)) >= 0
            wrong = ~known[cells.codes] & selection.mask(start, start + len(cells.codes))
            if wrong.any():
                row = int(wrong.argmax())
                raise unknown_class_at(array, column, start + row, cells.words[cells.codes[row]])


def _word_parts(array: ArrayFile, column: str, memory: int) -> Iterator[tuple[Words, int]]:
    if not array.is_table:
        yield array_words(array, memory), 0
        return
    if array.is_text:
        cells = text_columns(array.paths, array.reading.dialect, [(column, True)], memory)[column, True]
        assert isinstance(cells, Words)
        yield cells, 0
        return
    start = 0
    for path in array.paths:
        for _, found in column_parts(path, [column]):
            yield words_in(found[column], path.name, column), start
            start += len(found[column])


def _number_parts(array: ArrayFile, column: str, memory: int) -> Iterator[tuple[Numbers, int]]:
    if array.is_text:
        cells = text_columns(array.paths, array.reading.dialect, [(column, False)], memory)[column, False]
        if isinstance(cells, FileFault):
            raise cells
        assert isinstance(cells, Numbers)
        yield cells, 0
        return
    start = 0
    for path in array.paths:
        for first, found in column_parts(path, [column]):
            yield numbers_in(found[column], path.name, column, first), start
            start += len(found[column])


def _date_parts(table: SourceTable, column: str, unit: str, memory: int) -> Iterator[tuple[Numbers, int]]:
    dialect = table.array.reading.dialect
    absent = dialect.model_copy(update={"missing": (*dialect.missing, BLANK)})
    reading = Reading(absent, ((column, Conversion(unit=unit)),))
    for cells, start in _word_parts(table.array, column, memory):
        try:
            yield converted(cells, column, reading), start
        except CellFault as fault:
            shown = f"{table.array.path.name} holds `{cells.words[cells.codes[fault.row]]}` in the column `{column}`"
            raise FileFault(f"{shown}, {fault.reason}", fault.hint) from fault


def _replacement(table: SourceTable, column: str, wish: Wish, rows: Mask | None, memory: int) -> float:
    """The mean or the median of the numbers of a column that are there."""
    total, count = numpy.float64(0), 0
    kept: list[Array] = []
    unit = next((each.value for each in table.wishes[column] if each.key == "dates"), None)
    parts = _number_parts(table.array, column, memory) if unit is None else _date_parts(table, column, unit, memory)
    for cells, start in parts:
        values = as_floating(cells).values
        values = values if rows is None else values[rows[start : start + len(values)]]
        values = values[~numpy.isnan(values)]
        count += len(values)
        if wish.value == "median":
            kept.append(values)
            if 24 * count > memory:
                raise FileFault(f"the median of `{column}` needs more memory than there is", "write `mean`")
        elif len(values):
            total = numpy.cumsum(numpy.concatenate([[total], values]))[-1]
    if not count:
        message = f"the column `{column}` of {table.array.path.name} holds no number to take the {wish.value} of"
        raise FileFault(message, "write a number")
    result = float(numpy.median(numpy.concatenate(kept)) if wish.value == "median" else total / count)
    if not numpy.isfinite(result):
        message = f"the {wish.value} of the column `{column}` of {table.array.path.name} is {result}"
        raise FileFault(message, "write a number")
    return result
