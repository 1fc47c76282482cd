from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy
import pandas
import pytest
import torch
from torch import Tensor

import runner
from runner.errors import UsageError
from runner.plan.rows.columns import Column
from runner.record import Run, open_run
from runner.record.manifest import RunDescription
from runner.record.recorder import recording
from tests.record.building import LINEAR, bits, linear_rows, rows_of, run_directory
from tests.tables import over

DESCRIPTION = RunDescription(["steprun"], "linear", 0, "cpu", "float32", "eager")
CONFIG = "parameters: {x: 1}\nexpression: 10 * x\n"


FLOATS = [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.float64, torch.complex128]
OTHERS = [torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int8, torch.int16, torch.int32]


def recorded(directory: Path, columns: Sequence[Column], values: Sequence[Sequence[Tensor | None]]) -> Run:
    with recording(run_directory(directory), columns, DESCRIPTION, CONFIG) as run:
        for row in rows_of(columns, values):
            run.write(row)
    return open_run(directory)


@pytest.fixture
def linear(tmp_path: Path) -> Run:
    with recording(run_directory(tmp_path / "linear" / "1"), LINEAR, DESCRIPTION, CONFIG) as run:
        for row in linear_rows(5):
            run.write(row)
    return open_run(tmp_path / "linear" / "1")


def test_rows_come_back_as_they_were(linear: Run) -> None:
    for back, row in zip(linear.rows(), linear_rows(5), strict=True):
        assert (back.number, back.step, back.path, back.iteration) == (row.number, row.step, row.path, row.iteration)
        assert back.columns == LINEAR
        for column in LINEAR:
            value, expected = back[column.name], row[column.name]
            assert (value is None) == (expected is None)
            assert value is None or expected is None or bits(value) == bits(expected)


def test_a_run_knows_its_length_columns_and_config(linear: Run) -> None:
    assert len(linear) == 5
    assert [row.number for row in linear] == [0, 1, 2, 3, 4]
    assert linear.columns == LINEAR
    assert linear.manifest["seed"] == 0
    assert linear.config.expression == runner.loads(CONFIG).expression


def test_a_column_is_one_tensor_with_nan_where_there_was_no_value(linear: Run) -> None:
    gradient = linear.tensor("x.grad")
    assert gradient.shape == (5, 1)
    assert gradient.dtype == torch.float32
    assert math.isnan(gradient[0, 0])
    assert gradient[1:].tolist() == [[10.0]] * 4
    assert linear.tensor("x.grad", missing=0)[0].tolist() == [0.0]
    assert linear.present("x.grad").tolist() == [False, True, True, True, True]


@over("dtype", FLOATS)
def test_a_column_has_its_true_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    value = torch.tensor([0.5, 2.0]).to(dtype)
    run = recorded(tmp_path / "run", [Column("w", "weight", dtype, (2,))], [[value], [None]])
    tensor = run.tensor("w")
    assert bits(tensor[0]) == bits(value)
    assert tensor[1].to(torch.complex128).isnan().all()


def test_a_column_without_nan_asks_what_stands_for_a_missing_value(tmp_path: Path) -> None:
    columns = [Column("n", "value", torch.int64, ()), Column("b", "value", torch.bool, (2,))]
    run = recorded(tmp_path / "run", columns, [[None, None], [torch.tensor(3), torch.tensor([True, False])]])
    with pytest.raises(UsageError, match=r"`n` has no value in 1 of 2 rows, and torch.int64 has no NaN\n.*missing=0"):
        run.tensor("n")
    assert run.tensor("n", missing=-1).tolist() == [-1, 3]
    assert run.tensor("b", missing=False).tolist() == [[False, False], [True, False]]


@over("dtype", FLOATS + OTHERS)
def test_any_column_takes_what_stands_for_a_missing_value(tmp_path: Path, dtype: torch.dtype) -> None:
    run = recorded(tmp_path / "run", [Column("w", "value", dtype, (2,))], [[None], [torch.zeros(2).to(dtype)]])
    assert bits(run.tensor("w", missing=1)) == bits(torch.tensor([[1, 1], [0, 0]]).to(dtype))


def test_a_shape_that_varies_is_read_value_by_value(tmp_path: Path) -> None:
    values = [[torch.zeros(2, 0).long()], [None], [torch.arange(3)], [torch.tensor(5)]]
    run = recorded(tmp_path / "run", [Column("v", "value", torch.int64, None)], values)
    assert [None if value is None else (value.shape, value.tolist()) for value in run.values("v")] == [
        ((2, 0), [[], []]),
        None,
        ((3,), [0, 1, 2]),
        ((), 5),
    ]
    with pytest.raises(UsageError, match=r"the shape of `v` varies from row to row\n.*run.values\('v'\)"):
        run.tensor("v")


def test_tensors_without_elements_stack(tmp_path: Path) -> None:
    columns = [Column("e", "value", torch.complex64, (0, 3))]
    run = recorded(tmp_path / "run", columns, [[torch.zeros(0, 3) + 0j], [None]])
    assert run.tensor("e").shape == (2, 0, 3)
    assert run.tensor("e").dtype == torch.complex64
    assert run.present("e").tolist() == [True, False]


def test_what_is_read_may_be_written(linear: Run) -> None:
    linear.tensor("x").zero_()
    for row in linear.rows():
        weight = row["x"]
        assert weight is not None
        weight += 1


def test_a_misspelt_column_is_an_error_with_the_nearest_name(linear: Run) -> None:
    for read in (linear.tensor, linear.values, linear.present):
        with pytest.raises(UsageError, match=r"no column `x.gard`\n.*did you mean `x.grad`\?"):
            read("x.gard")


def test_a_data_frame_has_numbers_where_there_is_one_element(tmp_path: Path) -> None:
    columns = [
        Column("f", "value", torch.bfloat16, (1,)),
        Column("n", "value", torch.int64, ()),
        Column("w", "weight", torch.float64, (2, 2)),
        Column("h", "value", torch.bfloat16, (2,)),
    ]
    w = torch.arange(4.0, dtype=torch.float64).reshape(2, 2)
    run = recorded(
        tmp_path / "run",
        columns,
        [[None, torch.tensor(1), None, None], [torch.tensor([2.5]).bfloat16(), torch.tensor(2), w, w[0].bfloat16()]],
    )
    frame = run.to_pandas()
    assert frame.columns.tolist() == ["row", "step", "path", "iteration", "f", "n", "w", "h"]
    assert frame["f"].dtype == numpy.float64
    assert frame["f"].isna().tolist() == [True, False]
    assert frame["f"][1] == 2.5
    assert frame["n"].tolist() == [1, 2]
    assert frame["w"][0] is None
    numpy.testing.assert_array_equal(frame["w"][1], w.numpy())
    numpy.testing.assert_array_equal(frame["h"][1], numpy.array([0.0, 1.0], dtype=numpy.float32))


def test_every_column_of_a_data_frame_can_be_written(linear: Run) -> None:
    frame = linear.to_pandas()
    for name in frame.columns:
        frame.loc[0, name] = frame.loc[1, name]
    assert frame.loc[0].equals(frame.loc[1])


def test_a_data_frame_needs_pandas(linear: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(UsageError, match=r"to_pandas needs pandas\n.*pip install pandas"):
        linear.to_pandas()


def test_an_arrow_table_holds_what_pandas_reads_from_the_folder(linear: Run) -> None:
    table = linear.to_arrow()
    assert table.column("row").to_pylist() == pandas.read_parquet(linear.path / "rows")["row"].tolist()
    assert table.column_names == ["row", "step", "path", "iteration", "f", "x", "x.grad"]


def test_a_run_without_rows_opens(tmp_path: Path) -> None:
    run = recorded(tmp_path / "run", LINEAR, [])
    assert run.columns == LINEAR
    assert run.tensor("x").shape == (0, 1)
    assert (len(run), list(run.rows()), run.values("x"), len(run.present("x"))) == (0, [], [], 0)
    assert run.to_arrow().column_names == ["row", "step", "path", "iteration", "f", "x", "x.grad"]
    assert len(run.to_pandas()) == 0


def test_a_run_that_goes_on_is_seen_as_it_was_when_opened(tmp_path: Path) -> None:
    directory = run_directory(tmp_path / "run")
    rows = list(linear_rows(4))
    with recording(directory, LINEAR, DESCRIPTION, CONFIG) as writing:
        for row in rows[:2]:
            writing.write(row)
    run = open_run(directory)
    (directory / "rows" / "00000.parquet").unlink()
    with recording(directory, LINEAR, DESCRIPTION, CONFIG) as writing:
        for row in rows:
            writing.write(row)
    assert len(run) == 2
    assert [row.number for row in run.rows()] == [0, 1]
    assert run.tensor("x").shape == (2, 1)
    assert len(open_run(directory)) == 4


def test_a_folder_of_runs_means_the_latest(linear: Run) -> None:
    latest = run_directory(linear.path.parent / "2")
    with recording(latest, LINEAR, DESCRIPTION, CONFIG):
        pass
    assert open_run(linear.path.parent).path == latest
    assert open_run(linear.path.parent / "latest").path == latest


def test_what_is_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no folder .*nothing\n.*steprun runs"):
        open_run(tmp_path / "nothing")
    (tmp_path / "linear.yaml").touch()
    with pytest.raises(UsageError, match=r"linear\.yaml is a file, not a run directory\n.*yaml` records a run"):
        open_run(tmp_path / "linear.yaml")
    with pytest.raises(UsageError, match=r"is not a run directory: it has no run.json"):
        open_run(str(tmp_path))


def test_it_shows_itself(linear: Run) -> None:
    assert repr(linear) == f"<Run {linear.path}: finished, 5 rows of 3 columns>"
    page = linear._repr_html_()
    assert "<td>finished</td>" in page
    assert "<tr><td>x.grad</td><td>gradient</td><td>[1]</td><td>float32</td></tr>" in page


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_thread_of_arrow_reads_a_run(linear: Run, tmp_path: Path) -> None:
    # Python aborts at its end if such a thread still has the file, about every second time.
    code = """if True:
        import os, sys, runner
        run = runner.open_run(sys.argv[1])
        run.to_arrow(), run.tensor("x.grad")
        names = [open(f"/proc/self/task/{task}/comm").read() for task in os.listdir("/proc/self/task")]
        print(sum("jemalloc" not in name for name in names))
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, str(tmp_path / "linear" / "1")]
    threads = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert threads == "1\n"
