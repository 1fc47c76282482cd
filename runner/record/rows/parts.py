"""Writes the part files of a run.

Invariant: at any moment, even after a kill, the files in `rows/` contain each row on disk exactly once. A reader may
simply read all of them. Each write replaces the last part by a longer one, with an atomic rename. Once the part is
large enough it never changes again, and the next write starts a new part. So no parts are merged at the end: during a
merge, a reader could see a row twice or not at all.
Temporary files are in the parent folder, so `rows/` never contains anything but complete parts.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow

from runner.config.files.safe_files import Folder
from runner.plan.rows.columns import Column
from runner.record.directory import ROWS_FOLDER, write_atomically
from runner.record.rows.arrow import schema_of, table_of
from runner.record.rows.batch import ROW_BYTES, Batch, LoopLabels, merge
from runner.record.rows.parquet import encode
from runner.record.rows.part_digests import digest_of, read_digests, write_digests
from runner.record.rows.part_reading import Part
from runner.record.rows.storage import StoredColumn, stored_column

REWRITE_RATIO = 20
"""The next rewrite of the unfinished part waits this many times as long as the last one took: at most 5% of a core."""


PART_ROWS = 1 << 16
"""The most rows of a part, even if it is small: the memory for encoding grows with the rows."""

FLUSHED_BYTES = 1 << 20
"""The size in memory from which a flush finishes a part, so that later rows do not rewrite it."""

TABLE_BYTES = 2 << 20
"""The size at which batches are converted together: one call is faster than many, and Arrow takes less memory."""


class PartWriter:
    """Collects batches into the unfinished part and writes it when it is due or full.

    Args:
        folder: `rows/`.
        parts: the number of existing parts of a resumed run, which do not change.
        part_bytes: the size in memory at which a part is finished, unless it has `PART_ROWS` before.
        interval: seconds between writes; more if a write takes long.
    """

    def __init__(
        self, folder: Path, columns: Sequence[StoredColumn], part_bytes: int, interval: float, parts: int = 0
    ) -> None:
        self.rows_on_disk = 0
        self._folder = folder
        self._columns = columns
        self._schema = schema_of(columns)
        self._part_bytes = part_bytes
        self._interval = interval
        self._finished_parts = parts
        self._digest: str | None = None  # of the unfinished part on disk
        self._digests = _digests_before(folder, parts)
        self._tables: list[pyarrow.Table] = []  # the unfinished part
        self._batches: list[Batch] = []  # the last rows of the unfinished part, not converted yet
        self._batched_bytes = 0
        self._bytes = 0
        self._rows = 0
        self._rows_written = 0
        self._due = time.monotonic() + interval

    def seconds_left(self) -> float:
        """Seconds until the unfinished part is due; zero or less if it is."""
        return self._due - time.monotonic()

    def add(self, batch: Batch) -> None:
        """Append rows; write the part if it is full."""
        together = isinstance(batch.labels, LoopLabels)
        if together:
            self._convert()
        self._batches.append(batch)
        self._batched_bytes += batch.bytes
        if together or self._batched_bytes >= TABLE_BYTES:
            self._convert()
        self._rows += batch.rows
        if self._bytes + self._batched_bytes >= self._part_bytes or self._rows >= PART_ROWS:
            self.write()
            self._finish(synced=True)

    def flush(self) -> None:
        """Write every row to disk now; finish the part unless it is small, so that repeated flushes stay cheap.

        Raises:
            OSError: nothing on disk changed.
        """
        self.write()
        if self._bytes >= FLUSHED_BYTES:
            self._finish(synced=True)

    def close(self) -> None:
        """Write every row to disk, and finish the part.

        Raises:
            OSError: nothing on disk changed.
        """
        self.write()
        if self._rows:
            self._finish(synced=False)  # the manifest is written next, which makes the names durable

    def _finish(self, *, synced: bool) -> None:
        if self._digest is not None:
            self._digests[self._name] = self._digest
            write_digests(self._folder.parent, self._digests, synced=synced)
        self._digest = None
        self._finished_parts += 1
        self._tables.clear()
        self._bytes = self._rows = self._rows_written = 0

    def write(self) -> None:
        """Write the unfinished part to disk, if it has rows that are not on disk.

        Raises:
            OSError: nothing on disk changed.
        """
        began = time.monotonic()
        self._convert()
        if self._rows > self._rows_written:
            content = memoryview(encode(self._tables, self._columns))
            write_atomically(self._folder / self._name, content, through=self._folder.parent)
            self._digest = digest_of(content)
            self.rows_on_disk += self._rows - self._rows_written
            self._rows_written = self._rows
        now = time.monotonic()
        self._due = now + max(self._interval, REWRITE_RATIO * (now - began))

    @property
    def _name(self) -> str:
        return f"{self._finished_parts:05}.parquet"

    def _convert(self) -> None:
        if self._batches:
            table = table_of(merge(self._batches), self._columns, self._schema)
            self._tables.append(table)
            self._bytes += table.nbytes + ROW_BYTES * len(table)
            self._batches.clear()
            self._batched_bytes = 0


def _digests_before(folder: Path, parts: int) -> dict[str, str]:
    """The digests of the existing parts. A killed run did not write that of the last one, so it is computed here."""
    if not parts:
        return {}
    found = read_digests(folder.parent)
    with Folder(folder.parent) as run, run.folder(folder.name) as rows:
        for name in rows.names(".parquet")[:parts]:
            if name not in found:
                with rows.open(name) as file:
                    found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


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
