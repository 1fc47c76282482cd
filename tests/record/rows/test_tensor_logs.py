"""Logs that keep statistics or a digest of each tensor, instead of its elements."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy
import pandas
import polars
import pyarrow
import pytest
import torch
from torch import Tensor

import runner
from runner.engine.rows import Row
from runner.errors import UsageError
from runner.plan.rows.columns import STATISTICS, Column, Kept
from runner.record import create_run_directory, resume
from runner.record.reading import open_run
from runner.record.recorder import recording
from runner.record.rows import arrow
from runner.record.rows.batch import blank_of, pack
from runner.record.rows.parts import PartWriter
from runner.record.rows.storage import stored_column
from runner.record.running import run_recorded
from tests.record.building import bits, rows_of, run_directory
from tests.record.rows.test_arrow import DTYPES, through_parquet
from tests.record.stopping import stopped_after
from tests.record.test_reading import CONFIG, DESCRIPTION, recorded
from tests.tables import over

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")

UNKNOWN_TO_NUMPY = {torch.bfloat16: torch.int16, torch.float8_e5m2: torch.uint8}
MODEL = """\
parameters: {w: {shape: [4, 5], init: orthogonal}, b: {shape: [5], init: zeros}, scale: 2.0, one: {shape: [1], init: 1}}
constants: {x: {shape: [3, 4], init: normal}}
expression: |
  h = x @ w + b * one
  loss = scale * (h ** 2).mean()
optimizer: {adam: {lr: 0.01}}
steps: [backward, {repeat: {times: 6, steps: [train]}}]
"""


def sample(dtype: torch.dtype) -> Tensor:
    """Zeros, a negative number, NaN and infinities, as far as the dtype has them."""
    values = torch.tensor([[0.0, 1.0, 3.0], [0.5, -2.0, 0.0]], dtype=torch.float64)
    if dtype.is_complex:
        values = torch.complex(values, values.flip(1))
    if dtype.is_floating_point or dtype.is_complex:
        values[0, 1], values[1, 0] = math.nan, -math.inf
    return values.abs().to(dtype) if not dtype.is_signed else values.to(dtype)


def by_numpy(tensor: Tensor) -> dict[str, float | None]:
    """The statistics by NumPy, in float64."""
    values = tensor.to(torch.complex128 if tensor.dtype.is_complex else torch.float64).numpy().reshape(-1)
    if values.dtype.kind == "c":
        values = numpy.abs(values)
    finite = values[numpy.isfinite(values)]
    known = len(finite) > 0
    return {
        "mean": finite.mean() if known else None,
        "std": finite.std() if known else None,
        "min": finite.min() if known else None,
        "max": finite.max() if known else None,
        "norm": math.sqrt((finite**2).sum()),
        "zeros": int((finite == 0).sum()),
        "nonfinite": len(values) - len(finite),
    }


def by_hashlib(tensor: Tensor) -> str:
    """The digest by hashlib, of what NumPy says the bytes are."""
    raw = tensor.view(UNKNOWN_TO_NUMPY[tensor.dtype]) if tensor.dtype in UNKNOWN_TO_NUMPY else tensor
    head = f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}\n".encode()
    return hashlib.sha256(head + numpy.ascontiguousarray(raw.numpy()).tobytes()).hexdigest()[:16]


def logged(column: Column, values: list[Tensor | None]) -> pyarrow.Table:
    stored = stored_column(column)
    batch = pack(rows_of([column], [[value] for value in values]), [stored], [blank_of(stored)])
    return through_parquet([column], [batch])


def assert_statistics(found: dict[str, object], tensor: Tensor, name: str = "w") -> None:
    for key, expected in by_numpy(tensor).items():
        told = found[f"{name}.{key}"]
        assert told == (expected if expected is None else pytest.approx(expected, rel=1e-12)), key


@over("dtype", DTYPES)
def test_statistics_are_those_that_numpy_gives_in_float64(dtype: torch.dtype) -> None:
    table = logged(Column("w", "weight", dtype, (2, 3), "stats"), [sample(dtype), None])
    first, second = table.select([f"w.{name}" for name in STATISTICS]).to_pylist()
    assert_statistics(first, sample(dtype))
    assert set(second.values()) == {None}


@over("shape", [(0,), (2, 0, 3), (), (1, 1), (70, 80)])
@over("varies", [False, True])
def test_statistics_of_every_shape(shape: tuple[int, ...], varies: bool) -> None:
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    table = logged(Column("w", "value", torch.float32, None if varies else shape, "stats"), [tensor])
    assert_statistics(table.to_pylist()[0], tensor)


def test_where_nothing_is_finite_there_are_only_counts() -> None:
    table = logged(Column("w", "weight", torch.float32, (2,), "stats"), [torch.tensor([math.nan, math.inf])])
    found = table.to_pylist()[0]
    assert [found[f"w.{name}"] for name in STATISTICS] == [None, None, None, None, 0.0, 0, 2]


@over(
    "dtype",
    [
        torch.bool,
        torch.uint8,
        torch.int64,
        torch.float16,
        torch.bfloat16,
        torch.float8_e5m2,
        torch.float64,
        torch.complex64,
    ],
)
def test_a_digest_is_that_of_dtype_shape_and_bytes(dtype: torch.dtype) -> None:
    transposed = sample(dtype).T
    table = logged(Column("w", "weight", dtype, (3, 2), "digest"), [None, transposed, transposed.clone()])
    expected = by_hashlib(transposed.contiguous())
    assert table.column("w.digest").to_pylist() == [None, expected, expected]


def test_a_digest_of_nothing_and_of_a_shape_that_varies() -> None:
    values = [torch.zeros(0, 3), torch.ones(2)]
    table = logged(Column("v", "value", torch.float32, None, "digest"), list(values))
    assert table.column("v.digest").to_pylist() == [by_hashlib(value) for value in values]


def test_pandas_and_polars_read_plain_columns(tmp_path: Path) -> None:
    values = [None, sample(torch.float32), sample(torch.float32) * 2]
    for kept in ("stats", "digest"):
        folder = tmp_path / kept
        recorded(folder, [Column("w", "weight", torch.float32, (2, 3), kept)], [[value] for value in values])
        frames = [pandas.read_parquet(folder / "rows"), polars.read_parquet(folder / "rows").to_pandas()]
        for frame in (*frames, open_run(folder).to_pandas()):
            if kept == "digest":
                assert frame["w.digest"].tolist()[1:] == [by_hashlib(value) for value in values if value is not None]
                assert frame["w.digest"].isna().tolist() == [True, False, False]
            else:
                assert_statistics(frame.iloc[2].to_dict(), sample(torch.float32) * 2)
                assert frame[[f"w.{name}" for name in STATISTICS]].iloc[0].isna().all()
    polar = polars.read_parquet(tmp_path / "stats" / "rows").schema
    assert [polar[f"w.{name}"] for name in STATISTICS] == [polars.Float64] * 5 + [polars.Int64] * 2


@pytest.fixture(params=["stats", "digest"])
def kept(request: pytest.FixtureRequest) -> Kept:
    return request.param  # type: ignore[no-any-return]


def test_a_run_records_what_its_rows_have_whole(tmp_path: Path, kept: Kept) -> None:
    (tmp_path / "m.yaml").write_text(MODEL)
    run = runner.run(tmp_path / "m.yaml", [f"log={{tensors: {kept}, state: true}}"], runs_dir=tmp_path / "runs")
    rows = list(runner.execute(runner.compile(runner.load(tmp_path / "m.yaml", ["log={state: true}"]))))
    frame = run.to_pandas()
    whole = ("loss", "scale", "scale.grad", "one", "one.grad", "one.exp_avg", "w.step")
    reduced = ("h", "w", "w.grad", "b", "b.grad", "w.exp_avg", "w.exp_avg_sq")
    for number, row in enumerate(rows):
        for name in whole:
            value, found = row[name], run.values(name)[number]
            assert (found is None) == (value is None)
            assert value is None or found is None or bits(found) == bits(value)
        for name in reduced:
            value = row[name]
            if value is None:
                assert not run.present(f"{name}.{'norm' if kept == 'stats' else 'digest'}")[number]
            elif kept == "stats":
                assert_statistics(frame.iloc[number].to_dict(), value, name)
            else:
                assert frame[f"{name}.digest"][number] == by_hashlib(value)
                assert bytes(run.tensor(f"{name}.digest", missing=0)[number].tolist()).hex() == by_hashlib(value)
    assert not {"w", "h", "b.grad"} & {column.name for column in run.columns}
    assert len(run.columns) == 13 + 9 * (7 if kept == "stats" else 1)


def test_what_the_log_keeps_changes_no_bit_of_the_run(tmp_path: Path, kept: Kept) -> None:
    (tmp_path / "m.yaml").write_text(MODEL)
    last: dict[str, Row] = {}
    for tensors in ("full", kept):
        plan = runner.compile(runner.load(tmp_path / "m.yaml", [f"log.tensors={tensors}"]))
        folder = create_run_directory(tmp_path / tensors, "m", pandas.Timestamp(0).to_pydatetime())
        run_recorded(plan, folder, see=lambda row, tensors=tensors: last.update({tensors: row}))  # type: ignore[misc]
    for before, after in zip(last["full"].values, last[kept].values, strict=True):
        assert before is not None
        assert after is not None
        assert bits(before) == bits(after)


def test_statistics_read_back_as_float64(tmp_path: Path) -> None:
    columns = [Column("w", "weight", torch.float16, (2, 3), "stats")]
    run = recorded(tmp_path / "run", columns, [[sample(torch.float16)], [None]])
    assert run.tensor("w.max").dtype == torch.float64
    assert run.tensor("w.max")[0] == 3.0
    assert run.present("w.max").tolist() == [True, False]
    assert run.tensor("w.nonfinite", missing=-1).tolist() == [2, -1]
    assert [value is None for value in run.values("w.mean")] == [False, True]
    assert [row["w.zeros"] for row in run] == [torch.tensor(2), None]
    assert {column.of for column in run.columns} == set(columns)


@pytest.mark.parametrize(
    ("kept", "text"),
    [
        (
            "stats",
            "the log kept statistics of `w`, not its elements; it has w.mean, w.std, w.min, w.max, w.norm, w.zeros, "
            "w.nonfinite; `log: {tensors: full}` keeps every element",
        ),
        (
            "digest",
            "the log kept a digest of `w`, not its elements; it has w.digest; "
            "`log: {tensors: full}` keeps every element",
        ),
    ],
)
def test_asking_for_elements_that_were_not_kept_says_what_was(tmp_path: Path, kept: Kept, text: str) -> None:
    run = recorded(tmp_path / "run", [Column("w", "weight", torch.float32, (2,), kept)], [[torch.ones(2)]])
    for ask in (run.tensor, run.values, run.present):
        with pytest.raises(UsageError, match="the log kept") as caught:
            ask("w")
        (problem,) = caught.value.problems
        assert f"{problem.message}; {problem.hint}" == text


def test_a_run_without_rows_knows_its_columns(tmp_path: Path, kept: Kept) -> None:
    columns = [Column("w", "weight", torch.float32, (2,), kept)]
    with recording(run_directory(tmp_path / "empty"), columns, DESCRIPTION, CONFIG):
        pass
    full = recorded(tmp_path / "full", columns, [[torch.ones(2)]])
    assert open_run(tmp_path / "empty").columns == full.columns


def test_a_run_that_goes_on_ends_in_the_same_log(tmp_path: Path, kept: Kept) -> None:
    (tmp_path / "m.yaml").write_text(MODEL)
    overrides = [f"log.tensors={kept}"]
    whole = runner.run(tmp_path / "m.yaml", overrides, runs_dir=tmp_path / "whole")
    folder = stopped_after(3, tmp_path / "m.yaml", tmp_path / "parts", overrides)
    assert resume(folder).to_arrow().equals(whole.to_arrow())


def test_rows_that_share_a_large_tensor_have_it_summed_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Tensor] = []
    summarize = arrow.summarize
    monkeypatch.setattr(arrow, "summarize", lambda tensor: calls.append(tensor) or summarize(tensor))
    w, v = torch.ones(2000), torch.zeros(2000)
    table = logged(Column("w", "weight", torch.float32, (2000,), "stats"), [w, w, v, None, w])
    assert table.column("w.mean").to_pylist() == [1.0, 1.0, 0.0, None, 1.0]
    assert len(calls) == 2


def test_parts_are_as_large_as_what_is_kept(tmp_path: Path) -> None:
    column = stored_column(Column("w", "weight", torch.float32, (1 << 18,), "stats"))
    parts = PartWriter(run_directory(tmp_path / "run") / "rows", [column], 4 << 20, interval=60.0)
    for number in range(12):
        parts.add(
            pack(rows_of([column.column], [[torch.full((1 << 18,), float(number))]]), [column], [blank_of(column)])
        )
    parts.write()
    assert [path.name for path in (tmp_path / "run" / "rows").iterdir()] == ["00000.parquet"]
    means = polars.read_parquet(tmp_path / "run" / "rows")["w.mean"].to_list()
    assert means == [float(number) for number in range(12)]


@pytest.mark.parametrize(("tensors", "row"), [("full", 4 * 2001), ("stats", 2 * 7 * 8 + 4), ("digest", 2 * 8 + 4)])
def test_the_log_is_estimated_by_what_it_keeps(tensors: str, row: int) -> None:
    text = "parameters: {w: {shape: [1000], init: ones}}\nexpression: w.sum()\nlog: {tensors: %s}\n"
    assert runner.compile(runner.loads(text % tensors)).estimates.row == row
