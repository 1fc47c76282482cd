"""Points of a sweep as lanes: their bits, their failures, and how they are run."""

from __future__ import annotations

import math
import os
import signal
import struct
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pyarrow.parquet
import pytest
import torch

from runner.cli.output.sweep_progress import SweepProgress
from runner.config import load, loads
from runner.engine.lanes.execute import LaneColumn
from runner.plan.rows.columns import Column
from runner.record.rows.storage import stored_column
from runner.sweep.executors.executor import Begun
from runner.sweep.executors.here import Here
from runner.sweep.executors.processes import Processes, _Worker
from runner.sweep.executors.settings import Settings
from runner.sweep.lanes.chunk import run_chunk
from runner.sweep.lanes.comparing import Difference, difference_between
from runner.sweep.lanes.grouping import DIED, LATE, Grouping
from runner.sweep.lanes.rows import statistics_of
from runner.sweep.points.outcome import Outcome, from_json, to_json
from runner.sweep.points.space import without_sweep
from runner.sweep.points.task import Task
from runner.sweep.record.reading import open_sweep
from runner.sweep.running import How, resume_sweep, run_sweep, start_sweep
from runner.sweep.single import Work, run_point
from tests.sweep.configs import HEAD, written
from tests.sweep.gallery import CONFIGS, chunk_of, documented, outcome_of
from tests.sweep.test_grouping_lanes import NUMBERS, planned
from tests.sweep.test_running import LONG, SEEDS, Seen, assert_is_the_run_alone, command, wait_for_parts
from tests.tables import over

GALLERY = sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def test_the_page_lists_every_config_of_the_gallery() -> None:
    assert sorted(documented()) == GALLERY


@pytest.mark.slow
@pytest.mark.parametrize("name", GALLERY)
def test_a_gallery_config_has_its_bits_as_lanes_or_is_refused_by_name(name: str, tmp_path: Path) -> None:
    chunk = chunk_of(name, tmp_path)
    assert outcome_of(chunk) == documented()[name]
    if isinstance(chunk, str) or not chunk.outcomes:
        return
    assert chunk.rows is not None  # the first and last lane were compared already; compare one between
    middle = chunk.outcomes[len(chunk.outcomes) // 2]
    config = load(CONFIGS / f"{name}.yaml")
    task = next(task for task in _tasks(chunk.outcomes) if task.index == middle.index)
    alone = run_point(Work(config, tmp_path), task)
    assert alone.table is not None
    own = chunk.rows.filter(pyarrow.compute.field("point") == middle.index).drop_columns(["point"])
    assert difference_between(own, alone.table) is None
    assert (middle.rows, dict(middle.scalars)) == (alone.outcome.rows, dict(alone.outcome.scalars))


def _tasks(outcomes: Sequence[Outcome]) -> list[Any]:
    from runner.sweep.points.task import Task

    return [Task(each.index, each.overrides, each.identity) for each in outcomes]


@pytest.mark.slow
def test_numbers_in_the_expression_may_differ_between_lanes(tmp_path: Path) -> None:
    numpy.savez(tmp_path / "train.npz", x=numpy.random.default_rng(0).normal(size=(8, 4)).astype(numpy.float32))
    sweep = "sweep: {zip: [{temperature: [1, 0.3, 0, -2], margin: [-2.0, 0.7, 3, 3]}], grid: {decay: [0.0, 1e-3]}}\n"
    found, plan, outcomes = swept(tmp_path, sweep, NUMBERS, jobs=1)
    failed = [index for index, point in enumerate(plan.points) if point.values["temperature"] == 0]
    assert [index for index, outcome in sorted(outcomes.items()) if outcome.status == "failed"] == failed
    assert {outcome.alone for index, outcome in outcomes.items() if index not in failed} == {""}
    for index in set(outcomes) - set(failed):
        assert_is_the_run_alone(found, plan, index)


def test_statistics_of_lanes_pass_over_nan() -> None:
    nan, inf = float("nan"), float("inf")
    values = torch.tensor([[1.0, nan, -2.0], [nan, inf, 3.0], [nan, nan, nan]])
    ran: Any = SimpleNamespace(sound=[True] * 3, columns=[LaneColumn(values, [True] * 3)])
    columns = [stored_column(Column("loss", "value", torch.float32, ()))]
    found = [each["loss"] for each in statistics_of(ran, columns)]
    assert repr(found) == repr([(-2.0, -2.0, 1.0), (3.0, 3.0, inf), (nan, nan, nan)])


@over("place", [1, 2, 3, 4])
def test_rows_and_weights_of_the_first_and_the_last_lane_are_compared(
    place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[int] = []

    def between(own: Any, alone: Any) -> Difference | None:
        compared.append(own.num_rows)
        return Difference("this differs", 1.0) if len(compared) == place else None

    monkeypatch.setattr("runner.sweep.lanes.chunk.difference_between", between)
    plan = planned(tmp_path, SEEDS)
    tasks = Grouping(plan.base, plan.first, (), None).grouped(plan.tasks)
    chunk = run_chunk(Work(without_sweep(plan.base), tmp_path, exact=True), tasks, lambda: False)
    assert not chunk.outcomes
    assert {task.alone for task in chunk.alone} == {"this differs"}


def test_a_sweep_that_ends_early_leaves_the_threads_of_torch(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    events = Here(tmp_path, Settings(threads=before + 1), lambda: 1).run([Task(0, (), "a")])
    assert next(events) == Begun(0)
    events.close()
    assert torch.get_num_threads() == before


def test_lanes_that_take_too_long_run_alone(tmp_path: Path) -> None:
    pool = Processes(tmp_path, Settings(), first=1, jobs=1, time_limit=5.0)
    for reason, alone in ((None, DIED), ("took longer than 5 s", LATE)):
        ours, _ = Pipe()
        read_end, lifeline = os.pipe()
        process: Any = SimpleNamespace(wait=lambda seconds: 0, returncode=-9)
        tasks = {index: Task(index, (), str(index), chunk=1) for index in range(4)}
        worker = _Worker(process, ours, lifeline, tasks=dict(tasks), running=3)
        pool._workers.append(worker)
        assert list(pool._died(worker, reason)) == []
        os.close(read_end)
        assert [(task.index, task.chunk, task.alone) for task in pool._waiting] == [(i, 0, alone) for i in range(4)]
        pool._waiting.clear()


def test_a_process_that_dies_while_it_sends_has_failed_its_point(tmp_path: Path) -> None:
    pool = Processes(tmp_path, Settings(), first=1, jobs=1)
    ours, theirs = Pipe()
    read_end, lifeline = os.pipe()
    os.write(theirs.fileno(), struct.pack("!i", 100) + b"the first of 100 bytes")
    theirs.close()
    process: Any = SimpleNamespace(wait=lambda seconds: 0, returncode=-9)
    worker = _Worker(process, ours, lifeline, tasks={0: Task(0, (), "a", rung=1)}, running=0)
    pool._workers.append(worker)
    ((failed,),) = pool._collect()
    os.close(read_end)
    assert (failed.rung, failed.failure) == (1, "its process was ended by SIGKILL")


def swept(folder: Path, sweep: str, head: str = HEAD, **how: Any) -> Any:
    plan, seen = planned(folder, sweep, head), Seen()
    directory = start_sweep(load(folder / "swept.yaml"), plan, {}, folder / "sweeps", How(**how))
    outcomes = run_sweep(directory, plan, How(**how), seen)
    return open_sweep(directory), plan, outcomes


@pytest.mark.slow
def test_a_lane_that_fails_has_the_failure_and_the_rows_of_the_run_alone(tmp_path: Path) -> None:
    sweep, plan, outcomes = swept(tmp_path, "sweep: {grid: {rate: [0.1, 1e30, 0.2, 0.3, 0.4]}}\n", jobs=1)
    reason = "a number is not finite, or an `expect` does not hold"
    assert [outcomes[index].alone for index in range(5)] == ["", reason, "", "", ""]
    assert outcomes[1].failure == "sweep.yaml:4:21: `loss` is inf, from `w ** 2` (row 2, repeat[2].train)"
    alone = run_point(Work(plan.base, tmp_path), plan.tasks[1]).outcome
    assert (outcomes[1].rows, alone.status) == (alone.rows, "failed")
    for index in (0, 2, 3, 4):
        assert_is_the_run_alone(sweep, plan, index)


@pytest.mark.slow
def test_a_killed_sweep_of_lanes_resumes(tmp_path: Path) -> None:
    sweep = "sweep: {grid: {momentum: [0, 0.5, 0.9], seed: range(4)}}\n"
    config = written(tmp_path, sweep, LONG)
    process = command("sweep", config, "--jobs", "1", cwd=tmp_path)
    directory = wait_for_parts(tmp_path, 1, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    plan, how = resume_sweep(directory, How(jobs=1))
    run_sweep(directory, plan, how, Seen())
    found = open_sweep(directory)
    assert found.table().column("status").to_pylist() == ["finished"] * 12
    for index in (0, 5, 11):
        assert_is_the_run_alone(found, plan, index)


def test_the_largest_difference_is_said() -> None:
    def table(loss: list[float | None], w: list[float]) -> pyarrow.Table:
        return pyarrow.table({"loss": pyarrow.array(loss, pyarrow.float32()), "w": w, "label": ["a"] * len(w)})

    nan = math.nan
    first = table([1.0, 2.0, nan, None], [0.0, 1.0, 2.0, 3.0])
    assert difference_between(first, first) is None
    for loss, w, text in [
        ([1.0, 2.5, nan, None], [0.0, 1.0, 2.25, 3.0], "`loss` differs from the run alone by up to 0.5"),
        ([1.0, 2.5, nan, None], [0.0, 1.0, 2.25, 9.0], "`w` differs from the run alone by up to 6"),
        ([1.0, 2.0, 7.0, None], [0.0, 1.0, 2.25, 9.0], "`loss` differs from the run alone by up to inf"),
        ([1.0, 2.0, nan, 1.0], [0.0, 1.0, 2.25, 9.0], "`loss` differs from the run alone by up to inf"),
        ([1.0, 2.0, nan, None], [-0.0, 1.0, 2.0, 3.0], "`w` differs from the run alone by up to 0"),
        ([1.0, 2.0, nan], [0.0, 1.0, 2.0], "a lane has other rows than the run alone"),
    ]:
        found = difference_between(first, table(loss, w))
        assert found is not None
        assert found.text == text


def test_elements_of_large_tensors_are_compared_as_numbers_and_digests_as_they_are(tmp_path: Path) -> None:
    head = "parameters: {w: {shape: [70, 70], init: ones}}\nexpression: loss = (w ** 2).sum()\n"
    head += "optimizer: {sgd: {lr: 0.1}}\n"
    for log, text in (("full", "`w` differs from the run alone by up to 0.05"), ("digest", None)):
        config = loads(head + f"steps: 2\nlog: {{tensors: {log}, include: [w]}}\n")
        runs = [run_point(Work(config, tmp_path), Task(0, (f"optimizer.sgd.lr={lr}",), "")) for lr in (0.1, 0.125)]
        tables = [run.table for run in runs]
        assert tables[0] is not None
        assert tables[1] is not None
        found = difference_between(tables[1].slice(0, 2), tables[0].slice(0, 2))
        assert found is not None
        name = found.column
        expected = text or f"`{name}` differs from that of the run alone"
        assert (found.text, difference_between(tables[0], tables[0])) == (expected, None)


def test_close_lanes_say_how_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter([1e-9, 3e-8, 1e-9, 1e-9] * 2)

    def between(lane: Any, alone: Any) -> Difference:
        return Difference(f"`loss` differs by {(size := next(sizes)):g}", size, "loss")

    monkeypatch.setattr("runner.sweep.lanes.chunk.difference_between", between)
    plan = planned(tmp_path, SEEDS, HEAD)
    tasks = Grouping(plan.base, plan.first, (), None).grouped(plan.tasks)
    close = run_chunk(Work(without_sweep(plan.base), tmp_path, exact=False), tasks, lambda: False)
    assert [outcome.difference for outcome in close.outcomes] == ["`loss` differs by 3e-08"] * 8
    progress = SweepProgress(8, None, quiet=True)
    progress.ended([])
    progress.ended(close.outcomes)
    further = [replace(each, index=8 + each.index, difference="more", distance=1.0) for each in close.outcomes[:2]]
    progress.ended(from_json(to_json(further)))
    progress.ended([replace(further[0], index=20, difference="less", distance=0.5)])
    assert progress.lanes() == "11 of 11 points in lanes; more"
    exact = run_chunk(Work(without_sweep(plan.base), tmp_path), tasks, lambda: False)
    assert (exact.outcomes, {task.alone for task in exact.alone}) == ((), {"`loss` differs by 3e-08"})
