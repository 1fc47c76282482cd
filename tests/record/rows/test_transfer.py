from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy
import pyarrow.parquet
import pytest
import torch
from torch import Tensor

from runner.plan.rows.columns import Column
from runner.record.rows.batch import blank_of, pack, send
from runner.record.rows.storage import stored_column
from runner.record.rows.transfer import ALIGNMENT, KEPT_BUFFERS, LEAST_BUFFER, Direct, Staged
from runner.record.rows.writer import RowWriter
from tests.record.building import rows_of, run_directory
from tests.tables import over

PATIENCE = 60
"""Seconds after which a wait for another thread is a failure."""


class Held:
    """A lane of the CPU whose copies are done when the test says so, in the order in which they were begun."""

    kind = "cpu"

    def __init__(self) -> None:
        self.buffers: list[Tensor] = []
        self.begun: list[Sequence[tuple[Tensor, Tensor]]] = []
        self.done = 0
        self.at_once = False
        self.changed = threading.Condition()
        self.attached: list[int] = []

    def attach(self) -> None:
        self.attached.append(threading.get_ident())

    def allocate(self, size: int) -> Tensor:
        self.buffers.append(torch.full((size,), 255, dtype=torch.uint8))
        return self.buffers[-1]

    def copy(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> Callable[[], None]:
        with self.changed:
            self.begun.append(pairs)
            number = len(self.begun)
        if self.at_once:
            self.finish_all()

        def wait() -> None:
            with self.changed:
                assert self.changed.wait_for(lambda: self.done >= number, PATIENCE)

        return wait

    def finish(self, count: int = 1) -> None:
        with self.changed:
            for pairs in self.begun[self.done : self.done + count]:
                for target, source in pairs:
                    target.copy_(source)
            self.done += count
            self.changed.notify_all()

    def finish_all(self) -> None:
        """What was begun, and from now on each copy at once."""
        self.at_once = True
        self.finish(len(self.begun) - self.done)


class Failing(Held):
    """A lane whose copies all fail."""

    def copy(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> Callable[[], None]:
        def wait() -> None:
            raise RuntimeError("an illegal memory access was encountered")

        return wait


def in_buffer(buffer: Tensor, tensor: Tensor) -> bool:
    return buffer.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()


@over(
    "dtype",
    [torch.float32, torch.float64, torch.bfloat16, torch.float8_e4m3fn, torch.complex64, torch.int64, torch.bool],
)
@over("shape", [(), (0, 3), (5,), (3, 2, 7)])
def test_tensors_arrive_with_their_bits_in_memory_of_their_own(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    lane = Held()
    generator = torch.Generator().manual_seed(0)
    made = (torch.randn(shape, generator=generator, dtype=torch.float64) * 9).to(dtype)
    sent = [made, torch.arange(3, dtype=torch.int8), made.flatten()[::2]]
    handle = Staged(lane).begin(sent)
    lane.finish()
    found = handle.result()
    for tensor, expected in zip(found, sent, strict=True):
        assert tensor.dtype == expected.dtype
        assert tensor.shape == expected.shape
        assert tensor.equal(expected)
        assert not in_buffer(lane.buffers[0], tensor)


def test_tensors_in_one_buffer_are_aligned_and_do_not_overlap() -> None:
    lane = Held()
    Staged(lane).begin([torch.ones(3, dtype=torch.int8), torch.ones(5, dtype=torch.float64), torch.ones(2)])
    targets = [target for target, _ in lane.begun[0]]
    begins = [target.data_ptr() - lane.buffers[0].data_ptr() for target in targets]
    assert begins == [0, ALIGNMENT, 2 * ALIGNMENT]


def test_tensors_of_another_device_stay_what_they_are() -> None:
    lane = Held()
    elsewhere = torch.ones(2, device="meta")
    assert Staged(lane).begin([elsewhere]).result()[0] is elsewhere
    assert lane.begun == []


def test_a_result_waits_for_its_copy() -> None:
    lane = Held()
    handle = Staged(lane).begin([torch.ones(2)])
    found: list[Tensor] = []
    asking, told = threading.Event(), threading.Event()

    def ask() -> None:
        asking.set()
        found.extend(handle.result())
        told.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    assert asking.wait(PATIENCE)
    assert not told.is_set()  # the copy has not been made, so there is nothing that it could tell
    lane.finish()
    assert told.wait(PATIENCE)
    assert found[0].tolist() == [1.0, 1.0]


def test_a_buffer_is_used_again_only_after_its_result_was_taken() -> None:
    lane = Held()
    transfer = Staged(lane)
    first = transfer.begin([torch.ones(2)])
    second = transfer.begin([torch.full((2,), 2.0)])
    assert len(lane.buffers) == 2
    lane.finish(2)  # copied, and not yet taken out
    transfer.begin([torch.full((2,), 3.0)])
    assert len(lane.buffers) == 3
    kept = first.result()[0]
    fourth = transfer.begin([torch.full((2,), 4.0)])
    assert len(lane.buffers) == 3
    assert in_buffer(lane.buffers[0], lane.begun[3][0][0])
    lane.finish(2)
    assert [kept.tolist(), second.result()[0].tolist(), fourth.result()[0].tolist()] == [[1, 1], [2, 2], [4, 4]]


def test_what_is_sent_is_held_until_it_is_copied() -> None:
    """Else its memory could be given to another tensor, which the copy would see."""
    lane = Held()
    source = torch.ones(2)
    handle = Staged(lane).begin([source])
    lane.begun[0] = [(target, torch.zeros(2)) for target, _ in lane.begun[0]]
    assert any(held is source for held in handle._tensors)  # type: ignore[attr-defined]
    lane.finish()
    handle.result()
    assert handle._tensors == ()  # type: ignore[attr-defined]


def test_a_buffer_whose_copy_failed_is_not_used_again() -> None:
    lane = Failing()
    transfer = Staged(lane)
    handle = transfer.begin([torch.ones(2)])
    with pytest.raises(RuntimeError, match="illegal memory access"):
        handle.result()
    transfer.begin([torch.ones(2)])
    assert len(lane.buffers) == 2


def test_few_buffers_are_kept_and_the_smallest_gives_way_to_a_larger_one() -> None:
    lane = Held()
    transfer = Staged(lane)
    handles = [transfer.begin([torch.ones(2)]) for _ in range(KEPT_BUFFERS + 3)]
    lane.finish(len(handles))
    for handle in handles:
        handle.result()
    free = transfer._buffers._free
    assert [buffer.nbytes for buffer in free] == [LEAST_BUFFER] * KEPT_BUFFERS
    large = torch.zeros(LEAST_BUFFER)
    handle = transfer.begin([large])
    assert len(transfer._buffers._free) == KEPT_BUFFERS - 1
    lane.finish()
    handle.result()
    assert [buffer.nbytes for buffer in transfer._buffers._free] == [*[LEAST_BUFFER] * (KEPT_BUFFERS - 1), large.nbytes]


def test_a_direct_transfer_leaves_tensors_of_the_cpu_alone() -> None:
    tensor = torch.ones(2)
    assert Direct().begin([tensor]).result()[0] is tensor


COLUMNS = [
    Column("w", "weight", torch.float32, (2,)),
    Column("w.grad", "gradient", torch.float32, (2,)),
    Column("big", "weight", torch.float32, (4097,)),
]


def test_rows_on_their_way_are_written_once_they_are_there_and_in_order(tmp_path: Path) -> None:
    lane = Held()
    values = [
        [torch.full((2,), float(n)), None if n % 3 else torch.full((2,), -float(n)), torch.full((4097,), n + 0.5)]
        for n in range(20)
    ]
    writer = RowWriter(run_directory(tmp_path), COLUMNS, batch_rows=4, transfer=Staged(lane))
    for row in rows_of(COLUMNS, values):
        writer.write(row)  # none of them waits for a copy
    assert lane.done == 0
    assert len(lane.begun) >= 5
    assert writer.rows_on_disk == 0
    lane.finish_all()
    writer.close()
    assert lane.attached == [writer._thread.ident if writer._thread else None]
    table = pyarrow.parquet.read_table(next((tmp_path / "rows").iterdir()))
    assert table["row"].to_pylist() == list(range(20))
    assert table["w"].to_pylist() == [row[0].tolist() for row in values if row[0] is not None]
    assert table["w.grad"].to_pylist() == [None if row[1] is None else row[1].tolist() for row in values]
    big = [numpy.frombuffer(cell, dtype="<f4").tolist() for cell in table["big"].to_pylist()]
    assert big == [[n + 0.5] * 4097 for n in range(20)]


def test_a_copy_that_fails_ends_the_run(tmp_path: Path) -> None:
    writer = RowWriter(run_directory(tmp_path), COLUMNS[:1], transfer=Staged(Failing()))
    for row in rows_of(COLUMNS[:1], [[torch.ones(2)]] * 3):
        writer.write(row)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        writer.close()


def test_a_large_tensor_that_rows_share_is_sent_once_and_stays_shared() -> None:
    lane = Held()
    big = torch.ones(4097)
    columns = [stored_column(column) for column in COLUMNS[2:]]
    batch = pack(rows_of(COLUMNS[2:], [[big], [big], [big + 1]]), columns, [blank_of(column) for column in columns])
    sent = send(batch, Staged(lane))
    assert [len(pairs) for pairs in lane.begun] == [2]
    lane.finish()
    first, second, third = sent.landed().columns[0].values
    assert first is second
    assert first is not None
    assert third is not None
    assert (first.sum().item(), third.sum().item()) == (4097.0, 2 * 4097.0)
