from __future__ import annotations

import errno
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch

from runner.errors import RunError
from runner.plan.rows.columns import Column
from runner.record.rows import parts as parts_module
from runner.record.rows.batch import ROW_BYTES
from runner.record.rows.parts import PartWriter
from runner.record.rows.writer import RowWriter
from tests.record.building import LINEAR, linear_rows, rows_of, run_directory
from tests.tables import over

PATIENCE = 60
"""Seconds after which a wait for another thread is a failure."""


def numbers(folder: Path) -> list[int]:
    parts = sorted((folder / "rows").iterdir())
    return [number for part in parts for number in pyarrow.parquet.read_table(part)["row"].to_pylist()]


def failing(monkeypatch: pytest.MonkeyPatch, after: int, error: BaseException) -> None:
    """Let the disk fill up after so many writings."""
    write = parts_module.write_atomically
    written = 0

    def write_until(*arguments: Any, **options: Any) -> None:
        nonlocal written
        written += 1
        if written > after:
            raise error
        write(*arguments, **options)

    monkeypatch.setattr(parts_module, "write_atomically", write_until)


DISK_FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@over("count", [1, 2, 127, 128, 129, 1000])
@over("part_bytes", [1, 5000, 1 << 20])
def test_every_row_is_written_once_and_in_order(tmp_path: Path, count: int, part_bytes: int) -> None:
    with RowWriter(run_directory(tmp_path), LINEAR, part_bytes=part_bytes) as writer:
        for row in linear_rows(count):
            writer.write(row)
    assert numbers(tmp_path) == list(range(count))
    assert writer.rows_on_disk == count


def test_a_writer_without_rows_leaves_no_file(tmp_path: Path) -> None:
    with RowWriter(run_directory(tmp_path), LINEAR) as writer:
        pass
    assert list((tmp_path / "rows").iterdir()) == []
    assert writer.rows_on_disk == 0


def test_only_the_columns_asked_for_are_written(tmp_path: Path) -> None:
    with RowWriter(run_directory(tmp_path), [LINEAR[2], LINEAR[0]]) as writer:
        for row in linear_rows(3):
            writer.write(row)
    table = pyarrow.parquet.read_table(tmp_path / "rows" / "00000.parquet")
    assert table.column_names[4:] == ["x.grad", "f"]
    assert table["f"].to_pylist() == [None, [10.0], [20.0]]


def test_rows_reach_the_disk_though_no_more_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_disk = threading.Event()
    write = parts_module.write_atomically

    def write_and_tell(*arguments: Any, **options: Any) -> None:
        write(*arguments, **options)
        if numbers(tmp_path) == [0, 1, 2]:
            on_disk.set()

    monkeypatch.setattr(parts_module, "write_atomically", write_and_tell)
    with RowWriter(run_directory(tmp_path), LINEAR, interval=0.01) as writer:
        for row in linear_rows(3):
            writer.write(row)
        assert on_disk.wait(PATIENCE)


def test_rows_taken_by_either_thread_stay_in_order(tmp_path: Path) -> None:
    with RowWriter(run_directory(tmp_path), LINEAR, interval=0.0, batch_rows=7) as writer:
        for row in linear_rows(2000):
            writer.write(row)
    assert numbers(tmp_path) == list(range(2000))


def test_the_queue_is_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer thread stalls until the queue is full; the other thread must not put more into it."""
    columns = [Column("w", "weight", torch.float32, (4, 1024))]
    row_bytes = 4 * 4096 + ROW_BYTES
    limit = 8 * row_bytes
    waiting = []
    done = threading.Event()
    add = PartWriter.add

    def full_or_done() -> bool:
        return writer._queued_bytes + row_bytes > limit or done.is_set()

    def add_slowly(self: PartWriter, batch: Any) -> None:
        with writer._changed:
            assert writer._changed.wait_for(full_or_done, PATIENCE)
            waiting.append(writer._queued_bytes)
        add(self, batch)

    monkeypatch.setattr(PartWriter, "add", add_slowly)
    writer = RowWriter(run_directory(tmp_path), columns, batch_rows=1, batch_bytes=1, queue_bytes=limit)
    rows = rows_of(columns, [[torch.full((4, 1024), float(number))] for number in range(40)])
    for row in rows:
        writer.write(row)
    done.set()
    with writer._changed:
        writer._changed.notify_all()
    writer.close()
    assert max(waiting) == limit
    assert numbers(tmp_path) == list(range(40))


def test_every_batch_of_large_rows_is_taken_when_it_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch holds whole rows, and so stays below what it may hold."""
    arrived = threading.Semaphore(0)
    add = PartWriter.add

    def added(self: PartWriter, batch: Any) -> None:
        add(self, batch)
        for _ in range(batch.rows):
            arrived.release()

    monkeypatch.setattr(PartWriter, "add", added)
    columns = [Column("w", "weight", torch.float32, (1 << 13,))]  # 32 KiB
    rows = rows_of(columns, [(torch.zeros(1 << 13),)] * 10)
    with RowWriter(run_directory(tmp_path), columns, batch_bytes=100 << 10, interval=1e9) as writer:
        for row in rows[:4]:  # the first starts the thread, and three are a batch
            writer.write(row)
        for row in rows[4:7]:
            writer.write(row)
        assert all(arrived.acquire(timeout=PATIENCE) for _ in range(7)), "the last batch waits for another"
        for row in rows[7:]:
            writer.write(row)
    assert numbers(tmp_path) == list(range(10))


def test_one_row_larger_than_the_queue_passes(tmp_path: Path) -> None:
    columns = [Column("w", "weight", torch.float32, (4097,))]
    with RowWriter(run_directory(tmp_path), columns, queue_bytes=100) as writer:
        for row in rows_of(columns, [[torch.zeros(4097)]] * 5):
            writer.write(row)
    assert numbers(tmp_path) == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_a_full_disk_ends_the_run_and_what_was_written_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, after=3, error=DISK_FULL)
    writer = RowWriter(run_directory(tmp_path), LINEAR, batch_rows=4, part_bytes=1)
    message = (
        r"cannot write rows to .*rows: No space left on device\n *= \d+ rows? (is|are) on disk and readable; free space"
    )

    def write_until_it_fails() -> None:
        for row in linear_rows(1_000_000):
            writer.write(row)

    with pytest.raises(RunError, match=message):
        write_until_it_fails()
    with pytest.raises(RunError, match=message):
        writer.close()
    assert numbers(tmp_path) == list(range(writer.rows_on_disk))
    assert writer.rows_on_disk >= 3


def test_a_disk_that_is_full_at_the_end_is_an_error_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, after=0, error=DISK_FULL)
    writer = RowWriter(run_directory(tmp_path), LINEAR)
    for row in linear_rows(5):
        writer.write(row)
    with pytest.raises(RunError, match="No space left on device"):
        writer.close()
    assert list((tmp_path / "rows").iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]


def test_a_waiting_thread_learns_that_the_writer_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = [Column("w", "weight", torch.float32, (4097,))]
    failing(monkeypatch, after=0, error=DISK_FULL)
    writer = RowWriter(run_directory(tmp_path), columns, queue_bytes=1, part_bytes=1)

    def write_all() -> None:
        for row in rows_of(columns, [[torch.zeros(4097)]] * 1000):
            writer.write(row)

    with pytest.raises(RunError, match="No space left on device"):
        write_all()
    with pytest.raises(RunError, match="No space left on device"):
        writer.close()


def test_a_fault_of_ours_on_the_writer_thread_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, after=0, error=ZeroDivisionError("a bug"))
    writer = RowWriter(run_directory(tmp_path), LINEAR)
    writer.write(next(linear_rows(1)))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        writer.close()


def test_rows_before_an_exception_are_written(tmp_path: Path) -> None:
    def fail_at(number: int) -> None:
        with RowWriter(run_directory(tmp_path), LINEAR) as writer:
            for row in linear_rows(1000):
                if row.number == number:
                    raise ValueError("a step failed")
                writer.write(row)

    with pytest.raises(ValueError, match="a step failed"):
        fail_at(300)
    assert numbers(tmp_path) == list(range(300))


def test_an_exception_is_not_replaced_by_that_of_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, after=0, error=DISK_FULL)

    def fail() -> None:
        with RowWriter(run_directory(tmp_path), LINEAR) as writer:
            writer.write(next(linear_rows(1)))
            raise ValueError("a step failed")

    with pytest.raises(ValueError, match="a step failed") as caught:
        fail()
    assert "No space left on device" in caught.value.__notes__[0]


def test_the_switch_interval_is_restored(tmp_path: Path) -> None:
    before = sys.getswitchinterval()
    with RowWriter(run_directory(tmp_path), LINEAR) as writer:
        writer.write(next(linear_rows(1)))
        assert sys.getswitchinterval() < before
    assert sys.getswitchinterval() == before


def test_the_writer_thread_ends_with_the_writer(tmp_path: Path) -> None:
    with RowWriter(run_directory(tmp_path), LINEAR) as writer:
        writer.write(next(linear_rows(1)))
        assert "steprun-rows" in [thread.name for thread in threading.enumerate()]
    assert "steprun-rows" not in [thread.name for thread in threading.enumerate()]
