"""Copies the first rows of a run into the directory of another run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runner.plan.rows.columns import Column
from runner.record.directory import ROWS_FOLDER, write_atomically
from runner.record.rows.parquet import encode
from runner.record.rows.part_digests import digest_of, write_digests
from runner.record.rows.part_reading import Part
from runner.record.rows.storage import stored_column


def copy_rows(parts: Sequence[Part], rows: int, columns: Sequence[Column], directory: Path) -> int:
    """Copy the first `rows` rows of some parts to `directory/rows/`; returns the number of parts written.

    One part is in memory at a time.

    Raises:
        RunError: a part is damaged.
        OSError: a part cannot be written.
    """
    stored = [stored_column(column) for column in columns]
    digests: dict[str, str] = {}
    for part in parts:
        if rows <= 0:
            break
        table = part.read(lambda table, count=rows: table.slice(0, count))  # type: ignore[misc]
        content = memoryview(encode([table], stored))
        name = f"{len(digests):05}.parquet"
        write_atomically(directory / ROWS_FOLDER / name, content, through=directory)
        digests[name] = digest_of(content)
        rows -= len(table)
    write_digests(directory, digests, synced=True)
    return len(digests)
