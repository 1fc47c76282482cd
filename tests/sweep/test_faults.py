"""What goes wrong while a sweep runs: nothing that is finished is lost, and a person reads one sentence."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from runner.cli.output.sweep_progress import SweepProgress
from runner.config import load
from runner.errors import RunError, UsageError
from runner.sweep.planning import plan_sweep
from runner.sweep.record import merging, part_files, states
from runner.sweep.record.parts import outcomes_on_disk
from runner.sweep.record.reading import open_sweep
from runner.sweep.record.table import POINTS_FILE, read_table, write_table
from runner.sweep.running import How, resume_sweep, run_sweep, start_sweep
from tests.cli.commands import steprun
from tests.sweep.configs import HEAD, written
from tests.sweep.inline import inline
from tests.sweep.test_running import Seen, assert_is_the_run_alone

__all__ = ["inline"]

pytestmark = pytest.mark.usefixtures("inline")

MEASURED = """\
parameters: {w: 1.0}
constants: {rate: 0.1}
data: {train: {file: x.csv, columns: {x: x}}, valid: {file: x.csv, columns: {x: x}}}
expression: loss = (w * x).square().mean()
optimizer: {sgd: {lr: rate}}
steps: [{train: {data: train}}, {evaluate: valid, when: rate > LEAST}]
"""
RATES = "sweep: {grid: {rate: [0.1, 0.2, 0.3]}, objective: {minimize: valid.loss}}\n"


@pytest.mark.parametrize(
    ("least", "said", "objectives"),
    [
        ("0.0", "3 of 3 points done, best valid.loss", [True, True, True]),
        ("0.15", "3 of 3 points done, best valid.loss", [False, True, True]),
        ("1.0", "3 of 3 points done, no point has a number `valid.loss`", [False, False, False]),
    ],
)
def test_an_objective_that_is_not_measured_is_said(
    least: str, said: str, objectives: list[bool], tmp_path: Path
) -> None:
    (tmp_path / "x.csv").write_text("x\n1\n2\n")
    done = steprun("sweep", written(tmp_path, RATES, MEASURED.replace("LEAST", least)), "--jobs", "1", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    line = done.out.splitlines()[0]
    assert line.startswith(said)
    assert ("1 without a number `valid.loss`" in line) == (least == "0.15")
    (directory,) = (tmp_path / "sweeps" / "swept").iterdir()
    table = open_sweep(directory).table()
    assert [value is not None for value in table.column("objective").to_pylist()] == objectives
    shown = steprun("results", directory, "--best", "3", "--csv", cwd=tmp_path)
    first = shown.out.splitlines()[1].split(",")
    assert (shown.code, first[0]) == (0, {"0.0": "1", "0.15": "1", "1.0": "0"}[least])


def test_an_objective_that_is_nan_is_no_best(tmp_path: Path) -> None:
    head = (
        HEAD.replace("rate: 0.1", "rate: 0.1, sign: 1") + "metrics: {root: sqrt(sign * loss)}\non_nonfinite: ignore\n"
    )
    config = written(tmp_path, "sweep: {grid: {sign: [1, -1]}, objective: {minimize: root}}\n", head)
    done = steprun("sweep", config, "--jobs", "1", cwd=tmp_path)
    assert "(point 0), 1 without a number `root`" in done.out, done.err
    (directory,) = (tmp_path / "sweeps" / "swept").iterdir()
    assert [line.split(",")[0] for line in steprun("results", directory, "--csv").out.splitlines()[1:]] == ["0", "1"]


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def failing_after(count: int, write: Callable[..., Any]) -> Callable[..., Any]:
    left = [count]

    def fails(*given: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise FULL
        return write(*given, **named)

    return fails


@pytest.mark.slow
@pytest.mark.parametrize("module", [part_files, merging])
@pytest.mark.parametrize("count", [0, 3])
def test_a_full_disk_loses_no_finished_point(
    module: Any, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_files, "FLUSH_SECONDS", 0.0)  # a part for each point
    monkeypatch.setattr(merging, "MOST_PARTS", 3)
    monkeypatch.setattr("runner.sweep.running.TABLE_SECONDS", 0.0)
    config = load(written(tmp_path, "sweep: {grid: {seed: range(12)}}\n"))
    plan = plan_sweep(config, {})
    directory = start_sweep(config, plan, {}, tmp_path / "sweeps", How(lanes="off"))
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_atomically", failing_after(count, module.write_atomically))
        with pytest.raises(RunError, match="No space left on device") as caught:
            run_sweep(directory, plan, How(lanes="off"), Seen())
    (problem,) = caught.value.problems
    assert problem.message == f"cannot write to {directory}: No space left on device"
    assert problem.hint == f"free space, then `steprun resume {directory}`"
    finished = {rungs[0].index for rungs in outcomes_on_disk(directory).values()}
    plan, how = resume_sweep(directory, How())
    seen = Seen()
    run_sweep(directory, plan, how, seen)
    assert set(seen.started) == set(range(12)) - finished
    sweep = open_sweep(directory)
    assert sweep.table().column("status").to_pylist() == ["finished"] * 12
    for index in (0, 11):
        assert_is_the_run_alone(sweep, plan, index)


def test_a_sweep_that_cannot_begin_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load(written(tmp_path))
    plan = plan_sweep(config, {})
    monkeypatch.setattr("runner.sweep.running.write_manifest", failing_after(0, print))
    with pytest.raises(RunError, match=r"cannot write to .*: No space left on device"):
        start_sweep(config, plan, {}, tmp_path / "sweeps", How())


def bomb(path: Path, column: pyarrow.Array, name: str) -> None:
    """A table of points with one more column; text that is stored once and stands in each row."""
    fixed = {
        "point": pyarrow.array(range(len(column)), pyarrow.int64()),
        "status": pyarrow.array(["waiting"], pyarrow.string()).take(pyarrow.array([0] * len(column))),
        "identity": pyarrow.array(["0"], pyarrow.string()).take(pyarrow.array([0] * len(column))),
    }
    table = pyarrow.table({**fixed, name: column})
    pyarrow.parquet.write_table(table, path, compression="zstd", store_schema=False)


def test_a_small_table_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    config = load(written(tmp_path))
    plan = plan_sweep(config, {})
    directory = start_sweep(config, plan, {}, tmp_path / "sweeps", How())
    text = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 100_000, pyarrow.int32()), ["x" * (1 << 20)])
    bomb(directory / POINTS_FILE, text, "rate")
    assert (directory / POINTS_FILE).stat().st_size < 1 << 20
    with pytest.raises(UsageError, match=r"points.parquet is damaged: it takes more than 1,024 MiB of memory"):
        read_table(directory)


def test_a_table_of_texts_and_numbers_is_read_as_it_was_written(tmp_path: Path) -> None:
    sweep = "sweep: {points: [{rate: 0.1, dtype: float64}, {rate: 0.2}, {seed: 3, optimizer: {adam: {lr: rate}}}]}\n"
    config = load(written(tmp_path, sweep))
    plan = plan_sweep(config, {})
    directory = start_sweep(config, plan, {}, tmp_path / "sweeps", How())
    write_table(directory, plan.tasks, plan.points, {}, plan.objective)
    table = read_table(directory)
    assert table is not None
    assert table.replace_schema_metadata(None) == pyarrow.parquet.read_table(
        directory / POINTS_FILE
    ).replace_schema_metadata(None)


def test_a_state_that_cannot_be_written_loses_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = "sweep: {grid: {rate: [0.1, 0.2, 0.3]}, objective: {minimize: loss}, halving: {at: [2], keep: 1/2}}\n"
    config = load(written(tmp_path, sweep))
    plan = plan_sweep(config, {})
    directory = start_sweep(config, plan, {}, tmp_path / "sweeps", How())
    with monkeypatch.context() as patch:
        patch.setattr(states, "write_atomically", failing_after(1, states.write_atomically))
        with pytest.raises(RunError, match="No space left on device"):
            run_sweep(directory, plan, How(), Seen())
    plan, how = resume_sweep(directory, How())
    run_sweep(directory, plan, how, Seen())
    assert sorted(open_sweep(directory).table().column("status").to_pylist()) == ["finished"] * 2 + ["stopped"]


def test_the_progress_of_an_unknown_objective_is_silent() -> None:
    assert SweepProgress(3, None, quiet=True).summary() == "0 of 3 points done"


def test_a_sweep_killed_before_its_table_keeps_the_index_of_each_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table is there before the first point runs, and is never without the points that have ended."""
    config = load(written(tmp_path, "sweep: {grid: {rate: [1e30, 0.1, 0.2], seed: range(2)}}\n"))
    plan = plan_sweep(config, {})
    directory = start_sweep(config, plan, {}, tmp_path / "sweeps", How(lanes="off"))
    tables: list[list[Any]] = []

    def killed(*_: Any) -> Any:
        table = read_table(directory)
        assert table is not None
        tables.append(table.column("status").to_pylist())
        raise KeyboardInterrupt

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr("runner.sweep.executors.here.run_tasks", killed)
            with pytest.raises(KeyboardInterrupt):
                run_sweep(directory, plan, How(lanes="off"), Seen())
        plan, _how = resume_sweep(directory, How())
        assert [task.index for task in plan.tasks] == list(range(6))
    assert tables == [["waiting"] * 6] * 2


def test_without_an_objective_no_point_is_the_best(tmp_path: Path) -> None:
    config = written(tmp_path, "sweep: {grid: {seed: range(4)}}\n")
    steprun("sweep", config, "--jobs", "1", "--quiet", cwd=tmp_path)
    (directory,) = (path for path in (tmp_path / "sweeps" / "swept").iterdir() if not path.is_symlink())
    done = steprun("results", directory, "--best", "2", cwd=tmp_path)
    assert done.code == 2
    assert done.err == (
        "steprun\n"
        "      no point is the best one, because the sweep has no objective\n"
        "      = sort by a column with --by, such as `--by loss`\n"
    )
    sorted_by_loss = steprun("results", directory, "--best", "2", "--by", "loss", "--csv", cwd=tmp_path)
    losses = [float(line.split(",")[3]) for line in sorted_by_loss.out.splitlines()[1:]]
    assert losses == sorted(open_sweep(directory).table().column("loss.last").to_pylist())[:2]


def test_lanes_that_are_demanded_and_too_few_are_a_fault_at_the_sweep(tmp_path: Path) -> None:
    config = written(tmp_path, "sweep: {grid: {rate: [0.1, 0.2]}}\n")
    done = steprun("sweep", config, "--lanes", "exact", cwd=tmp_path)
    assert done.err.splitlines()[1:] == [
        "    6 | sweep: {grid: {rate: [0.1, 0.2]}}",
        "      | ^^^^^ no point can be a lane: fewer than 4 points",
        "      = leave --lanes out, and the points run in processes",
    ]
