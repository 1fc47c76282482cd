"""Statistics of the slices of stacked tensors, beside those of the whole tensors."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import numpy
import pytest
import torch
from torch import Tensor

import runner
from runner.errors import RunError, UsageError
from runner.plan.rows import slices
from runner.plan.rows.columns import STATISTICS, Column, recorded
from runner.plan.rows.slices import MOST_SLICES, leading, slice_names
from runner.record import resume
from runner.record.reading import Run, open_run
from runner.record.rows.summary import summarize_slices
from tests.cli.commands import steprun
from tests.manifests import manifest_fields
from tests.record.rows.test_arrow import DTYPES
from tests.record.rows.test_tensor_logs import assert_statistics, by_hashlib, logged
from tests.tables import over

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
NEEDS_JAX = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs JAX")

LAYERS = """\
parameters:
  w: {shape: [3, 4, 5, 5], init: {normal: {std: 0.4}}, stacked: %d}
  b: {shape: [3, 4], init: zeros}
constants: {x: {shape: [2, 5], init: normal}}
expression: |
  h = x
  for i in range(3):
    h = h + tanh(h @ w[i].sum(0)) + b[i].sum()
  loss = (h ** 2).mean()
optimizer: {adam: {lr: 0.01}}
steps: 4
log: {tensors: %s, state: true%s}
"""


def run(folder: Path, stacked: int, tensors: str, more: str = "", *, engine: str = "eager") -> Run:
    path = folder / "layers.yaml"
    path.write_text(f"engine: {engine}\n" + LAYERS % (stacked, tensors, more), encoding="utf-8")
    return runner.run(path, runs_dir=folder / f"{tensors}-{engine}")


def names(columns: tuple[Column, ...]) -> list[str]:
    """The names of the tensors whose statistics are columns, in order."""
    return list(dict.fromkeys(column.of.name for column in columns if column.of is not None))


def sample(dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 3
    if dtype.is_complex:
        values = torch.complex(values, values.flip(-1))
    return values.abs().to(dtype) if not dtype.is_signed else values.to(dtype)


# which slices, and their names


@over(
    ("shape", "stacked", "expected"),
    [
        ((3, 4), 0, ()),
        ((3, 4), 1, (3,)),
        ((3, 4, 5), 2, (3, 4)),
        ((1, 4), 1, (1,)),
        ((MOST_SLICES, 2), 1, (MOST_SLICES,)),
        ((MOST_SLICES + 1, 2), 1, ()),
        ((32, 32, 2), 2, (32,)),
        ((2**31, 2, 2), 2, ()),
        ((0, 4), 1, ()),
        ((3, 0), 1, ()),
        ((3, 0, 2), 2, ()),
    ],
)
def test_the_leading_dimensions_have_at_most_so_many_slices(
    shape: tuple[int, ...], stacked: int, expected: tuple[int, ...]
) -> None:
    assert leading(shape, stacked) == expected


@over(("name", "form"), [("w", "w[{}]"), ("w.grad", "w[{}].grad"), ("w.exp_avg", "w[{}].exp_avg")])
@over("lengths", [(3,), (2, 3), (1, 1, 2)])
def test_the_names_of_slices_are_their_indexes_in_row_major_order(
    name: str, form: str, lengths: tuple[int, ...]
) -> None:
    expected = [form.format(",".join(map(str, index))) for index in numpy.ndindex(*lengths)]
    assert list(slice_names(name, lengths)) == expected
    assert slice_names(name, ()) == ()


# the numbers


@over("dtype", DTYPES)
@over(("shape", "lengths"), [((3, 4), (3,)), ((2, 3, 2, 2), (2, 3)), ((1, 7), (1,)), ((4, 1), (4,))])
def test_statistics_of_slices_are_those_that_numpy_gives_in_float64(
    dtype: torch.dtype, shape: tuple[int, ...], lengths: tuple[int, ...]
) -> None:
    tensor = sample(dtype, shape)
    table = logged(Column("w.grad", "gradient", dtype, shape, "stats", leading=lengths), [tensor, None])
    first, second = table.drop_columns(["row", "step", "path", "iteration"]).to_pylist()
    assert_statistics(first, tensor, "w.grad")
    for index in numpy.ndindex(*lengths):
        assert_statistics(first, tensor[index], f"w[{','.join(map(str, index))}].grad")
    assert len(first) == (1 + math.prod(lengths)) * len(STATISTICS)
    assert set(second.values()) == {None}


@over("value", [math.nan, math.inf, -math.inf])
def test_a_slice_that_is_not_finite_leaves_the_others_as_they_are(value: float) -> None:
    tensor = sample(torch.float32, (3, 4))
    tensor[1] = value
    found = logged(Column("w", "weight", torch.float32, (3, 4), "stats", leading=(3,)), [tensor]).to_pylist()[0]
    for number in range(3):
        assert_statistics(found, tensor[number], f"w[{number}]")
    assert found["w[1].mean"] is None
    assert found["w[1].nonfinite"] == 4


def test_a_transposed_and_a_large_tensor_are_sliced_along_their_first_dimension() -> None:
    for tensor in (sample(torch.float32, (5, 6, 4)).transpose(0, 2), sample(torch.float64, (3, 300, 300))):
        for number, found in enumerate(summarize_slices(tensor, 1)):
            expected = tensor[number].double().numpy()
            assert (found.mean, found.std) == pytest.approx((expected.mean(), expected.std()), rel=1e-10, abs=1e-15)
            assert (found.min, found.max) == (expected.min(), expected.max())
            assert found.norm == pytest.approx(numpy.linalg.norm(expected), rel=1e-12)


@pytest.mark.parametrize(
    ("stacked", "engine"),
    [
        (2, "eager"),
        pytest.param(1, "eager", marks=pytest.mark.slow),
        pytest.param(1, "compile", marks=pytest.mark.slow),
        pytest.param(2, "compile", marks=pytest.mark.slow),
        pytest.param(2, "xla", marks=[pytest.mark.slow, NEEDS_JAX]),
    ],
)
def test_a_run_records_each_slice_of_weights_gradients_and_state(
    tmp_path: Path, stacked: int, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine == "compile":
        from tests.engine.compiled.plain import without_compiler

        without_compiler(monkeypatch)
    found, whole = (run(tmp_path, stacked, tensors, engine=engine) for tensors in ("stats", "full"))
    lengths = (3, 4)[:stacked]
    pieces = [",".join(map(str, index)) for index in numpy.ndindex(*lengths)]
    for entry in ("", ".grad", ".exp_avg", ".exp_avg_sq"):
        tensors = whole.tensor(f"w{entry}", missing=0).double().flatten(1, stacked)
        for number, piece in enumerate(pieces):
            norms = found.tensor(f"w[{piece}]{entry}.norm", missing=0)
            assert norms.dtype == torch.float64
            torch.testing.assert_close(norms, tensors[:, number].flatten(1).square().sum(1).sqrt())
    slices_of_w = [f"w[{piece}]" for piece in pieces]
    assert names(found.columns)[1 : len(pieces) + 3] == ["w", *slices_of_w, "w.grad"]
    assert not any("b[" in column.name or "step[" in column.name for column in found.columns)
    assert (found.manifest["compile_seconds"] is None) is (engine == "eager")
    if engine == "xla":
        assert 0 < found.manifest["compile_seconds"] < found.manifest["seconds"]
        check_digests(run(tmp_path, stacked, "digest", engine=engine), whole)


def check_digests(found: Run, whole: Run) -> None:
    """Whether a log of digests has those by hashlib of the tensors of a log with all elements."""
    table = found.to_arrow()
    for name in ("h", "w", "w.grad", "b.exp_avg"):
        values = [row[name] for row in whole.rows()]
        expected = [None if value is None else by_hashlib(value) for value in values]
        assert table.column(f"{name}.digest").to_pylist() == expected
        assert len(set(expected)) > 3


def test_without_stacked_the_log_has_the_columns_that_it_had(tmp_path: Path) -> None:
    found = run(tmp_path, 0, "stats")
    entries = ("", ".grad", ".exp_avg", ".exp_avg_sq")
    assert names(found.columns) == ["h", *(f"{name}{entry}" for name in "wb" for entry in entries)]


def test_a_digest_is_of_the_whole_tensor(tmp_path: Path) -> None:
    assert "w[" not in " ".join(column.name for column in run(tmp_path, 1, "digest").columns)


def test_watching_slices_changes_no_weight(tmp_path: Path) -> None:
    weights = []
    for stacked in (0, 2):
        text = LAYERS.replace("init: {normal: {std: 0.4}}", "init: {constant: {val: 0.1}}") % (stacked, "stats", "")
        config = runner.loads(text + "health: {vanishing_gradient: 1e-30, update_ratio: [0, 1e9]}\n")
        *_, last = runner.execute(runner.compile(config))
        weights.append(last["w"])
    assert torch.equal(weights[0], weights[1])


# what `include` keeps


@over(
    ("include", "kept"),
    [
        ("[w]", ["w", "w[0]", "w[1]", "w[2]"]),
        ("['w[1]']", ["w[1]"]),
        ("['w[1]', w]", ["w", "w[0]", "w[1]", "w[2]"]),
        ("['w[*].grad']", ["w[0].grad", "w[1].grad", "w[2].grad"]),
        ("['w[2]*']", ["w[2]", "w[2].grad", "w[2].exp_avg", "w[2].exp_avg_sq"]),
        ("['w[?].exp_avg', b]", ["w[0].exp_avg", "w[1].exp_avg", "w[2].exp_avg", "b"]),
    ],
)
def test_include_keeps_a_tensor_with_its_slices_or_the_slices_that_it_names(include: str, kept: list[str]) -> None:
    plan = runner.compile(runner.loads(LAYERS % (1, "stats", f", include: {include}")))
    columns = tuple(part for column in plan.columns for part in recorded(column))
    assert names(columns) == kept
    assert plan.estimates.row == 8 * len(STATISTICS) * len(kept)


@over("tensors", ["full", "digest"])
def test_without_statistics_the_name_of_a_slice_keeps_its_tensor(tensors: str) -> None:
    plan = runner.compile(runner.loads(LAYERS % (1, tensors, ", include: ['w[1]']")))
    assert [column.name for column in plan.columns] == ["w"]


def test_the_slices_count_in_the_budget_of_the_log() -> None:
    bytes_of = {}
    for stacked in (0, 1):
        plan = runner.compile(runner.loads(LAYERS % (stacked, "stats", ", include: ['w*']")))
        bytes_of[stacked] = plan.estimates.row
    assert bytes_of == {0: 4 * 7 * 8 + 4, 1: 4 * 4 * 7 * 8 + 4}  # `w.step` is a float32 number
    with pytest.raises(runner.ConfigError, match="the log would exceed its budget"):
        runner.compile(runner.loads(LAYERS % (1, "stats", f", include: ['w*'], budget: {5 * bytes_of[1] - 1}")))


# reading back


def test_a_slice_that_was_not_kept_whole_is_told_so(tmp_path: Path) -> None:
    found = run(tmp_path, 1, "stats")
    kept = ", ".join(f"w[1].{name}" for name in STATISTICS)
    with pytest.raises(UsageError) as caught:
        found.tensor("w[1]")
    assert caught.value.problems[0].message == "the log kept statistics of `w[1]`, not its elements"
    assert caught.value.problems[0].hint == f"it has {kept}; `log: {{tensors: full}}` keeps every element"
    with pytest.raises(UsageError, match=r"it has w\.mean, w\.std, w\.min, w\.max, w\.norm, w\.zeros, w\.nonfinite;"):
        found.tensor("w")
    with pytest.raises(UsageError, match=r"no column `w\[3\]\.norm`"):
        found.tensor("w[3].norm")
    assert found.to_pandas()["w[2].zeros"].tolist() == [0] * 5


def test_two_runs_are_compared_slice_by_slice(tmp_path: Path) -> None:
    one = run(tmp_path, 1, "stats")
    other = run(tmp_path, 1, "stats", ", budget: 1_000_000")
    assert steprun("diff", str(one.path), str(other.path)).code == 0


def test_a_stopped_run_whose_log_has_other_columns_is_not_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "layers.yaml"
    path.write_text(LAYERS % (1, "stats", ""), encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(slices, "MOST_SLICES", 0)
        directory = runner.run(path, runs_dir=tmp_path).path
    manifest = manifest_fields(directory / "run.json")
    (directory / "run.json").write_text(json.dumps(manifest | {"status": "interrupted"}))
    with pytest.raises(RunError) as caught:
        resume(directory)
    problem = caught.value.problems[0]
    assert problem.message == f"{directory} was recorded by a version of steprun whose log has other columns"
    assert problem.hint == "run its config again for a new run"
    assert len(open_run(directory)) == 5


# showing


def test_show_names_the_slices(tmp_path: Path) -> None:
    path = tmp_path / "layers.yaml"
    path.write_text(LAYERS % (2, "stats", ", include: [w, 'w[1,*].grad', 'w[0,3].exp_avg']"), encoding="utf-8")
    lines = [line.split(maxsplit=6) for line in steprun("show", str(path)).out.splitlines() if " stats" in line]
    assert [(line[0], " ".join(line).partition("stats")[2]) for line in lines] == [
        ("w", ", and of 12 slices: w[0,0] … w[2,3]"),
        ("w.grad", " of 4 slices: w[1,0].grad … w[1,3].grad"),
        ("w.exp_avg", " of 1 slice: w[0,3].exp_avg"),
    ]
    columns = json.loads(steprun("show", str(path), "--json").out)["log"]["columns"]
    assert [(column["whole"], len(column["slices"])) for column in columns] == [(True, 12), (False, 4), (False, 1)]
