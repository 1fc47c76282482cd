"""Running sweeps: the numbers of a run alone, faults of single points, kills and resuming."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch

import runner
from runner.config import load, overridden
from runner.errors import UsageError
from runner.sweep.executors import processes
from runner.sweep.planning import SweepPlan, plan_sweep
from runner.sweep.points.outcome import Outcome
from runner.sweep.record.parts import outcomes_in, part_paths
from runner.sweep.record.reading import Sweep, open_sweep
from runner.sweep.running import How, resume_sweep, run_sweep, start_sweep
from tests.cli.commands import steprun
from tests.sweep.configs import HEAD, RATES, written

pytestmark = pytest.mark.slow  # each starts processes, which import torch


class Seen:
    """A watch that keeps what it sees."""

    def __init__(self) -> None:
        self.started: list[int] = []
        self.outcomes: list[Outcome] = []

    def begun(self, index: int) -> None:
        self.started.append(index)

    def known(self, outcomes: Any) -> None:
        self.outcomes += outcomes

    def ended(self, outcomes: Any) -> None:
        self.outcomes += outcomes


def swept(folder: Path, sweep: str = RATES, head: str = HEAD, **how: Any) -> tuple[Sweep, SweepPlan, Seen]:
    config = load(written(folder, sweep, head))
    plan, seen = plan_sweep(config, {}), Seen()
    directory = start_sweep(config, plan, {}, folder / "sweeps", How(**how))
    run_sweep(directory, plan, How(**how), seen)
    return open_sweep(directory), plan, seen


def assert_is_the_run_alone(sweep: Sweep, plan: SweepPlan, index: int) -> None:
    config = overridden(plan.base, plan.points[index].overrides)
    alone = list(runner.execute(runner.compile(config)))
    together = list(sweep.run(index).rows())
    assert len(alone) == len(together)
    for one, other in zip(alone, together, strict=True):
        assert (one.step, one.path, one.iteration) == (other.step, other.path, other.iteration)
        for name in one:
            left, right = one[name], other[name]
            assert (left is None and right is None) or torch.equal(left, right), name  # type: ignore[arg-type]
    for name, weight in sweep.weights(index).items():
        if name in set(alone[-1]):  # one that is not logged cannot be compared
            assert torch.equal(weight, alone[-1][name]), name  # type: ignore[arg-type]


@pytest.mark.parametrize(("jobs", "lanes"), [(1, "off"), (2, "off"), (1, "exact")])
def test_each_point_has_the_bits_of_the_run_alone(jobs: int, lanes: str, tmp_path: Path) -> None:
    sweep, plan, seen = swept(tmp_path, jobs=jobs, lanes=lanes)
    assert (sweep.status, len(sweep), sorted(seen.started)) == ("finished", 6, list(range(6)))
    for index in range(6):
        assert_is_the_run_alone(sweep, plan, index)
    table = sweep.table()
    assert table.column_names[:5] == ["point", "rate", "seed", "status", "objective"]
    losses = [float(sweep.run(index).tensor("loss")[-1]) for index in range(6)]
    assert steprun("plot", f"{sweep.path}#1", "loss").out.splitlines()[-2].split()[-1] == "5"  # the last row
    assert table.column("objective").to_pylist() == losses
    assert [path.parent.parent.name for path in part_paths(sweep.path)] == ["rows"] * len(list(part_paths(sweep.path)))


def test_the_folds_of_a_data_file_are_the_points_of_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    values = [float(value) for value in torch.arange(10.0) ** 2]
    (tmp_path / "squares.csv").write_text("x\n" + "".join(f"{value}\n" for value in values))
    head = """
parameters: {guess: 0.0}
constants: {k: 0, mean: {init: {expression: train.x.mean()}}}
data:
  train: {file: squares.csv, columns: {x: x}, select: {fold: k, of: 5}}
  valid: {file: squares.csv, columns: {x: x}, select: {fold: k, of: 5, held_out: true}}
expression: loss = (x - mean - guess).square().mean()
optimizer: {sgd: {lr: 0.0}}
steps: [train, {evaluate: valid}]
"""
    sweep, plan, seen = swept(tmp_path, "sweep: {grid: {k: range(5)}}\n", head)
    assert [outcome.status for outcome in seen.outcomes] == ["finished"] * 5
    for index in range(5):
        assert_is_the_run_alone(sweep, plan, index)
    _, how = resume_sweep(sweep.path, How())
    assert tmp_path in how.allowed


def test_weights_are_rows_of_one_table(tmp_path: Path) -> None:
    sweep, plan, _ = swept(tmp_path, head=HEAD + "log: {tensors: none}\n")
    parts = [pyarrow.parquet.read_table(path) for path in part_paths(sweep.path, "weights")]
    table = pyarrow.concat_tables(parts).to_pandas().set_index("point")
    for index in range(6):
        config = overridden(plan.base, [*plan.points[index].overrides, "log.tensors=full"])
        *_, last = runner.execute(runner.compile(config))
        weights = last["w"]
        assert weights is not None
        assert table.loc[index, "w"].tolist() == weights.tolist()


def test_a_point_that_fails_is_a_row_and_the_others_go_on(tmp_path: Path) -> None:
    sweep, _, seen = swept(tmp_path, "sweep: {grid: {rate: [0.1, 1e30, 0.2]}}\n", jobs=1)
    table = sweep.table().to_pylist()
    assert [row["status"] for row in table] == ["finished", "failed", "finished"]
    assert table[1]["failure"] == "sweep.yaml:4:21: `loss` is inf, from `w ** 2` (row 2, repeat[2].train)"
    assert sweep.run(1).status == "failed"
    assert len(sweep.run(1)) < 6
    assert sweep.status == "finished"
    assert len(seen.outcomes) == 3


def test_fail_fast_stops_at_the_first_failure(tmp_path: Path) -> None:
    sweep, _, seen = swept(
        tmp_path, "sweep: {grid: {rate: [1e30, 0.1, 0.2, 0.3]}}\n", jobs=1, fail_fast=True, lanes="off"
    )
    assert sweep.status == "failed"
    assert [outcome.status for outcome in seen.outcomes] == ["failed"]


def test_a_point_that_takes_too_long_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = HEAD.replace("steps: 5", "steps: n").replace("rate: 0.1", "rate: 0.01, n: 5") + "log: {every: 100000}\n"
    path = written(tmp_path, "sweep: {grid: {n: [5, 100000000, 6]}}\n", head)
    how, seen = How(jobs=1, time_limit=3600.0), Seen()
    plan = plan_sweep(load(path), {})
    directory = start_sweep(load(path), plan, {}, tmp_path / "sweeps", how)

    def monotonic() -> float:
        """A clock that is two hours ahead while the second point runs: no real time decides."""
        return time.monotonic() + (7200.0 if seen.started[-1:] == [1] else 0.0)

    monkeypatch.setattr(processes, "time", SimpleNamespace(monotonic=monotonic))
    run_sweep(directory, plan, how, seen)
    table = open_sweep(directory).table().to_pylist()
    assert [row["status"] for row in table] == ["finished", "failed", "finished"]
    assert table[1]["failure"] == "took longer than 3600 s"


LONG = HEAD.replace("steps: 5", "steps: 6000") + "log: {every: 1000}\n"
SEEDS = "sweep: {grid: {seed: range(8)}, objective: {minimize: loss}}\n"


def command(*arguments: str | Path, cwd: Path, stderr: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """Starts a command whose processes write each point as soon as it has ended."""
    (cwd / "at-once").mkdir(exist_ok=True)
    (cwd / "at-once" / "sitecustomize.py").write_text(
        "from runner.sweep.record import part_files\npart_files.FLUSH_SECONDS = 0.0\n"
    )
    words = [sys.executable, "-m", "runner", *map(str, arguments)]
    places = os.pathsep.join([str(cwd / "at-once"), str(Path(runner.__file__).parents[1])])
    environment = {**os.environ, "PYTHONPATH": places}
    return subprocess.Popen(words, cwd=cwd, stdout=subprocess.DEVNULL, stderr=stderr, env=environment)


def children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False).stdout
    return [int(word) for word in found.split()]


def wait_for_parts(folder: Path, count: int, process: subprocess.Popen[bytes]) -> Path:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        for directory in folder.glob("sweeps/*/*"):
            if (directory / "sweep.json").exists() and len(list(part_paths(directory))) >= count:
                return directory
        time.sleep(0.05)
    raise AssertionError("no part has appeared")


@pytest.mark.parametrize("victim", ["driver", "worker"])
def test_a_killed_sweep_resumes_with_the_missing_points_alone(victim: str, tmp_path: Path) -> None:
    config = written(tmp_path, SEEDS, LONG)
    process = command("sweep", config, "--jobs", "1", "--lanes", "off", cwd=tmp_path)
    directory = wait_for_parts(tmp_path, 1, process)
    killed = process.pid if victim == "driver" else children(process.pid)[0]
    os.kill(killed, signal.SIGKILL)
    process.wait()
    sweep = open_sweep(directory)
    done = {row["point"] for row in sweep.table().to_pylist() if row["status"] == "finished"}
    assert sweep.status == ("killed" if victim == "driver" else "finished")
    plan, how = resume_sweep(directory, How(jobs=1, lanes="off"))
    on_disk = {outcome.index for path in part_paths(directory) for outcome in outcomes_in(path)}
    assert done <= on_disk
    seen = Seen()
    run_sweep(directory, plan, how, seen, retry=True)
    assert set(seen.started) == set(range(8)) - on_disk
    table = open_sweep(directory).table()
    assert table.column("status").to_pylist() == ["finished"] * 8
    for index in (0, 7):
        assert_is_the_run_alone(open_sweep(directory), plan, index)


def test_a_point_whose_process_dies_has_failed(tmp_path: Path) -> None:
    config = written(tmp_path, SEEDS, LONG)
    process = command("sweep", config, "--jobs", "1", "--lanes", "off", cwd=tmp_path)
    directory = wait_for_parts(tmp_path, 1, process)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    assert process.wait() == 1
    failures = [row["failure"] for row in open_sweep(directory).table().to_pylist() if row["status"] == "failed"]
    assert failures == ["its process was ended by SIGKILL"]


def test_an_interrupted_sweep_says_how_to_go_on(tmp_path: Path) -> None:
    config = written(tmp_path, SEEDS, LONG)
    process = command("sweep", config, "--jobs", "1", "--lanes", "off", cwd=tmp_path, stderr=subprocess.PIPE)
    directory = wait_for_parts(tmp_path, 1, process)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    assert process.returncode == 130
    assert f"interrupted; `steprun resume {directory.relative_to(tmp_path)}` goes on" in error.decode()
    assert open_sweep(directory).status == "interrupted"


def test_two_processes_cannot_run_one_sweep(tmp_path: Path) -> None:
    config = written(tmp_path, SEEDS, LONG)
    process = command("sweep", config, "--jobs", "1", "--lanes", "off", cwd=tmp_path)
    directory = wait_for_parts(tmp_path, 1, process)
    plan, how = resume_sweep(directory, How())
    with pytest.raises(UsageError, match=r"is running: another process is writing to it"):
        run_sweep(directory, plan, how, Seen())
    process.kill()
    process.wait()


def test_a_folder_that_is_no_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is not a sweep directory: cannot read sweep.json: No such file"):
        open_sweep(tmp_path)
    with pytest.raises(UsageError, match=r"there is no folder .*/absent\n.*`steprun runs` lists .* and sweeps"):
        open_sweep(tmp_path / "absent")
    (tmp_path / "sweep.json").write_text(json.dumps({"status": "finished", "points": -1}))
    with pytest.raises(UsageError, match=r"is not the manifest of a sweep: it has no `command`"):
        open_sweep(tmp_path)


def test_points_read_the_data_beside_the_config(tmp_path: Path) -> None:
    """The config of a sweep directory has other folders than the file it came from."""
    (tmp_path / "w.csv").write_text("w\n1\n2\n3\n")
    head = HEAD.replace("{shape: [3], init: {normal: {std: 1}}}", "{file: w.csv, columns: w}")
    sweep, plan, _ = swept(tmp_path, "sweep: {grid: {rate: [0.1, 0.03]}}\n", head=head)
    assert sweep.table()["status"].to_pylist() == ["finished"] * 2
    assert sweep.manifest["data_folders"] == [str(tmp_path.resolve())]
    assert_is_the_run_alone(sweep, plan, 1)
