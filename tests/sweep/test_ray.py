"""Sweeps on a Ray cluster of two nodes, both on this machine; skipped without Ray."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runner.config import load
from runner.errors import UsageError
from runner.sweep.executors.ray_tasks import RayTasks, _reason
from runner.sweep.executors.settings import Settings
from runner.sweep.planning import SweepPlan, plan_sweep
from runner.sweep.points.task import Task
from runner.sweep.record.parts import outcomes_in, outcomes_on_disk, part_paths
from runner.sweep.record.reading import open_sweep
from runner.sweep.running import How, grouping_of, resume_sweep, run_sweep, start_sweep
from tests.sweep.configs import written
from tests.sweep.test_running import LONG, SEEDS, Seen, assert_is_the_run_alone, command, wait_for_parts
from tests.tables import over

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")


def ray(*arguments: str) -> str:
    command = Path(sysconfig.get_path("scripts")) / "ray"
    done = subprocess.run([str(command), *arguments], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a cluster of two nodes.

    An environment variable marks the processes of this cluster, so that the fixture ends no others.
    """
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv(MARK, str(os.getpid()))
    shown = ray("start", "--head", "--port=0", "--num-cpus=1", "--include-dashboard=false")
    found = re.search(r"--address='([^']+)'", shown)
    assert found
    ray("start", f"--address={found[1]}", "--num-cpus=1")
    yield found[1]
    for pid in ray_processes():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    time.sleep(0.1)


MARK = "STEPRUN_TEST_CLUSTER"


def ray_processes(name: str = "") -> set[int]:
    """The processes of the cluster of this test, or those of a title."""
    found = set()
    mark = f"{MARK}={os.getpid()}".encode()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                command, environment = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
            except OSError:
                continue
            if mark in environment.split(b"\0") and name.encode() in command:
                found.add(int(folder.name))
    return found


@needs_ray
@pytest.mark.slow
def test_a_cluster_whose_worker_and_driver_are_killed_goes_on_to_the_same_table(cluster: str, tmp_path: Path) -> None:
    long = LONG.replace("6000", "12000")  # workers of a cluster write their points after two seconds
    config = written(tmp_path, SEEDS.replace("range(8)", "range(12)"), long)
    options = ("--on", "ray", "--address", cluster, "--lanes", "off")
    process = command("sweep", config, *options, cwd=tmp_path)
    directory = wait_for_parts(tmp_path, 1, process)
    (victim, *_) = ray_processes("ray::_run_chunk")
    os.kill(victim, signal.SIGKILL)
    wait_for_parts(tmp_path, 2, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    sweep = open_sweep(directory)
    assert sweep.status == "killed"
    plan, how = resume_sweep(directory, How(on="ray", address=cluster))
    done = {rungs[0].index for rungs in outcomes_on_disk(directory).values()}
    assert 0 < len(done) < 12
    run_sweep(directory, plan, how, Seen())
    written_once = [outcome.index for path in part_paths(directory) for outcome in outcomes_in(path)]
    assert sorted(written_once) == list(range(12))
    whole = start_sweep(load(config), plan, {}, tmp_path / "whole", How(lanes="off"))
    run_sweep(whole, plan, How(jobs=2, lanes="off"), Seen())
    tables = [open_sweep(path).table().drop_columns(["seconds"]) for path in (directory, whole)]
    assert tables[0].column("status").to_pylist() == ["finished"] * 12
    assert tables[0].equals(tables[1])


@needs_ray
@pytest.mark.slow
def test_points_on_two_nodes_have_the_bits_of_the_run_alone(cluster: str, tmp_path: Path) -> None:
    config = load(written(tmp_path))
    plan = plan_sweep(config, {})
    how = How(on="ray", address=cluster)
    directory = start_sweep(config, plan, {}, tmp_path / "sweeps", how)
    run_sweep(directory, plan, how, Seen())
    sweep = open_sweep(directory)
    assert sweep.table().column("status").to_pylist() == ["finished"] * 6
    for index in range(6):
        assert_is_the_run_alone(sweep, plan, index)


def test_without_ray_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"--on ray needs Ray") as caught:
        RayTasks(tmp_path, Settings(), grouping_of(_plan(tmp_path), How()), first=1, address=None)
    assert caught.value.problems[0].hint == "install it: `pip install 'steprun[ray]'`"


class OneProcess:
    """What `RayTasks` uses of Ray, in this process; the task with some point dies the first time."""

    exceptions = SimpleNamespace(
        RayTaskError=KeyError, WorkerCrashedError=BrokenPipeError, OutOfMemoryError=MemoryError, NodeDiedError=EOFError
    )

    def __init__(self, dies: int | None = None) -> None:
        self.dies = dies
        self.tasks: list[list[Task]] = []

    def init(self, **_: object) -> None: ...
    def shutdown(self) -> None: ...
    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 1.0}

    def remote(self, max_retries: int) -> Any:
        def made(function: Any) -> Any:
            def run(directory: str, settings: Settings, tasks: list[Task], name: str) -> Any:
                self.tasks.append(tasks)
                died = any(task.index == self.dies for task in tasks) and len(tasks) > 1
                return partial(function, directory, settings, tasks, name) if not died else None

            return SimpleNamespace(remote=run)

        return made

    def wait(self, references: list[Any], num_returns: int) -> Any:
        return references[:1], references[1:]

    def get(self, reference: Any) -> Any:
        if reference is None:
            raise BrokenPipeError
        return reference()


@over(("dies", "reasons"), [(None, {""}), (5, {"the process of the lanes died"})])
def test_a_task_of_the_cluster_is_a_chunk_of_lanes(
    dies: int | None, reasons: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = OneProcess(dies)
    monkeypatch.setattr("runner.sweep.executors.ray_tasks._import_ray", lambda: ray)
    plan, how, seen = _plan(tmp_path), How(on="ray"), Seen()
    config = load(tmp_path / "swept.yaml")
    run_sweep(start_sweep(config, plan, {}, tmp_path / f"sweeps-{dies}", how), plan, how, seen)
    assert {outcome.status for outcome in seen.outcomes} == {"finished"}
    assert {outcome.alone for outcome in seen.outcomes} == reasons
    assert all(len({task.chunk for task in tasks}) == 1 for tasks in ray.tasks)
    assert max(len(tasks) for tasks in ray.tasks) >= 4


def test_points_of_a_process_that_died_keep_their_own_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.sweep.executors.ray_tasks._import_ray", OneProcess)
    executor = RayTasks(tmp_path, Settings(), grouping_of(_plan(tmp_path), How()), first=1, address=None)
    tasks = [Task(0, (), "a", alone="lbfgs"), Task(1, (), "b", alone="autocast")]
    assert executor._crashed(tasks, BrokenPipeError()) == []
    assert list(executor._waiting) == [[tasks[0]], [tasks[1]]]
    (failed,) = executor._crashed([replace(tasks[0], rung=2)], BrokenPipeError())
    assert (failed.rung, failed.alone, failed.failure) == (2, "lbfgs", "its process died: BrokenPipeError")


def _plan(folder: Path) -> SweepPlan:
    return plan_sweep(load(written(folder, "sweep: {grid: {rate: [0.1, 0.03], seed: range(8)}}\n")), {})


@over(
    ("text", "message", "hint"),
    [
        (
            "Unauthenticated: Invalid or missing authentication token",
            "refuses the connection",
            "set RAY_AUTH_MODE=token",
        ),
        ("Version mismatch: The cluster was started with:\nRay: 2.50.0", "has other versions", "install the same ray"),
        (
            "Could not find any running Ray instance.",
            "no Ray cluster answers on this machine",
            "start one with `ray start",
        ),
    ],
)
def test_each_reason_has_its_message(text: str, message: str, hint: str) -> None:
    problem = _reason(text, "auto")
    assert message in problem.message
    assert str(problem.hint).startswith(hint)
