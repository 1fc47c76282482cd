"""The part files of a run.

Invariant: at any instant, also after a kill, the files in `rows/` hold every row that is on disk exactly once, for
any reader that simply reads all of them. The last part is rewritten under its own name by an atomic rename, each time
longer; once it is large enough it is never touched again and the next name begins. So nothing is left to merge at the
end, which could not be done without an instant at which such a reader sees a row twice or not at all.
Temporary files stand in the folder above, so `rows/` never holds anything but whole parts.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow

from runner.record.directory import write_atomically
from runner.record.rows.arrow import schema_of, table_of
from runner.record.rows.batch import ROW_BYTES, Batch, merge
from runner.record.rows.parquet import encode
from runner.record.rows.part_digests import digest_of, read_digests, write_digests
from runner.record.rows.storage import StoredColumn
from runner.safe_files import Folder

REWRITE_RATIO = 20
"""After a rewrite of the unfinished part, the next waits this many times as long as it took: at most 5% of one core."""


PART_ROWS = 1 << 16
"""A part is finished at so many rows, however small: encoding it takes memory by the row."""

FLUSHED_BYTES = 1 << 20
"""The size in memory at which a flush finishes a part rather than writing it again with the next rows."""

TABLE_BYTES = 2 << 20
"""Batches are converted together once they take as much: Arrow needs less than Python, and one call less than many."""


class PartWriter:
    """Collects batches into the unfinished part and writes it when it is due or full.

    Args:
        folder: `rows/`.
        parts: how many are there already, of a run that goes on; they are not touched.
        part_bytes: the size in memory at which a part is finished, unless it has `PART_ROWS` before.
        interval: seconds from one writing to the next, longer where writing takes long.
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
        self._digest: str | None = None  # of the unfinished part, as it is on disk
        self._digests = _digests_before(folder, parts)
        self._tables: list[pyarrow.Table] = []  # the unfinished part
        self._batches: list[Batch] = []  # its last rows, not converted yet
        self._batched_bytes = 0
        self._bytes = 0
        self._rows = 0
        self._rows_written = 0
        self._due = time.monotonic() + interval

    def seconds_left(self) -> float:
        """Until the unfinished part is due; not above zero when it is."""
        return self._due - time.monotonic()

    def add(self, batch: Batch) -> None:
        """Append rows; the part is written if that makes it full."""
        self._batches.append(batch)
        self._batched_bytes += batch.bytes
        if self._batched_bytes >= TABLE_BYTES:
            self._convert()
        self._rows += len(batch.numbers)
        if self._bytes + self._batched_bytes >= self._part_bytes or self._rows >= PART_ROWS:
            self.write()
            self._finish(synced=True)

    def flush(self) -> None:
        """Put every row on disk now; a part that is not small is finished, so that many flushes cost no more than rows.

        Raises:
            OSError: the disk holds what it held before.
        """
        self.write()
        if self._bytes >= FLUSHED_BYTES:
            self._finish(synced=True)

    def close(self) -> None:
        """Put every row on disk, and finish the part.

        Raises:
            OSError: the disk holds what it held before.
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
        """Put the unfinished part on disk, if it has rows that are not there.

        Raises:
            OSError: the disk holds what it held before.
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
    """Those of the parts that are there already; a run that was killed has not digested its last one."""
    if not parts:
        return {}
    found = read_digests(folder.parent)
    with Folder(folder.parent) as run, run.folder(folder.name) as rows:
        for name in rows.names(".parquet")[:parts]:
            if name not in found:
                with rows.open(name) as file:
                    found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
