"""Proofs of sweeps: points as lanes of one computation, and alone as a process of the pool runs them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

import runner
from runner.config import Config, overridden
from runner.plan.checks.engines.stackable import unstackable
from runner.plan.compiler import PlanLimits
from runner.record.directory import create_run_directory
from runner.record.running import run_recorded
from runner.sweep.lanes.chunk import NOT_SOUND, Chunk, run_chunk
from runner.sweep.lanes.comparing import difference_between
from runner.sweep.lanes.grouping import OFF, check_some
from runner.sweep.planning import plan_sweep
from runner.sweep.points.outcome import Outcome
from runner.sweep.points.task import Task
from runner.sweep.record.reading import open_sweep
from runner.sweep.running import How, run_sweep, start_sweep
from runner.sweep.single import Work, run_point
from tests.engine.running import same
from tests.sweep.inline import Inline
from tests.sweep.test_running import Seen

SEEDS = range(3, 7)


def as_lanes(config: Config, folder: Path, limits: PlanLimits | None) -> str:
    """Compare lanes of four seeds with the same points alone.

    Raises:
        ConfigError: `--lanes exact` refuses the config at its place; without it, the points run in processes.
    """
    plan = runner.compile(config, limits=limits)
    obstacle = unstackable(plan)
    tasks = [Task(seed, (f"seed={seed}",), str(seed), chunk=1) for seed in SEEDS]
    if obstacle is not None:
        check_some(config, plan, [Task(0, (), "", alone=obstacle.reason)])
    work = Work(config, folder, (folder,), limits)
    chunk: Chunk = run_chunk(work, tasks, lambda: False)
    if not chunk.outcomes:
        check_some(config, plan, chunk.alone)
    assert chunk.rows is not None
    assert [outcome.index for outcome in chunk.outcomes] == list(SEEDS)
    start = 0
    for task, outcome in zip(tasks, chunk.outcomes, strict=True):
        alone = run_point(work, task).table
        assert alone is not None
        own = chunk.rows.slice(start, outcome.rows).drop_columns(["point"])
        assert difference_between(own, alone) is None
        start += outcome.rows
    return "bits"


@contextmanager
def in_this_process() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runner.sweep.running.Processes", Inline)
        yield


def as_points(
    config: Config,
    folder: Path,
    limits: PlanLimits | None,
    *,
    seeds: int = 2,
    lanes: str = "off",
    halving: bool = False,
) -> str:
    """Compare the points of some seeds, read back from the sweep, with the runs of these seeds.

    Args:
        halving: whether points are compared in the middle; then those that go on are compared with their runs.
    """
    how = How(lanes=lanes, allowed=(folder,), limits=limits)
    plan = plan_sweep(config, {"seed": list(range(seeds))}, allowed=(folder,), limits=limits)
    directory = start_sweep(config, plan, {}, folder / "sweeps", how)
    with in_this_process():
        outcomes = run_sweep(directory, plan, how, Seen())
    sweep = open_sweep(directory)
    finished = [index for index, outcome in outcomes.items() if outcome.status == "finished"]
    assert len(finished) == (seeds // 2 if halving else seeds), outcomes
    assert {outcome.alone for outcome in outcomes.values()} == ({""} if lanes == "exact" else {OFF})
    for index in finished:
        config = overridden(plan.base, plan.points[index].overrides)
        recorded = create_run_directory(folder, f"alone-{index}", datetime.now())
        run_recorded(runner.compile(config, limits=limits), recorded)
        alone = runner.open_run(recorded)
        found = sweep.run(index)
        assert found.to_arrow().equals(alone.to_arrow())
        assert all(same(found.weights[name], alone.weights[name]) for name in alone.weights)
    return "bits"


def failing(config: Config, folder: Path, *, lanes: bool) -> Outcome:
    """The outcome of a point that fails; as a lane, it is noted there, and then runs alone."""
    task = Task(0, (), "0", chunk=1)
    work = Work(config, folder, (folder,))
    if lanes:
        tasks = [task, replace(task, index=1, overrides=("seed=7",))]
        assert [each.alone for each in run_chunk(work, tasks, lambda: False).alone] == [NOT_SOUND] * 2
    return run_point(work, task).outcome
