"""Sources that select rows: their batches, in memory and streamed, and the rows that messages name."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import numpy
import pyarrow
import pyarrow.parquet
import pytest
import torch

import runner
from runner.engine.data.batches import Batches
from runner.engine.data.orders import order
from runner.engine.data.samples import open_samples
from runner.errors import DataWarning
from runner.plan.compiler import PlanLimits
from runner.plan.data.selection.order import Order
from runner.plan.data.selection.selected_rows import selected_blocks
from runner.plan.data.sources import SourcePlan
from tests.engine.data.test_batches import DECLARATIONS, STREAMED, drawn, write_arrays
from tests.engine.running import compiled, rows_of
from tests.tables import over

SAMPLES = 61
ARRAYS = ("npy", "big-endian npy", "npz", "safetensors", "row groups", "csv")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_arrays(tmp_path, SAMPLES)
    return tmp_path


def source(folder: Path, declared: str, more: str) -> SourcePlan:
    text = (
        "{parameters: {w: {shape: [3], init: 0}}, expression: x.sum() * w.sum() + y.sum(), "
        f"data: {{train: {{{declared}, {more}}}}}, optimizer: {{sgd: {{lr: 1}}}}, steps: {{epochs: 1}}}}"
    )
    return compiled(text, folder).sources["train"]


def cut(start: str, end: str, seed: int = 0, rows: int = SAMPLES) -> list[int]:
    """The rows of a share, by Decimal's own rounding."""
    low, high = (int((Decimal(part) * rows).quantize(Decimal(1), rounding=ROUND_HALF_UP)) for part in (start, end))
    return sorted(Order(seed, rows).rows(numpy.arange(rows)).tolist()[low:high])


def expected(folder: Path, select: str) -> list[int]:
    y = numpy.load(folder / "y.npy")
    return {
        "{share: [0, 0.8]}": cut("0", "0.8"),
        "{share: [0.35, 0.75], seed: 3}": cut("0.35", "0.75", 3),
        "{fold: 1, of: 4, held_out: true}": cut("0.25", "0.5"),
        "{from: 7, to: 40}": list(range(7, 40)),
        '"y == 2 or y == 4"': numpy.flatnonzero((y == 2) | (y == 4)).tolist(),
        '{where: "y != 3", from: 5, to: 20}': numpy.flatnonzero(y != 3).tolist()[5:20],
    }[select]


CASES = [
    (kind, select)
    for kind in ARRAYS
    for select in (
        "{share: [0, 0.8]}",
        "{share: [0.35, 0.75], seed: 3}",
        "{fold: 1, of: 4, held_out: true}",
        "{from: 7, to: 40}",
        '"y == 2 or y == 4"',
        '{where: "y != 3", from: 5, to: 20}',
    )
]


@pytest.mark.slow
@over("case", CASES)
def test_batches_are_those_of_the_selected_rows_in_file_order(case: tuple[str, str], folder: Path) -> None:
    kind, select = case
    rows = expected(folder, select)
    x, y = numpy.load(folder / "x.npy")[rows], numpy.load(folder / "y.npy")[rows]
    plan = source(folder, DECLARATIONS[kind], f"batch_size: 4, select: {select}")
    assert plan.samples == len(rows)
    for streams in (False, True) if kind in STREAMED else (False,):
        streamed = replace(plan, streams=streams)
        batches = Batches(streamed, open_samples(streamed), 0)
        found = list(drawn(batches, streamed.batches))
        assert torch.equal(torch.cat([batch["x"] for batch in found]), torch.from_numpy(x))
        assert torch.equal(torch.cat([batch["y"] for batch in found]), torch.from_numpy(y))
        assert batches.sample(0) == rows[(streamed.batches - 1) * 4]
    blocks = list(selected_blocks(plan["x"].array, plan["x"].dtype, plan.selection))
    assert torch.equal(torch.cat(blocks), torch.from_numpy(x))


@over("kind", STREAMED)
def test_shuffled_selections_are_alike_in_memory_and_streamed(kind: str, folder: Path) -> None:
    plan = source(folder, DECLARATIONS[kind], "batch_size: 4, shuffle: true, select: {share: [0.2, 0.9]}")
    rows, x = cut("0.2", "0.9"), torch.from_numpy(numpy.load(folder / "x.npy"))
    streamed = replace(plan, streams=True)
    first, second = (Batches(each, open_samples(each), 7) for each in (plan, streamed))
    for epoch in (1, 2):
        places = order(7, "train", epoch, len(rows), plan.groups).tolist()
        for one, other in zip(drawn(first, plan.batches), drawn(second, plan.batches), strict=True):
            assert torch.equal(one["x"], other["x"])
            start = (first.position - 1) * 4
            assert torch.equal(one["x"], x[[rows[place] for place in places[start : start + 4]]])


def test_a_selection_does_not_depend_on_the_batch_size_or_the_seed_of_the_config(folder: Path) -> None:
    plans = [source(folder, DECLARATIONS["npy"], f"batch_size: {size}, select: {{share: [0, 0.5]}}") for size in (1, 7)]
    text = (
        "{seed: 5, parameters: {w: 1}, data: {other: {columns: {z: y.npy}}, train: {columns: {x: x.npy}, "
        "select: {share: [0, 0.5]}}}, expression: w * x.sum() + z.sum(), optimizer: {sgd: {lr: 1}}, steps: 1}"
    )
    assert {plan.selection for plan in (*plans, compiled(text, folder).sources["train"])} == {plans[0].selection}


@pytest.mark.slow
def test_a_selection_is_the_same_in_another_process(folder: Path) -> None:
    plan = source(folder, DECLARATIONS["csv"], "select: {share: [0, 0.5], stratify: y, seed: 2}")
    text = (
        "from tests.engine.data.test_selected import *; from pathlib import Path; folder = "
        f"Path({str(folder)!r}); plan = source(folder, DECLARATIONS['csv'], "
        "'select: {share: [0, 0.5], stratify: y, seed: 2}');"
        "print(plan.selection.between(0, plan.samples).tolist())"
    )
    output = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout
    assert output.strip() == str(plan.selection.between(0, plan.samples).tolist())


def test_constants_say_which_fold(folder: Path) -> None:
    text = (
        "{constants: {k: K}, parameters: {w: 1}, data: {train: {columns: {x: x.npy}, "
        "select: {fold: k, of: 2 * k + 1}}}, expression: w * x.sum(), optimizer: {sgd: {lr: 1}}, steps: 1}"
    )
    first, last = (compiled(text.replace("K", str(k)), folder) for k in (1, 2))
    held_out = set(Order(0, SAMPLES).rows(numpy.arange(20, 41)).tolist())
    plan = first.sources["train"]
    assert set(range(SAMPLES)) - set(plan.selection.between(0, plan.samples).tolist()) == held_out
    assert last.sources["train"].samples == SAMPLES - 13  # from 24.4 to 36.6, rounded


def test_a_value_that_is_not_finite_is_reported_with_its_row_in_the_file(tmp_path: Path) -> None:
    x = numpy.ones(20, dtype="float32")
    x[13] = numpy.inf
    numpy.save(tmp_path / "x.npy", x)
    text = (
        "{parameters: {w: 1}, data: {train: {columns: {x: x.npy}, select: {from: 10}, batch_size: 2}}, "
        "expression: w * x.sum(), optimizer: {sgd: {lr: 1}}, steps: {epochs: 1}}"
    )
    with pytest.raises(runner.RunError, match=r"sample 13 of `x` in `train`"):
        rows_of(text, tmp_path)


def test_nan_in_data_names_the_row_in_the_file(tmp_path: Path) -> None:
    x = numpy.ones(20, dtype="float32")
    x[[3, 13]] = numpy.nan
    numpy.save(tmp_path / "x.npy", x)
    text = (
        "{parameters: {w: 1}, data: {train: {columns: {x: x.npy}, select: {from: 10}}}, on_nonfinite: ignore, "
        "expression: w * x.nansum(), optimizer: {sgd: {lr: 1}}, steps: 1}"
    )
    with pytest.warns(DataWarning, match=r"nan-in-data: sample 13 of `x` in `train` is NaN"):
        rows_of(text, tmp_path)


def test_a_value_that_does_not_fit_is_named_by_its_row_in_the_file_if_it_is_selected(tmp_path: Path) -> None:
    lines = ["x", *["1"] * 9, "1.5", *["2"] * 10]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = (
        "{parameters: {w: 1}, data: {train: {file: t.csv, columns: {x: x}, dtype: {x: int64}, select: SELECT}}, "
        "expression: w * x.sum(), optimizer: {sgd: {lr: 1}}, steps: 1}"
    )
    with pytest.raises(runner.ConfigError, match=r"t.csv:11 holds 1.5 in the column `x`"):
        compiled(text.replace("SELECT", "{from: 5}"), tmp_path)
    assert compiled(text.replace("SELECT", "{from: 12}"), tmp_path).sources["train"].samples == 8


def test_training_on_a_share_has_the_bits_of_hand_written_torch(folder: Path) -> None:
    rows = cut("0", "0.7")
    x, y = (torch.from_numpy(numpy.load(folder / f"{name}.npy"))[rows] for name in "xy")
    w = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.1)
    for epoch in (1, 2):
        for batch in order(4, "train", epoch, len(rows)).split(8):
            optimizer.zero_grad()
            ((x[batch] @ w - y[batch]) ** 2).mean().backward()
            optimizer.step()
    text = (
        "{seed: 4, parameters: {w: {shape: [3], init: 0}}, data: {train: {file: both.npz, columns: {x: x, y: y}, "
        "batch_size: 8, shuffle: true, select: {share: [0, 0.7]}}}, expression: ((x @ w - y) ** 2).mean(), "
        "optimizer: {sgd: {lr: 0.1}}, steps: {epochs: 2}}"
    )
    last = rows_of(text, folder)[-1]
    assert torch.equal(dict(zip((each.name for each in last.columns), last.values, strict=True))["w"], w.detach())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_parts_of_a_file_larger_than_the_memory_are_disjoint_and_complete(kind: str, tmp_path: Path) -> None:
    """Two shares of 8 MB in 1 MiB: the selection takes 0.14 bytes a row, and no order is stored."""
    values = numpy.arange(1_000_000, dtype=numpy.float64)
    numpy.save(tmp_path / "d.npy", values)
    pyarrow.parquet.write_table(pyarrow.table({"x": values}), tmp_path / "d.parquet", row_group_size=5000)
    columns = "columns: {x: d.npy}" if kind == "npy" else "file: d.parquet, columns: {x: x}"
    text = (
        f"{{dtype: float64, parameters: {{w: 1}}, data: {{a: {{{columns}, select: {{share: [0, 0.3]}}, shuffle: true, "
        f"batch_size: 1000}}, b: {{{columns}, select: {{share: [0.3, 1]}}, batch_size: 1000}}}}, "
        "expression: w * x.sum(), optimizer: {sgd: {lr: 0}}, steps: [{for_each: {data: a, epochs: 1, steps: [train]}}, "
        "{evaluate: b}]}"
    )
    plan = runner.compile(runner.loads(text, base=str(tmp_path)), limits=PlanLimits(memory=1 << 20))
    found = []
    for name in ("a", "b"):
        plan_of_source = plan.sources[name]
        assert plan_of_source.streams
        batches = Batches(plan_of_source, open_samples(plan_of_source), 0)
        found.append(torch.cat([batch["x"] for batch in drawn(batches, plan_of_source.batches)]))
    assert len(found[0]) == 300_000
    assert torch.equal(torch.cat(found).sort().values, torch.from_numpy(values))
    assert torch.equal(found[1], found[1].sort().values)
    assert plan.sources["a"].selection.bytes < 150_000


MISSING = {
    "floats": ("f", "missing: [null], select: {where: x is not missing}", [1.5, 2.5]),
    "integers": ("k", "fill: {x: 7}, select: {where: x is not missing}", [1, 3]),
    "integers by their column": ("k", "fill: {k: 7}, select: {where: k is not missing}", [1, 3]),
    "text": ("s", "classes: {x: [a, b]}, select: {where: s is not missing}", [0, 1]),
    "another column": ("f", "missing: [null], select: {where: s == 'b'}", [2.5]),
}


@over("case", MISSING)
@over("suffix", ("csv", "parquet"))
def test_a_condition_leaves_out_rows_with_missing_cells(case: str, suffix: str, tmp_path: Path) -> None:
    column, keys, expected = MISSING[case]
    table = pyarrow.table({"f": [1.5, None, 2.5], "k": [1, None, 3], "s": ["a", None, "b"]})
    pyarrow.parquet.write_table(table, tmp_path / "d.parquet")
    (tmp_path / "d.csv").write_text("f,k,s\n1.5,1,a\n,,\n2.5,3,b\n", encoding="utf-8")
    declared = f"file: d.{suffix}, columns: {{x: {column}}}, {keys}"
    text = f"{{parameters: {{w: 1}}, expression: h = w * x, data: {{d: {{{declared}}}}}, steps: [{{forward: h}}]}}"
    assert rows_of(text, tmp_path)[-1]["h"].tolist() == expected
