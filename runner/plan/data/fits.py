"""What sources take from their rows before a run: sorted classes, and the numbers that replace missing ones.

The first source that asks for it gives it to the others. It becomes part of the config: nothing is fitted again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from runner.config import Config, rewritten
from runner.faults import ConfigPath, Faults, PlacedFault
from runner.plan.data.files import ArrayFile, FileFault
from runner.plan.data.readings import SourceTable, Wish, source_table
from runner.plan.data.tables.cells import BLANK, Array, Numbers, Words
from runner.plan.data.tables.columns import names_in
from runner.plan.data.tables.conversions import Class, as_floating, integer_of
from runner.plan.data.tables.parquet import column_parts
from runner.plan.data.tables.parquet_cells import numbers_in, words_in
from runner.plan.data.tables.text_cache import text_columns

MOST_CLASSES = 10_000
"""Maximum classes of one column."""

Selected = Callable[[SourceTable], NDArray[numpy.bool_] | None]
"""Returns which rows a source selects, or None for all."""

_FITTED: Mapping[str, tuple[str, ...]] = {
    "classes": ("sorted",),
    "one_hot": ("sorted",),
    "fill": ("mean", "median"),
}


def fitted(
    config: Config, faults: Faults, allowed: Iterable[Path], memory: int, selected: Selected = lambda table: None
) -> Config:
    """The config with the classes and the numbers that its sources take from their rows.

    Args:
        allowed: additional folders from which reading is allowed.
        memory: available bytes.
        selected: the rows of each source.
    """
    asking = [name for name, declared in config.data.items() if any(_asked(declared))]
    if not asking:
        return config
    folders = (*map(Path, faults.document.sandbox.folders), *allowed)
    known: dict[tuple[str, Any, str], Any] = {}
    values: dict[ConfigPath, dict[str, Any]] = {}
    for name in asking:
        try:
            table = source_table(name, config.data[name], faults.document, folders, memory)
            if table is not None:
                _fit(table, known, values, selected, memory)
        except PlacedFault as fault:
            faults.problems.append(fault.problem(faults.document))
    return config if faults.problems else rewritten(config, values)


def _asked(declared: Any) -> Iterator[bool]:
    for key, words in _FITTED.items():
        yield from (isinstance(value, str) and value in words for value in getattr(declared, key).values())


def _fit(
    table: SourceTable,
    known: dict[tuple[str, Any, str], Any],
    values: dict[ConfigPath, dict[str, Any]],
    selected: Selected,
    memory: int,
) -> None:
    rows: list[NDArray[numpy.bool_] | None] = []
    for column, wishes in table.wishes.items():
        for wish in wishes:
            if not isinstance(wish.value, str) or wish.value not in _FITTED.get(wish.key, ()):
                continue
            alone = wish.written in table.columns and len(names_in(table.columns[wish.written])) == 1
            identity = ("fill" if wish.key == "fill" else "classes", wish.value, wish.written if alone else column)
            if identity not in known:
                if not rows:
                    rows.append(selected(table))
                known[identity] = _fitted(table, column, wish, rows[0], memory)
            path = wish.path[:-1]
            replaced = wish.written if alone or wish.written == column else column
            values.setdefault((*path, wish.written), {})[replaced] = known[identity]


def _fitted(table: SourceTable, column: str, wish: Wish, rows: NDArray[numpy.bool_] | None, memory: int) -> Any:
    try:
        if wish.key == "fill":
            return _replacement(table, column, wish, rows, memory)
        return sorted_classes(_distinct(table.array, column, rows, memory), column, table.array.path.name)
    except FileFault as fault:
        raise PlacedFault(wish.path, fault.message, fault.hint) from fault


def sorted_classes(words: Iterable[str], column: str, file: str) -> tuple[Class, ...]:
    """The distinct texts of a column in order: by code point, or as integers if all are integers.

    Raises:
        FileFault: there are none or too many, or they are numbers with a fraction.
    """
    found = sorted(set(words) - {BLANK})
    if not found:
        raise FileFault(f"the column `{column}` of {file} holds no text", "leave it out, or list the classes")
    if len(found) > MOST_CLASSES:
        message = f"the column `{column}` of {file} holds more than {MOST_CLASSES:,} different texts"
        raise FileFault(message, "choose another column, or list the classes")
    integers = [integer_of(word) for word in found]
    if None not in integers:
        return tuple(sorted({number for number in integers if number is not None}))
    if all(map(_is_number, found)):
        shown = next(word for word, number in zip(found, integers, strict=True) if number is None)
        message = f"the column `{column}` of {file} holds numbers such as {shown}, which are no classes"
        raise FileFault(message, "read it as numbers, or list the classes")
    return tuple(found)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _distinct(array: ArrayFile, column: str, rows: NDArray[numpy.bool_] | None, memory: int) -> set[str]:
    found: set[str] = set()
    for cells, start in _word_parts(array, column, memory):
        codes = cells.codes if rows is None else cells.codes[rows[start : start + len(cells.codes)]]
        found.update(cells.words[code] for code in numpy.unique(codes).tolist())
        if len(found) > MOST_CLASSES + 1:
            break
    return found


def _word_parts(array: ArrayFile, column: str, memory: int) -> Iterator[tuple[Words, int]]:
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


def _replacement(table: SourceTable, column: str, wish: Wish, rows: NDArray[numpy.bool_] | None, memory: int) -> float:
    """The mean or the median of the numbers of a column that are there."""
    total, count = numpy.float64(0), 0
    kept: list[Array] = []
    for cells, start in _number_parts(table.array, column, memory):
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
