"""Initial expressions that read whole columns: each reduction as numpy computes it in float64, in bounded memory."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy
import pyarrow
import pyarrow.parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import runner
from runner.errors import ConfigError
from runner.plan import PlanLimits
from runner.plan.tensors import reductions
from runner.plan.tensors.reductions import Reduction, reduce, reduction_of
from tests.tables import over

HEADER = """
parameters: {{w: 1.0}}
data: {{train: {{columns: {{x: x.npy, y: y.npy}}, batch_size: 2, shuffle: true, drop_last: true{more}}}}}
constants: {{c: {{init: {{expression: "{text}"}}}}}}
expression: loss = (w * x).sum() + 0 * y.sum() + 0 * c.sum()
"""


def fitted(text: str, folder: Path, more: str = "", limits: PlanLimits | None = None) -> torch.Tensor:
    """The constant `c` of a config, computed by `text` over `train.x` and `train.y`."""
    config = runner.loads(HEADER.format(text=text, more=more), base=str(folder))
    return runner.compile(config, limits=limits).fitted["c"]


def save(folder: Path, x: numpy.ndarray, y: numpy.ndarray | None = None) -> None:
    numpy.save(folder / "x.npy", x)
    numpy.save(folder / "y.npy", numpy.arange(len(x)) % 3 if y is None else y)


X = numpy.random.default_rng(0).normal(3, 2, size=(23, 4)).astype(numpy.float32)
WIDE = X.astype(numpy.float64)

EXPECTED = [
    ("train.x.mean(0)", WIDE.mean(0)),
    ("mean(train.x, 0)", WIDE.mean(0)),
    ("train.x.mean(dim=0, keepdim=True)", WIDE.mean(0, keepdims=True)),
    ("train.x.mean()", WIDE.mean()),
    ("train.x.mean((0, 1))", WIDE.mean()),
    ("train.x.mean(-2)", WIDE.mean(0)),
    ("train.x.std(0)", WIDE.std(0, ddof=1)),
    ("train.x.std(0, False)", WIDE.std(0)),
    ("train.x.std(0, correction=0)", WIDE.std(0)),
    ("train.x.std(0, correction=2, keepdim=True)", WIDE.std(0, ddof=2, keepdims=True)),
    ("train.x.std(0, correction=None)", WIDE.std(0, ddof=1)),
    ("train.x.std(False)", WIDE.std()),
    ("train.x.std(unbiased=False)", WIDE.std()),
    ("train.x.var(0, True, True)", WIDE.var(0, ddof=1, keepdims=True)),
    ("train.x.var()", WIDE.var(ddof=1)),
    ("train.x.sum(0)", WIDE.sum(0)),
    ("train.x.sum(0, dtype=float64)", WIDE.sum(0)),
    ("train.x.nansum(0)", WIDE.sum(0)),
    ("train.x.nanmean(0)", WIDE.mean(0)),
    ("train.x.amax(0)", WIDE.max(0)),
    ("train.x.amin((0, 1))", WIDE.min()),
    ("train.x.max()", WIDE.max()),
    ("train.x.max(0).values", WIDE.max(0)),
    ("train.x.min(0)[1]", WIDE.argmin(0)),
    ("max(train.x, dim=0, keepdim=True).indices", WIDE.argmax(0)[None]),
    ("train.x.mean(1)", WIDE.mean(1)),  # within each sample: holds the column
    ("train.x.median(0).values", numpy.sort(WIDE, 0)[11]),
    ("train.x[:, 0].mean()", WIDE[:, 0].mean()),
    ("train.y.sum()", (numpy.arange(23) % 3).sum()),
    ("train.y.max()", 2),
    ("bincount(train.y)", numpy.bincount(numpy.arange(23) % 3)),
    ("train.x.max(train.x)", WIDE),
    ("ones(train.x.shape)", numpy.ones((23, 4))),
    ("full([2], len(train.y))", numpy.full(2, 23)),
    ("train.x", WIDE),
]


@over("text, expected", EXPECTED)
def test_a_column_is_all_samples_whatever_the_batches(text: str, expected: numpy.ndarray, tmp_path: Path) -> None:
    save(tmp_path, X)
    found = fitted(text, tmp_path).double().numpy()
    assert found.shape == numpy.shape(expected)
    numpy.testing.assert_allclose(found, expected, rtol=2e-7)


@over("text, expected", EXPECTED)
def test_the_results_are_those_of_many_blocks(text: str, expected: numpy.ndarray, tmp_path: Path) -> None:
    save(tmp_path, X)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reductions, "BLOCK_ELEMENTS", 5 * 4)
        found = fitted(text, tmp_path).double().numpy()
    numpy.testing.assert_allclose(found, expected, rtol=2e-7)


NOT_FINITE = torch.tensor([[1.0, 3.0], [math.nan, math.inf], [2.0, 4.0]])


@over(
    "text, expected",
    [
        ("train.x.mean(0)", NOT_FINITE.mean(0)),
        ("train.x.nanmean(0)", NOT_FINITE.nanmean(0)),
        ("train.x.nansum(0)", NOT_FINITE.nansum(0)),
        ("train.x.max(0).values", NOT_FINITE.max(0).values),
        ("train.x.max(0).indices", NOT_FINITE.max(0).indices),
        ("train.x.amin(0)", NOT_FINITE.amin(0)),
        ("train.x.std(0)", NOT_FINITE.std(0)),
    ],
)
def test_what_is_not_finite_goes_through_as_in_torch(text: str, expected: torch.Tensor, tmp_path: Path) -> None:
    save(tmp_path, NOT_FINITE.numpy())
    for elements in (2, 1 << 18):  # blocks of one row, and one block
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reductions, "BLOCK_ELEMENTS", elements)
            torch.testing.assert_close(fitted(text, tmp_path), expected, equal_nan=True)


def test_sums_are_accumulated_in_float64_and_integers_exactly(tmp_path: Path) -> None:
    save(tmp_path, numpy.array([[1e8], [1.0], [-1e8], [1.0]], numpy.float32), numpy.array([2**62, 1, -(2**62), 4]))
    assert fitted("train.x.sum(0)", tmp_path).item() == 2.0
    assert fitted("train.y.sum()", tmp_path).item() == 5


def test_one_sample_has_no_spread(tmp_path: Path) -> None:
    numpy.save(tmp_path / "x.npy", numpy.ones((1, 2), numpy.float32))
    text = """
parameters: {w: 1.0}
data: {train: {columns: {x: x.npy}}}
constants: {c: {init: {expression: train.x.std(0)}}, d: {init: {expression: "train.x.std(0, correction=0)"}}}
expression: loss = (w * x).sum() + 0 * (c + d).sum()
"""
    plan = runner.compile(runner.loads(text, base=str(tmp_path)))
    assert plan.fitted["c"].isnan().all()
    assert plan.fitted["d"].tolist() == [0.0, 0.0]


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40),
    st.integers(1, 7),
    st.sampled_from(["mean", "std", "var", "sum", "min", "max"]),
    st.integers(0, 1),
)
@settings(max_examples=60)
def test_any_blocks_give_the_result_of_numpy(values: list[float], rows: int, operation: str, correction: int) -> None:
    x = torch.tensor(values)
    found = reduce(Reduction(operation, (0,), False, correction), x.split(rows))[0].item()
    wide = x.double().numpy()
    with numpy.errstate(all="ignore"):
        options = {"ddof": correction} if operation in ("std", "var") and len(values) > correction else {}
        expected = getattr(wide, operation)(**options)
    if operation in ("std", "var") and len(values) <= correction:
        expected = math.nan
    scale = float(numpy.abs(wide).max()) ** (2 if operation == "var" else 1)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12 * scale + 1e-30, nan_ok=True) or (
        operation == "std" and abs(found - expected) < 1e-7 * scale
    )


def test_calls_that_do_not_reduce_over_samples_are_not_reductions() -> None:
    assert reduction_of("mean", 2, (1,), {}) is None
    assert reduction_of("mean", 3, ((1, 2),), {}) is None
    assert reduction_of("sum", 2, (0,), {"dtype": torch.int32}) is None
    assert reduction_of("std", 1, (0, False, True), {}) == Reduction("std", (0,), False, 0)
    assert reduction_of("amax", 3, ((2, 0),), {}) == Reduction("amax", (0, 2), False)


@pytest.mark.parametrize("groups", [1, 7, 50])
def test_row_groups_do_not_change_bits(tmp_path: Path, groups: int) -> None:
    rows = 20_000
    values = numpy.random.default_rng(1).normal(size=rows)
    numpy.save(tmp_path / "x.npy", values)
    table = pyarrow.table({"a": values})
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet", row_group_size=-(-rows // groups))
    text = """
parameters: {w: 1.0}
data: {train: {file: x.parquet, columns: {x: a}}, other: {columns: {x: x.npy}}}
constants: {c: {init: {expression: "train.x.std() + train.x.mean()"}},
            d: {init: {expression: "other.x.std() + other.x.mean()"}}}
expression: loss = (w * x).sum() + 0 * (c + d)
"""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reductions, "BLOCK_ELEMENTS", 997)
        plan = runner.compile(runner.loads(text, base=str(tmp_path)))
    assert plan.fitted["c"].item() == plan.fitted["d"].item()


def test_a_reduction_needs_no_memory_for_the_column(tmp_path: Path) -> None:
    save(tmp_path, numpy.ones((400_000, 8), numpy.float32))
    limits = PlanLimits(memory=4 << 20)
    with pytest.raises(ConfigError, match=r"`train.x` is held in memory here and needs 1\d\.\d MiB, but only 4.0 MiB"):
        fitted("train.x.median(0).values", tmp_path, limits=limits)
    assert fitted("train.x.mean(0)", tmp_path, limits=limits).tolist() == [1.0] * 8


def test_a_held_column_counts_in_the_estimate(tmp_path: Path) -> None:
    save(tmp_path, X)
    text = HEADER.format(text="train.x.median(0).values", more="")
    held = runner.compile(runner.loads(text, base=str(tmp_path))).estimates.data
    text = HEADER.format(text="train.x.mean(0)", more="")
    reduced = runner.compile(runner.loads(text, base=str(tmp_path))).estimates.data
    assert held - reduced >= X.nbytes


def test_a_source_that_only_fits_is_used_and_not_opened(tmp_path: Path) -> None:
    save(tmp_path, X)
    text = """
parameters: {w: {shape: [features], init: 1.0}}
data: {fit: {columns: {x: x.npy}}}
constants: {features: "fit.x.shape[1]", rows: "len(fit.x) + 1", c: {init: {expression: fit.x.mean(0)}}}
expression: loss = (w * c).sum() / rows
"""
    plan = runner.compile(runner.loads(text, base=str(tmp_path)))
    assert plan.warnings == ()
    assert plan.sources == {}
    assert [path.name for path in plan.files] == ["x.npy"]
    assert plan.tensors["w"].shape == (4,)
    assert plan.scalars["rows"] == 24


def test_a_function_reduces_its_argument_in_blocks(tmp_path: Path) -> None:
    save(tmp_path, X)
    text = """
parameters: {w: 1.0}
data: {train: {columns: {x: x.npy, y: y.npy}}}
functions: {"spread(v)": "v.std(0) / v.mean(0)"}
constants: {c: {init: {expression: spread(train.x)}}}
expression: loss = (w * x).sum() + 0 * y.sum() + 0 * c.sum()
"""
    found = runner.compile(runner.loads(text, base=str(tmp_path))).fitted["c"].double().numpy()
    numpy.testing.assert_allclose(found, WIDE.std(0, ddof=1) / WIDE.mean(0), rtol=1e-6)


def test_recorded_values_are_not_fitted_again(tmp_path: Path) -> None:
    save(tmp_path, X)
    config = runner.loads(HEADER.format(text="train.x.mean(0)", more=""), base=str(tmp_path))
    recorded = runner.compile(config).fitted
    save(tmp_path, X + 100)
    again = runner.compile(config, fitted=recorded)
    assert torch.equal(again.fitted["c"], recorded["c"])
    assert not torch.equal(runner.compile(config).fitted["c"], recorded["c"])


def test_a_config_too_large_for_real_examples_reads_columns_too(tmp_path: Path) -> None:
    save(tmp_path, X)
    text = HEADER.format(text="train.x.mean(0)", more="").replace(
        "{w: 1.0}", "{w: 1.0, big: {shape: [5000, 5000], init: zeros}}"
    )
    text = text.replace("+ 0 * c.sum()", "+ 0 * c.sum() + big.sum() + c[0]")
    plan = runner.compile(runner.loads(text, base=str(tmp_path)))
    numpy.testing.assert_allclose(plan.fitted["c"].numpy(), WIDE.mean(0), rtol=1e-6)
    assert plan.tables["c"] == tuple(plan.fitted["c"].tolist())


FINE = """
parameters: {w: {shape: [4], init: 0.0}}
data: {train: {columns: {x: x.npy}, batch_size: 2}}
constants: {mean: {init: {expression: "train.x.mean(0)"}}, own: {init: {expression: train.x.std(0)}}}
expression: loss = ((x - mean) * w / own).square().sum()
optimizer: {sgd: {lr: 0.0}}
steps: 1
"""


def test_a_config_that_starts_from_a_run_takes_what_the_run_computed(tmp_path: Path) -> None:
    save(tmp_path, X)
    before = tmp_path / "before.yaml"
    before.write_text(FINE.replace("own", "spread"), encoding="utf-8")
    run = runner.run(before, runs_dir=tmp_path / "runs")
    save(tmp_path, X + 100)
    plan = runner.compile(runner.loads(FINE + f"from_run: {run.path}\n", base=str(tmp_path)))
    numpy.testing.assert_allclose(plan.fitted["mean"].numpy(), WIDE.mean(0), rtol=1e-6)  # of the run's data
    numpy.testing.assert_allclose(plan.fitted["own"].numpy(), (X + 100).astype(float).std(0, ddof=1), rtol=1e-6)
    other = FINE.replace("train.x.mean(0)", "train.x.mean(0, keepdim=True)") + f"from_run: {run.path}\n"
    message = r"`mean` is float32 of shape \[1, 4\], and the run of `from_run` computed float32 of shape \[4\]"
    with pytest.raises(ConfigError, match=message):
        runner.compile(runner.loads(other, base=str(tmp_path)))


CLASSES = """\
name: classes
constants: {count: classes(train.y)}
parameters: {w: {shape: [2, count], init: zeros}}
data:
  train: {file: animals.csv, columns: {x: [mass, height], y: kind}, fill: {mass: mean}, classes: {y: sorted}}
expression: loss = cross_entropy(x @ w, y)
optimizer: {sgd: {lr: 0.1}}
steps: 2
"""


def animals(folder: Path, rows: str) -> None:
    (folder / "animals.csv").write_text("mass,height,kind\n" + rows, encoding="utf-8")


def test_a_config_that_starts_from_a_run_takes_its_classes_and_fills(tmp_path: Path) -> None:
    animals(tmp_path, "1,1,cat\n,2,dog\n3,3,owl\n")
    (tmp_path / "before.yaml").write_text(CLASSES, encoding="utf-8")
    run = runner.run(tmp_path / "before.yaml", runs_dir=tmp_path / "runs")
    after = CLASSES + f"from_run: {run.path}\n"
    animals(tmp_path, "10,1,owl\n,2,dog\n30,3,owl\n")  # alone, it has two classes, and the mean 20
    train = runner.compile(runner.loads(after, base=str(tmp_path))).config.data["train"]
    assert list(train.classes["y"]) == ["cat", "dog", "owl"]
    assert train.fill["mass"] == 2
    animals(tmp_path, "10,1,bear\n,2,dog\n")
    message = r"animals.csv:2 holds `bear`, which is no class of `kind`\n      = the classes are cat, dog, owl"
    with pytest.raises(ConfigError, match=message):
        runner.compile(runner.loads(after, base=str(tmp_path)))


def test_a_run_whose_config_cannot_be_read_gives_no_classes(tmp_path: Path) -> None:
    animals(tmp_path, "1,1,cat\n2,2,dog\n")
    (tmp_path / "before.yaml").write_text(CLASSES, encoding="utf-8")
    run = runner.run(tmp_path / "before.yaml", runs_dir=tmp_path / "runs")
    (run.path / "config.yaml").write_text("parameters: [", encoding="utf-8")
    name = f"classes/{run.path.name}"
    message = f"`config.yaml` of {name} cannot be read\n      = restore the run, or name its weights file"
    with pytest.raises(ConfigError, match=re.escape(message)):
        runner.compile(runner.loads(CLASSES + f"from_run: {run.path}\n", base=str(tmp_path)))
