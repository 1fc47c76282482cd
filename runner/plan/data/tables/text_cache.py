"""Text tables that are read once, although several arrays read them, and both planning and the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from runner.config import Dialect
from runner.plan.data.sandbox import FileFault
from runner.plan.data.tables.cells import Numbers, Words
from runner.plan.data.tables.columns import Columns, chosen_of, matching
from runner.plan.data.tables.conversions import Reading
from runner.plan.data.tables.text_selection import TextColumns, TextSelection, numbers_of_columns
from runner.plan.data.tables.text_table import Found, Key, column_names, read_columns

CACHE_BYTES = 256 << 20
"""Maximum bytes of all cached columns together; a larger file is read for each array."""

_Identity = tuple[tuple[tuple[Path, int, int], ...], Dialect]


@dataclass(slots=True)
class ReadTables:
    """The columns of text tables that were read, by file and dialect, and what else a config reads of any table."""

    wanted: tuple[Key, ...] = ()  # names or globs
    columns: dict[_Identity, dict[Key, Found]] = field(default_factory=dict)
    names: dict[_Identity, tuple[str, ...]] = field(default_factory=dict)

    def clear(self) -> None:
        self.columns.clear()
        self.names.clear()

    @property
    def bytes(self) -> int:
        return sum(_bytes_of(found) for columns in self.columns.values() for found in columns.values())


_current: ReadTables | None = None


@contextmanager
def text_read_once(wanted: Iterable[Key], before: ReadTables | None = None) -> Iterator[ReadTables]:
    """Context manager that reads each text table only once. Provides what was read, for a later use as `before`.

    Args:
        wanted: all columns that may be read from any table: names or globs, and whether as text.
        before: what was read before.
    """
    global _current
    outer = _current
    known = ReadTables() if before is None else before
    _current = ReadTables(tuple(dict.fromkeys(wanted)), known.columns, known.names)
    try:
        yield _current
    finally:
        _current = outer


def _identity(paths: Sequence[Path], dialect: Dialect) -> _Identity:
    statuses = [path.stat() for path in paths]
    return (
        tuple((path, each.st_mtime_ns, each.st_size) for path, each in zip(paths, statuses, strict=True)),
        dialect,
    )


def text_names(paths: Sequence[Path], dialect: Dialect) -> tuple[str, ...]:
    """The names of the columns of text tables, from the cache if they are there. Raises as `column_names`."""
    if _current is None:
        return column_names(paths, dialect)
    identity = _identity(paths, dialect)
    if identity not in _current.names:
        _current.names[identity] = column_names(paths, dialect)
    return _current.names[identity]


def text_columns(paths: Sequence[Path], dialect: Dialect, keys: Sequence[Key], limit: int) -> dict[Key, Found]:
    """Whole columns of text tables, from the cache if they are there. Raises as `read_columns`."""
    identity = _identity(paths, dialect)
    known = {} if _current is None else _current.columns.get(identity, {})
    absent = [key for key in keys if key not in known]
    if not absent:
        return {key: known[key] for key in keys}
    others: list[Key] = []
    if _current is not None and sum(size for _, _, size in identity[0]) <= CACHE_BYTES:
        others = [key for key in _others(_current.wanted, text_names(paths, dialect)) if key not in known]
    wanted = list(dict.fromkeys((*absent, *others)))
    try:
        found = read_columns(paths, dialect, wanted, limit)
    except FileFault:
        if len(wanted) == len(absent):
            raise
        found = read_columns(paths, dialect, absent, limit)  # without the others, memory may suffice
    if _current is not None and _current.bytes + sum(map(_bytes_of, found.values())) <= CACHE_BYTES:
        _current.columns.setdefault(identity, {}).update(found)
    return {key: found[key] if key in found else known[key] for key in keys}


def _others(wanted: Sequence[Key], names: Sequence[str]) -> list[Key]:
    """The keys of a config that a table with these columns has."""
    there = {name for name, count in Counter(names).items() if count == 1}
    return [(name, text) for pattern, text in wanted for name in matching(pattern, names, there)]


def _bytes_of(found: Found) -> int:
    match found:
        case Numbers(values, missing):
            return values.nbytes + (0 if missing is None else missing.nbytes)
        case Words(codes, words):
            return codes.nbytes + 100 * len(words)
    return 0


def selection_of(paths: tuple[Path, ...], columns: Columns, reading: Reading) -> TextSelection:
    """A selection of columns of text tables, with its names.

    Raises:
        FileFault: a column is missing, or several have its name.
    """
    return TextSelection(paths, columns, chosen_of(columns, text_names(paths, reading.dialect), paths[0].name), reading)


def read_selection(selection: TextSelection, limit: int) -> TextColumns:
    """The numbers of a selection of columns of text tables. Raises as `read_columns` and `numbers_of_columns`."""
    found = text_columns(selection.paths, selection.reading.dialect, selection.keys(), limit)
    return numbers_of_columns(selection, found)
