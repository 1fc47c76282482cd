"""The order of samples, and the cursor of a data source."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy
import pyarrow
import pyarrow.parquet
import pytest
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler, TensorDataset

import runner
from runner.engine.data.batches import MOST_TOGETHER, TOGETHER_BYTES, Batches, gathered_together
from runner.engine.data.orders import order
from runner.engine.data.samples import open_samples
from runner.optim.updates import ALIGNMENT
from runner.plan.data.selection.selection import all_rows
from runner.plan.data.sources import SourcePlan
from runner.plan.streams import stream_seed
from tests.engine.running import compiled

SAMPLES = 23


def write_arrays(folder: Path, samples: int = SAMPLES) -> None:
    """The same numbers in every kind of file: x `(samples, 3)` of float32 and y `(samples,)` of int64."""
    random = numpy.random.default_rng(3)
    x = random.normal(size=(samples, 3)).astype("float32")
    y = random.integers(0, 5, samples)
    numpy.save(folder / "x.npy", x)
    numpy.save(folder / "y.npy", y)
    numpy.save(folder / "big.npy", x.astype(">f4"))
    numpy.savez(folder / "both.npz", x=x, y=y)
    columns = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(x.reshape(-1)), 3)
    table = pyarrow.table({"x": columns, "y": y, "a": x[:, 0], "b": x[:, 1], "c": x[:, 2]})
    pyarrow.parquet.write_table(table, folder / "both.parquet", row_group_size=samples)
    pyarrow.parquet.write_table(table, folder / "groups.parquet", row_group_size=6)
    lines = [
        "a,b,c,y",
        *(",".join([*(repr(float(v)) for v in row), str(label)]) for row, label in zip(x, y, strict=True)),
    ]
    (folder / "both.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    from safetensors.numpy import save_file

    save_file({"x": x, "y": y}, folder / "both.safetensors")


DECLARATIONS = {
    "npy": "columns: {x: x.npy, y: y.npy}",
    "big-endian npy": "columns: {x: big.npy, y: y.npy}",
    "npz": "file: both.npz, columns: {x: x, y: y}",
    "csv": "file: both.csv, columns: {x: [a, b, c], y: y}",
    "parquet": "file: both.parquet, columns: {x: x, y: y}",
    "stacked parquet": "file: both.parquet, columns: {x: [a, b, c], y: y}",
    "safetensors": "file: both.safetensors, columns: {x: x, y: y}",
    "row groups": "file: groups.parquet, columns: {x: x, y: y}",
}
STREAMED = [kind for kind in DECLARATIONS if kind not in ("npz", "csv")]


def source(folder: Path, declared: str, more: str = "") -> SourcePlan:
    plan = compiled(
        "{parameters: {w: {shape: [3], init: 0}}, expression: x.sum() * w.sum() + y.sum(), "
        f"data: {{train: {{{declared}{more}}}}}, optimizer: {{sgd: {{lr: 1}}}}, steps: {{epochs: 1}}}}",
        folder,
    )
    return plan.sources["train"]


def cursor(plan: SourcePlan, seed: int = 0, together: int = 1) -> Batches:
    return Batches(plan, open_samples(plan), seed, together)


def drawn(batches: Batches, count: int) -> Iterator[dict[str, Tensor]]:
    for _ in range(count):
        batches.next()
        yield batches.batch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_arrays(tmp_path)
    return tmp_path


# the order


def test_the_order_is_a_function_of_seed_source_and_epoch_alone() -> None:
    first = order(1, "train", 1, 100)
    torch.rand(7)
    assert torch.equal(order(1, "train", 1, 100), first)
    assert sorted(first.tolist()) == list(range(100))
    for other in (order(2, "train", 1, 100), order(1, "test", 1, 100), order(1, "train", 2, 100)):
        assert not torch.equal(other, first)


def test_the_order_is_torchs_permutation_from_the_documented_stream() -> None:
    generator = torch.Generator().manual_seed(stream_seed(5, "shuffle", "train", 3))
    assert torch.equal(order(5, "train", 3, 40), torch.randperm(40, generator=generator))


def test_row_groups_are_shuffled_and_the_rows_of_each() -> None:
    found = order(0, "train", 1, 20, (6, 6, 6, 2)).tolist()
    assert sorted(found) == list(range(20))
    groups = [row // 6 for row in found]
    assert len([1 for left, right in itertools.pairwise(groups) if left != right]) == 3
    assert found != sorted(found)


def test_columns_of_two_parquet_files_have_no_row_groups_in_common(folder: Path) -> None:
    for name, size in (("one", 2), ("two", 3)):
        table = pyarrow.table({"v": numpy.arange(12.0)})
        pyarrow.parquet.write_table(table, folder / f"{name}.parquet", row_group_size=size)
    expression = "expression: loss = w * (x + y).sum()"
    head = f"{{parameters: {{w: 1.0}}, {expression}, optimizer: {{sgd: {{lr: 0}}}}, steps: {{epochs: 1}}, "
    one = compiled(head + "data: {train: {file: one.parquet, columns: {x: v, y: v}, shuffle: true}}}", folder)
    assert one.sources["train"].row_groups == (2, 2, 2, 2, 2, 2)
    two = compiled(head + "data: {train: {columns: {x: one.parquet, y: two.parquet}, shuffle: true}}}", folder)
    assert two.sources["train"].row_groups == ()


# batches


@pytest.mark.parametrize("drop_last", [False, True])
def test_a_pass_has_the_batches_of_a_data_loader(folder: Path, drop_last: bool) -> None:
    plan = source(folder, DECLARATIONS["npy"], f", batch_size: 5, drop_last: {str(drop_last).lower()}")
    x, y = (torch.from_numpy(numpy.load(folder / f"{name}.npy")) for name in "xy")
    expected = list(DataLoader(TensorDataset(x, y), batch_size=5, drop_last=drop_last))
    assert plan.batches == len(expected)
    for batch, (wanted_x, wanted_y) in zip(drawn(cursor(plan), plan.batches), expected, strict=True):
        assert torch.equal(batch["x"], wanted_x)
        assert torch.equal(batch["y"], wanted_y)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("together", [1, 2, 3, 64])
def test_a_shuffled_pass_has_the_batches_of_a_batch_sampler(folder: Path, together: int, drop_last: bool) -> None:
    more = f", batch_size: 5, shuffle: true, drop_last: {str(drop_last).lower()}"
    plan = source(folder, DECLARATIONS["npy"], more)
    x = torch.from_numpy(numpy.load(folder / "x.npy"))
    batches = cursor(plan, 9, together)
    for epoch in (1, 2, 3):
        places = order(9, "train", epoch, SAMPLES).tolist()
        for chosen in BatchSampler(SequentialSampler(places), 5, drop_last=drop_last):
            batches.next()
            assert batches.epoch == epoch
            samples = [places[place] for place in chosen]
            assert [batches.sample(place) for place in range(batches.length_taken)] == samples
            assert batches.length == len(samples)
            assert torch.equal(batches.batch["x"], x[samples])


def test_small_shuffled_batches_are_gathered_many_at_once(folder: Path) -> None:
    plan = source(folder, DECLARATIONS["npy"], ", batch_size: 16, shuffle: true")
    small = replace(plan, batch_size=16, selection=all_rows(16 * 40))
    assert gathered_together(small) == MOST_TOGETHER
    assert gathered_together(replace(small, streams=True)) == 1
    columns = tuple(replace(column, shape=(1 << 14,)) for column in plan.columns)
    assert gathered_together(replace(small, columns=columns[:1])) == 1
    assert gathered_together(replace(small, columns=columns[:1], batch_size=4)) == TOGETHER_BYTES >> 18
    empty = tuple(replace(column, shape=(0,)) for column in columns)
    assert gathered_together(replace(small, columns=empty)) == MOST_TOGETHER


def test_batches_gathered_at_once_begin_where_tensors_of_their_own_would(tmp_path: Path) -> None:
    write_arrays(tmp_path, 200)
    for size in range(1, 33):
        plan = source(tmp_path, DECLARATIONS["npy"], f", batch_size: {size}, shuffle: true")
        together = gathered_together(plan)
        assert (together == MOST_TOGETHER) == (size % 16 == 0), "16 samples of 3 float32 or an int64 are aligned"
        batches = cursor(plan, together=together)
        for batch in drawn(batches, plan.batches):
            assert [column.data_ptr() % ALIGNMENT for column in batch.values()] == [0, 0]


def test_a_pass_of_small_batches_is_read_once(folder: Path) -> None:
    plan = source(folder, DECLARATIONS["npy"], ", batch_size: 5, shuffle: true")
    samples = open_samples(plan)
    asked: list[int] = []

    class Counted:
        between, first_nan = samples.between, samples.first_nan

        def at(self, chosen: Tensor) -> dict[str, Tensor]:
            asked.append(len(chosen))
            return samples.at(chosen)

    list(drawn(Batches(plan, Counted(), 0, 3), 2 * plan.batches))
    assert asked == [15, 8, 15, 8]


def test_drawing_past_the_end_begins_the_next_pass(folder: Path) -> None:
    batches = cursor(source(folder, DECLARATIONS["npy"], ", batch_size: 10"))
    seen = []
    for _ in range(7):
        batches.next()
        seen.append((batches.epoch, batches.position, batches.length))
    assert seen == [(1, 1, 10), (1, 2, 10), (1, 3, 3), (2, 1, 10), (2, 2, 10), (2, 3, 3), (3, 1, 10)]


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 6, 11])
@pytest.mark.parametrize("shuffle", ["true", "false"])
@pytest.mark.parametrize("together", [1, 3])
def test_a_restored_cursor_goes_on_with_the_same_batches(folder: Path, count: int, shuffle: str, together: int) -> None:
    plan = source(folder, DECLARATIONS["npy"], f", batch_size: 5, shuffle: {shuffle}")
    batches, again = cursor(plan, 4, together), cursor(plan, 4, together)
    list(drawn(batches, count))
    again.restore(batches.epoch, batches.position, batches.drawn)
    assert again.drawn == (count > 0)
    for left, right in [(batches.current(), again.current()), *zip(drawn(batches, 9), drawn(again, 9), strict=True)]:
        assert torch.equal(left["x"], right["x"])
        assert torch.equal(left["y"], right["y"])


def test_a_whole_pass_leaves_the_cursor_where_it_is(folder: Path) -> None:
    batches = cursor(source(folder, DECLARATIONS["npy"], ", batch_size: 10, shuffle: true, drop_last: true"))
    batches.next()
    before = (batches.epoch, batches.position, batches.batch, batches.length, batches.seen)
    whole = torch.cat([batches.named(part)["x"] for part in batches.whole_pass()])
    assert torch.equal(whole, torch.from_numpy(numpy.load(folder / "x.npy")))
    assert (batches.epoch, batches.position, batches.batch, batches.length, batches.seen) == before


# files


@pytest.mark.parametrize("kind", [kind for kind in DECLARATIONS if kind != "row groups"])
def test_every_kind_of_file_gives_the_same_batches(folder: Path, kind: str) -> None:
    more = ", batch_size: 5, shuffle: true"
    expected = cursor(source(folder, DECLARATIONS["npy"], more), 2)
    found = cursor(source(folder, DECLARATIONS[kind], more), 2)
    for left, right in zip(drawn(expected, 12), drawn(found, 12), strict=True):
        assert torch.equal(left["x"], right["x"])
        assert left["x"].dtype == right["x"].dtype == torch.float32
        assert torch.equal(left["y"], right["y"])


@pytest.mark.parametrize("kind", STREAMED)
@pytest.mark.parametrize(
    "more", ["", ", batch_size: 5", ", batch_size: 5, shuffle: true", ", batch_size: 8, shuffle: true"]
)
def test_streaming_equals_in_memory_bit_for_bit(
    folder: Path, kind: str, more: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = source(folder, DECLARATIONS[kind], more + ", dtype: {x: float64}")
    monkeypatch.setattr("runner.plan.data.sources.STREAMED_FROM", 0)
    streamed = source(folder, DECLARATIONS[kind], more + ", dtype: {x: float64}")
    assert (held.streams, streamed.streams) == (False, True)
    pairs = zip(drawn(cursor(held, 2), 12), drawn(cursor(streamed, 2), 12), strict=True)
    whole = zip(*[map(each.named, each.whole_pass()) for each in (cursor(held), cursor(streamed))], strict=True)
    for left, right in (*pairs, *whole):
        assert left.keys() == right.keys()
        for name in left:
            assert left[name].dtype == right[name].dtype
            assert torch.equal(left[name], right[name])


@pytest.mark.parametrize("kind", ["npz", "csv"])
def test_what_cannot_be_read_in_parts_is_held(folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.plan.data.sources.STREAMED_FROM", 0)
    assert not source(folder, DECLARATIONS[kind]).streams


def test_a_file_in_fortran_order_is_held(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = numpy.load(folder / "x.npy")
    numpy.save(folder / "x.npy", numpy.asfortranarray(x))
    monkeypatch.setattr("runner.plan.data.sources.STREAMED_FROM", 0)
    plan = source(folder, DECLARATIONS["npy"])
    assert not plan.streams
    assert torch.equal(cursor(plan).current()["x"], torch.from_numpy(x))


def test_a_streamed_file_that_became_shorter_is_a_fault_at_its_source(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.plan.data.sources.STREAMED_FROM", 0)
    text = (
        "parameters: {w: {shape: [3], init: 0}}\nexpression: f = (x @ w).sum()\n"
        "data:\n  train: {columns: {x: x.npy}, batch_size: 4}\noptimizer: {sgd: {lr: 1}}\nsteps: {epochs: 1}\n"
    )
    rows = runner.execute(compiled(text, folder))
    next(rows)
    with (folder / "x.npy").open("r+b") as file:
        file.truncate(128 + 10 * 12)
    with pytest.raises(runner.RunError, match=r"4:3  data\.train\n(.|\n)*x\.npy ends within row 10: it is truncated"):
        list(rows)


def test_a_file_that_changed_since_planning_is_refused(folder: Path) -> None:
    text = (
        "{parameters: {w: {shape: [3], init: 0}}, expression: (x @ w).sum(), "
        "data: {train: {columns: {x: x.npy}}}, optimizer: {sgd: {lr: 1}}, steps: {epochs: 1}}"
    )
    plan = compiled(text, folder)
    write_arrays(folder, samples=7)
    with pytest.raises(
        runner.RunError, match=r"x\.npy has shape \(7, 3\), which differs from its shape when the run was planned"
    ):
        list(runner.execute(plan))


@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_nan_in_data_is_told_with_its_sample(folder: Path, kind: str) -> None:
    x = numpy.load(folder / "x.npy")
    x[17, 1] = numpy.nan
    numpy.savez(folder / "both.npz", x=x, y=numpy.zeros(SAMPLES, dtype=int))
    columns = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(x.reshape(-1)), 3)
    pyarrow.parquet.write_table(pyarrow.table({"x": columns, "y": range(SAMPLES)}), folder / "both.parquet")
    plan = compiled(
        "{parameters: {w: {shape: [3], init: 0}}, expression: (x @ w).sum() + y.sum(), optimizer: {sgd: {lr: 1}}, "
        f"data: {{train: {{{DECLARATIONS[kind]}}}}}, steps: {{epochs: 1}}}}",
        folder,
    )
    with pytest.warns(runner.errors.DataWarning, match="nan-in-data: sample 17 of `x` in `train` is NaN"):
        next(runner.execute(plan))


# memory

PROBE = """
import resource, sys
import torch, runner
import runner.plan.data.sources as sources
sources.STREAMED_FROM = 0
plan = runner.compile(runner.load("big.yaml"))
assert plan.sources["train"].streams
rows = runner.execute(plan)
next(rows)
next(rows)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for row in rows:
    pass
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads memory in Linux's units")
@pytest.mark.parametrize("kind", ["npy", "parquet"])
@pytest.mark.slow
def test_streaming_takes_bounded_memory(tmp_path: Path, kind: str) -> None:
    values = numpy.random.default_rng(0).normal(size=(1 << 20, 16)).astype("float32")  # 64 MiB
    if kind == "npy":
        numpy.save(tmp_path / "big.npy", values)
    else:
        columns = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(values.reshape(-1)), 16)
        pyarrow.parquet.write_table(pyarrow.table({"x": columns}), tmp_path / "big.parquet", row_group_size=1 << 15)
    columns_text = "{x: big.npy}" if kind == "npy" else "{x: x}, file: big.parquet"
    (tmp_path / "big.yaml").write_text(
        "parameters: {w: {shape: [16], init: 0}}\nexpression: f = (x @ w).mean()\noptimizer: {sgd: {lr: 1}}\n"
        f"data:\n  train: {{columns: {columns_text}, batch_size: 4096, shuffle: true}}\n"
        "steps: [{for_each: {epochs: 1, steps: [train]}}, evaluate: train]\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env={"PYTHONPATH": str(Path(runner.__file__).parents[1]), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 32


def test_a_streamed_source_counts_for_its_batch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = source(folder, DECLARATIONS["npy"], ", batch_size: 5")
    assert held.bytes == SAMPLES * (12 + 8)
    monkeypatch.setattr("runner.plan.data.sources.STREAMED_FROM", 0)
    assert source(folder, DECLARATIONS["npy"], ", batch_size: 5").bytes == 5 * (12 + 8)
    assert source(folder, DECLARATIONS["row groups"], ", batch_size: 5").bytes == 6 * (12 + 8)
    assert replace(held, streams=True).bytes == 5 * (12 + 8)
