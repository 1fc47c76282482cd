"""The order of a shuffled pass: the same whether it is stored or computed in parts."""

from __future__ import annotations

import random
from pathlib import Path

import numpy
import pyarrow
import pyarrow.parquet
import torch

import runner
from runner.engine.data.batches import Batches
from runner.engine.data.orders import ComputedOrder, GroupedOrder, order
from runner.engine.data.samples import open_samples
from runner.plan.compiler import PlanLimits
from runner.plan.data.selection.order import AT_ONCE, Order
from runner.plan.data.sources import MOST_STORED
from runner.plan.streams import stream_seed

GROUPS = (5, 0, 1, 12, 7)
TEXT = (
    "parameters: {w: 1.0}\ndata: {train: {columns: {x: d.npy}, dtype: {x: uint8}, batch_size: 1000, shuffle: true}}\n"
    "expression: loss = w * x.to(float32).sum()\noptimizer: {sgd: {lr: 0.1}}\nsteps: 1\n"
)


def drawn_by_hand(seed: int, epoch: int) -> list[int]:
    generator = torch.Generator().manual_seed(stream_seed(seed, "shuffle", "train", epoch))
    found: list[int] = []
    for group in torch.randperm(len(GROUPS), generator=generator).tolist():
        rows = torch.randperm(GROUPS[group], generator=generator).tolist()
        found += [sum(GROUPS[:group]) + row for row in rows]
    return found


def test_row_groups_are_drawn_in_turn_and_any_part_of_the_order_can_be_read() -> None:
    whole = drawn_by_hand(3, 2)
    assert order(3, "train", 2, sum(GROUPS), GROUPS).tolist() == whole
    parts, drawn = GroupedOrder(3, "train", 2, GROUPS), random.Random(0)
    for _ in range(100):
        start, end = sorted(drawn.choices(range(sum(GROUPS) + 1), k=2))
        assert parts.between(start, end).tolist() == whole[start:end]


def test_any_part_of_a_computed_order_can_be_read() -> None:
    count = 3 * AT_ONCE + 17
    whole = Order(9, count).rows(numpy.arange(count)).tolist()
    parts, drawn = ComputedOrder(Order(9, count)), random.Random(0)
    for _ in range(50):
        start = drawn.randrange(count)
        end = min(count, start + drawn.choice((0, 1, 100, AT_ONCE, 2 * AT_ONCE)))
        assert parts.between(start, end).tolist() == whole[start:end]


def test_a_streamed_source_of_many_samples_draws_each_once_a_pass_in_another_order(tmp_path: Path) -> None:
    count = MOST_STORED + 1000
    values = numpy.random.default_rng(0).integers(0, 256, (count, 8), dtype=numpy.uint8)
    numpy.save(tmp_path / "d.npy", values)
    plan = runner.compile(runner.loads(TEXT, base=str(tmp_path)), limits=PlanLimits(memory=1 << 20, runs=False))
    source = plan.sources["train"]
    assert source.streams
    assert source.computes_order
    assert source.order_bytes == 0
    batches = Batches(source, open_samples(source), plan.seed)
    orders = []
    for _ in range(2):
        seen = []
        for _ in range(source.batches):
            batches.next()
            assert isinstance(batches.seen, torch.Tensor)
            assert torch.equal(batches.batch["x"], torch.from_numpy(values[batches.seen.numpy()]))
            seen.append(batches.seen)
        orders.append(torch.cat(seen))
        assert torch.equal(orders[-1].sort().values, torch.arange(count))
    assert not torch.equal(*orders)


def test_a_checkpoint_keeps_the_kind_of_order(tmp_path: Path) -> None:
    """A source that is in memory goes on in the order that a smaller machine computed."""
    numpy.save(tmp_path / "d.npy", numpy.arange(5000, dtype=numpy.uint8))
    source = runner.compile(runner.loads(TEXT, base=str(tmp_path))).sources["train"]
    batches = Batches(source, open_samples(source), 0)
    batches.restore(2, 1, True, computed=True)
    batches.next()
    expected = Order(stream_seed(0, "shuffle", "train", 2), 5000).rows(numpy.arange(1000, 2000))
    assert isinstance(batches.seen, torch.Tensor)
    assert batches.seen.tolist() == expected.tolist()


def test_a_large_parquet_file_of_many_groups_counts_the_order_of_one(tmp_path: Path) -> None:
    table = pyarrow.table({"x": numpy.zeros(100_000)})
    pyarrow.parquet.write_table(table, tmp_path / "d.parquet", row_group_size=1000)
    text = TEXT.replace("{x: d.npy}, dtype: {x: uint8}", "{x: x}, file: d.parquet")
    source = runner.compile(
        runner.loads(text, base=str(tmp_path)), limits=PlanLimits(memory=1 << 20, runs=False)
    ).sources["train"]
    assert source.streams
    assert source.order_bytes == 2 * 8 * 1000
