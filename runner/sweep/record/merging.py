"""Merges small part files of a sweep, so that it has some dozens of files whatever the number of points.

A merged part appears before its sources disappear. So no row is ever missing: if a kill leaves both, readers take each
point from the first part that has it, and the next merge removes the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow.compute

from runner.record.directory import write_atomically
from runner.record.rows.arrow import columns_of
from runner.record.rows.parquet import encode
from runner.record.rows.storage import stored_column
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
    rungs = (outcome for points in outcomes_on_disk(directory).values() for outcome in points)
    firsts = {(outcome.identity, outcome.rung): outcome.first for outcome in rungs if outcome.rung}
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
            size += path.stat().st_size
            if size > LARGEST_MERGED:
                break
            group.append(path)
        if len(group) > 1:
            yield group


def _merge(paths: list[Path], number: int, firsts: Mapping[tuple[str, int], int]) -> None:
    """Merge parts of one schema.

    Args:
        firsts: the number of the first row of each point and rung. The rows of the rung before end there.
    """
    tables, outcomes = [], list[Outcome]()
    known: set[tuple[str, int]] = set()
    for path in paths:
        new = [outcome for outcome in outcomes_in(path) if (outcome.identity, outcome.rung) not in known]
        known |= {(outcome.identity, outcome.rung) for outcome in new}
        outcomes += new
        tables += [_rows_of(read_part(path, lambda file: file.read(use_threads=False)), new, firsts)]
    columns = [stored_column(column) for column in columns_of(tables[0].schema)]
    table = pyarrow.concat_tables(tables).replace_schema_metadata({OUTCOMES: to_json(outcomes)})
    folder = paths[0].parent
    content = sealed(encode([table], columns), [outcome.index for outcome in outcomes])
    write_atomically(folder / f"{number:06}-0.parquet", content, through=folder.parent)
    for path in paths:
        path.unlink()


def _rows_of(table: pyarrow.Table, outcomes: Sequence[Outcome], firsts: Mapping[tuple[str, int], int]) -> pyarrow.Table:
    """The rows of some outcomes, without those that the next rung has computed again."""
    point, row = pyarrow.compute.field("point"), pyarrow.compute.field("row")
    last = {each.index: each for each in sorted(outcomes, key=lambda each: each.rung)}  # earlier rungs end in it
    ends = {index: firsts[key] for index, each in last.items() if (key := (each.identity, each.rung + 1)) in firsts}
    wanted = point.isin([outcome.index for outcome in outcomes])
    for index, end in ends.items():
        wanted &= (point != index) | (row < end)
    return table.filter(wanted).replace_schema_metadata(None)
