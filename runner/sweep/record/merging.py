"""Merges small part files of a sweep, so that it has some dozens of files whatever the number of points.

A merged part appears before its sources disappear. So no row is ever missing: if a kill leaves both, readers take each
point from the newest part that has it, and the next merge removes the others.

Before a point runs again, its rows and weights disappear, so that none of them is read beside those of the new run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy
import pyarrow

from runner.record.directory import write_atomically
from runner.record.rows.arrow import bits_of, columns_of
from runner.record.rows.parquet import encode
from runner.record.rows.storage import stored_column
from runner.record.rows.tensors import integers_in
from runner.sweep.points.outcome import Outcome, to_json
from runner.sweep.record.part_files import OUTCOMES, ROWS_FOLDER, WEIGHTS_FOLDER
from runner.sweep.record.parts import outcomes_in, outcomes_on_disk, part_paths, read_part
from runner.sweep.record.seals import sealed

MOST_PARTS = 24
"""The number of parts of one schema from which they are merged."""

LARGEST_MERGED = 64 << 20
"""The most bytes of a merged part; larger parts are left alone."""


def merge_parts(directory: Path, take_number: Callable[[], int]) -> None:
    """Merge the small parts of each schema that has many.

    Args:
        take_number: returns the number of a merged part, which no other part has.
    Raises:
        OSError: a file cannot be written; no row is lost.
    """
    groups = {folder: list(_groups(directory, folder)) for folder in (WEIGHTS_FOLDER, ROWS_FOLDER)}
    if not any(groups.values()):
        return
    firsts = _firsts(directory)
    for group in groups[WEIGHTS_FOLDER]:
        _merge(group, take_number(), {})
    for group in groups[ROWS_FOLDER]:
        _merge(group, take_number(), firsts)


def _groups(directory: Path, folder: str) -> Iterator[list[Path]]:
    """Yields lists of parts of one schema to merge."""
    by_schema: dict[Path, list[Path]] = {}
    for path in part_paths(directory, folder):
        by_schema.setdefault(path.parent, []).append(path)
    for paths in by_schema.values():
        if len(paths) < MOST_PARTS:
            continue
        group: list[Path] = []
        size = 0
        for path in paths:
            own = path.stat().st_size
            if size + own > LARGEST_MERGED:
                if len(group) > 1:
                    break
                group, size = [], 0  # a part that is large already is left alone
            if own <= LARGEST_MERGED:
                group.append(path)
                size += own
        if len(group) > 1:
            yield group


def _merge(paths: list[Path], number: int, firsts: Mapping[tuple[str, int], int]) -> None:
    """Merge parts of one schema.

    Args:
        firsts: the number of the first row of each point and rung. The rows of the rung before end there.
    """
    tables, outcomes = list[pyarrow.Table](), list[Outcome]()
    known: set[tuple[int, int]] = set()
    for path in reversed(paths):
        new = [outcome for outcome in outcomes_in(path) if (outcome.index, outcome.rung) not in known]
        known |= {(outcome.index, outcome.rung) for outcome in new}
        outcomes[:0] = new
        tables.insert(0, _rows_of(_table_of(path), new, _ends(new, firsts)))
    _write(paths[0].parent, number, tables, outcomes)
    for path in paths:
        path.unlink()


def remove_superseded(directory: Path, again: Mapping[str, int], take_number: Callable[[], int]) -> None:
    """Remove the rows and the weights of points that run again.

    Args:
        again: the first rung that runs again, by identity.
        take_number: returns the number of a part, which no other part has.
    Raises:
        OSError: a file cannot be written; no row of another point is lost.
    """
    firsts = _firsts(directory)
    stays = {key: first for key, first in firsts.items() if not _is_again(key, again)}
    for folder in (ROWS_FOLDER, WEIGHTS_FOLDER):
        for path in list(part_paths(directory, folder)):
            outcomes = outcomes_in(path)
            keys = [(outcome.identity, outcome.rung) for outcome in outcomes]
            kept = [outcome for key, outcome in zip(keys, outcomes, strict=True) if not _is_again(key, again)]
            if len(kept) == len(outcomes):
                continue
            if kept:
                table = _table_of(path)
                here = {key: firsts[key] for key in keys if key in firsts}  # their rows are in this part
                ends = _ends(kept, stays | here) if folder == ROWS_FOLDER else _ends_of_weights(table, kept)
                _write(path.parent, take_number(), [_rows_of(table, kept, ends)], kept)
            path.unlink()


def _is_again(key: tuple[str, int], again: Mapping[str, int]) -> bool:
    identity, rung = key
    return identity in again and rung >= again[identity]


def _firsts(directory: Path) -> dict[tuple[str, int], int]:
    """The number of the first row of each point and rung, but the first."""
    rungs = (outcome for points in outcomes_on_disk(directory).values() for outcome in points)
    return {(outcome.identity, outcome.rung): outcome.first for outcome in rungs if outcome.rung}


def _table_of(path: Path) -> pyarrow.Table:
    return read_part(path, lambda file: file.read(use_threads=False))


def _write(folder: Path, number: int, tables: Sequence[pyarrow.Table], outcomes: Sequence[Outcome]) -> None:
    """Write a part."""
    columns = [stored_column(column) for column in columns_of(tables[0].schema)]
    table = pyarrow.concat_tables(tables).replace_schema_metadata({OUTCOMES: to_json(outcomes)})
    content = sealed(encode([table], columns), [outcome.index for outcome in outcomes])
    write_atomically(folder / f"{number:06}-0.parquet", content, through=folder.parent)


def _ends(outcomes: Sequence[Outcome], firsts: Mapping[tuple[str, int], int]) -> dict[int, int]:
    """For each point, the number of the row from which the next rung has computed its rows again."""
    last = {each.index: each for each in sorted(outcomes, key=lambda each: each.rung)}  # earlier rungs end in it
    return {index: firsts[key] for index, each in last.items() if (key := (each.identity, each.rung + 1)) in firsts}


def _ends_of_weights(table: pyarrow.Table, kept: Sequence[Outcome]) -> dict[int, int]:
    """For each point, the number of the row with the weights of the first rung that is not kept."""
    counts = Counter(outcome.index for outcome in kept)
    rows: dict[int, list[int]] = {}
    for point, row in zip(table.column("point").to_pylist(), table.column("row").to_pylist(), strict=True):
        rows.setdefault(point, []).append(row)
    return {point: sorted(rows[point])[count] for point, count in counts.items() if count < len(rows[point])}


def _rows_of(table: pyarrow.Table, outcomes: Sequence[Outcome], ends: Mapping[int, int]) -> pyarrow.Table:
    """The rows of some outcomes.

    Args:
        ends: the number of the row from which a point has none, by index.
    """
    points, rows = (integers_in(table, name) for name in ("point", "row"))
    wanted = numpy.isin(points, numpy.array([outcome.index for outcome in outcomes], dtype=numpy.int64))
    if ends:
        indexes, limits = (numpy.array(each, dtype=numpy.int64) for each in zip(*sorted(ends.items()), strict=True))
        places = numpy.minimum(numpy.searchsorted(indexes, points), len(indexes) - 1)
        wanted &= (indexes[places] != points) | (rows < limits[places])
    mask = pyarrow.Array.from_buffers(pyarrow.bool_(), len(wanted), [None, bits_of(wanted)])
    return table.filter(mask).replace_schema_metadata(None)
