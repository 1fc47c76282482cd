"""Writes rows to Parquet on a thread of its own, and limits the bytes that wait for it."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from runner.engine.rows import Row, Rows
from runner.errors import Problem, RunError
from runner.plan.estimates import PART_BYTES, QUEUE_BYTES
from runner.plan.rows.columns import Column
from runner.record.directory import ROWS_FOLDER
from runner.record.rows.batch import Batch, Sent, blank_of, pack, pack_together, send
from runner.record.rows.storage import stored_column
from runner.record.rows.transfer import Direct, Transfer
from runner.text import steprun_command

if TYPE_CHECKING:
    from runner.record.rows.parts import PartWriter

MIB = 1 << 20
SWITCH_INTERVAL = 1e-4
"""Python's switch interval in seconds during a run; at the default, 5 ms, a step may wait that long for the writer."""


class RowWriter:
    """Writes rows to `directory/rows/`; use it in a `with` statement or call `close`.

    `write` appends the row to a list. When a batch is full, the calling thread stacks its rows and queues them.
    The writer thread waits for tensors from a device, converts them, and writes a part. Every row is on disk
    `interval` seconds after `write`, plus the time to write it, even if no further rows follow.

    Args:
        columns: the columns to record, found by name in each row's layout.
        batch_rows, batch_bytes: the size of a full batch; the first of the two limits applies.
        queue_bytes: `write` waits while the queue is larger than this.
        part_bytes: the size of a finished part in memory.
        parts, rows: the numbers of existing parts and rows of a resumed run.
        transfer: copies rows from the run's device.
        opening: called on a thread of its own, to write files that must be on disk before any row; the writer thread
            waits for its end.
    """

    def __init__(
        self,
        directory: Path,
        columns: Sequence[Column],
        *,
        batch_rows: int = 128,
        batch_bytes: int = 16 * MIB,
        queue_bytes: int = QUEUE_BYTES,
        part_bytes: int = PART_BYTES,
        interval: float = 2.0,
        parts: int = 0,
        rows: int = 0,
        transfer: Transfer | None = None,
        opening: Callable[[], None] | None = None,
    ) -> None:
        self._folder = directory / ROWS_FOLDER
        self._columns = [stored_column(column) for column in columns]
        self._blanks = [blank_of(column) for column in self._columns]
        self._batch_rows = max(1, min(batch_rows, batch_bytes // max(1, sum(column.bytes for column in self._columns))))
        self._queue_bytes = queue_bytes
        self._wake_bytes = min(batch_bytes // 2, queue_bytes)  # a batch of large rows is rarely full
        self._part_bytes = part_bytes
        self._interval = interval
        self._existing_parts = parts
        self._existing_rows = rows
        self._transfer = transfer or Direct()
        self._opening = opening or (lambda: None)

        self._limit = 1  # number of pending rows at which `write` queues them; the first row starts the thread
        self._pending: list[Row] = []
        self._draining = threading.Lock()  # held to take rows out of `_pending`; appending needs no lock
        self._changed = threading.Condition()
        self._queue: deque[Sent] = deque()
        self._queued_bytes = 0
        self._closing = False
        self._flushing = False  # a `flush` waits for the disk
        self._error: BaseException | None = None
        self._opening_error: BaseException | None = None
        self._parts: PartWriter | None = None
        self._thread: threading.Thread | None = None
        self._switch_interval = sys.getswitchinterval()

    @property
    def rows_on_disk(self) -> int:
        return self._parts.rows_on_disk if self._parts else 0

    # --- on the computing thread

    def write(self, row: Row) -> None:
        """Record a row; its tensors must not be written afterwards.

        Raises:
            RunError: an earlier row could not be written.
        """
        self._pending.append(row)
        if len(self._pending) >= self._limit:
            self._hand_over()

    def write_together(self, rows: Rows) -> None:
        """Record rows of one block; its tensors must not be written afterwards.

        Raises:
            RunError: an earlier row could not be written.
        """
        if self._pending or self._thread is None:
            self._hand_over()
        self._raise_error()
        self._enqueue(self._sent(pack_together(rows, self._columns, self._blanks)), 0)

    def flush(self) -> None:
        """Wait until every row so far is on disk.

        Raises:
            RunError: some rows could not be written.
        """
        if self._pending:
            self._hand_over()
        if self._thread is not None:
            with self._changed:
                self._flushing = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: not self._flushing or self._error is not None)
        self._raise_error()

    def end(self) -> None:
        """Start to write the last rows, without waiting for the disk. No row may follow; `close` raises any fault."""
        if self._pending and self._error is None:
            with suppress(RunError):
                self._hand_over()
        if self._thread is not None:
            with self._changed:
                self._closing = True
                self._changed.notify_all()

    def close(self) -> None:
        """Wait until every row is on disk.

        Raises:
            RunError: some rows could not be written; those in the folder can be read.
        """
        try:
            if self._pending and self._error is None:
                self._hand_over()
        finally:
            self._stop()
        self._raise_error()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        try:
            self.close()
        except RunError as second:
            if not isinstance(error, RunError):
                error.add_note(str(second))

    def _hand_over(self) -> None:
        self._raise_error()
        if self._thread is None:
            self._start()
        with self._draining:
            rows = self._pending[:]
            if rows:
                self._enqueue(self._sent(self._packed(rows)), len(rows))
        self._raise_error()

    def _packed(self, rows: Sequence[Row]) -> Batch:
        return pack(rows, self._columns, self._blanks)

    def _sent(self, batch: Batch) -> Sent:
        return send(batch, self._transfer)

    def _enqueue(self, sent: Sent, rows: int) -> None:
        size = sent.batch.bytes
        with self._changed:
            while self._queue and self._queued_bytes + size > self._queue_bytes and self._error is None:
                self._changed.notify_all()
                self._changed.wait()
            self._queued_bytes += size
            del self._pending[:rows]  # first: an interrupt before the next line then loses rows and doubles none
            self._queue.append(sent)
            if self._queued_bytes >= self._wake_bytes:
                self._changed.notify_all()

    def _start(self) -> None:
        opening = threading.Thread(target=self._open, name="steprun-opening", daemon=True)
        opening.start()  # the disk works while pyarrow is imported
        from runner.record.rows.parts import PartWriter  # imports pyarrow, which takes longer on the writer thread

        self._parts = PartWriter(self._folder, self._columns, self._part_bytes, self._interval, self._existing_parts)
        self._limit = self._batch_rows
        sys.setswitchinterval(min(SWITCH_INTERVAL, self._switch_interval))
        self._thread = threading.Thread(target=self._run, args=(self._parts, opening), name="steprun-rows", daemon=True)
        self._thread.start()

    def _stop(self) -> None:
        if self._thread is None:
            try:
                self._opening()
            except OSError as error:
                self._error = error
            return
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        sys.setswitchinterval(self._switch_interval)

    def _raise_error(self) -> None:
        if self._error is None:
            return
        if not isinstance(self._error, OSError):
            raise self._error
        rows = self._existing_rows + self.rows_on_disk
        there = "1 row is" if rows == 1 else f"{rows:,} rows are"
        resumed = f"`{steprun_command('resume', self._folder.parent)}` goes on"
        raise RunError(
            Problem(
                f"cannot write rows to {self._folder}: {self._error.strerror or self._error}",
                hint=f"{there} on disk and readable; free space, and {resumed}, or log less",
            )
        ) from self._error

    # --- on the writer thread

    def _open(self) -> None:
        try:
            self._opening()
        except BaseException as error:  # raised again on the writer thread
            self._opening_error = error

    def _run(self, parts: PartWriter, opening: threading.Thread) -> None:
        try:
            opening.join()
            if self._opening_error is not None:
                raise self._opening_error
            self._transfer.attach()
            self._write_parts(parts)
        except BaseException as error:  # raised again on the other thread
            with self._changed:
                self._error = error
                self._limit = 1  # so that the next row raises it
                self._changed.notify_all()

    def _write_parts(self, parts: PartWriter) -> None:
        while not self._closing or self._queue:  # in this order: the queue does not grow after closing
            sent = self._take(parts) or self._drain()
            if sent is not None:
                parts.add(sent.landed())
            if not self._queue and self._flushing:
                parts.flush()
                self._flushed()
            elif not self._queue and parts.seconds_left() <= 0:
                parts.write()
        parts.close()

    def _flushed(self) -> None:
        with self._changed:
            self._flushing = False
            self._changed.notify_all()

    def _take(self, parts: PartWriter) -> Sent | None:
        """Wait for the next batch; None if the part is due, or if the writer is flushing or closing."""
        with self._changed:
            while not (self._queue or self._closing or self._flushing) and parts.seconds_left() > 0:
                self._changed.wait(parts.seconds_left())
            if not self._queue:
                return None
            sent = self._queue.popleft()
            self._queued_bytes -= sent.batch.bytes
            self._changed.notify_all()
            return sent

    def _drain(self) -> Sent | None:
        """Take the pending rows before their batch is full, because the part is due; None if there is none to take."""
        if not self._draining.acquire(blocking=False):
            return None  # the computing thread is sending a batch
        try:
            if self._queue:
                return None  # the queue has earlier rows
            rows = self._pending[:]
            sent = self._sent(self._packed(rows)) if rows else None
            del self._pending[: len(rows)]  # more rows may have been appended since
            return sent
        finally:
            self._draining.release()
