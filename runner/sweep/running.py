"""Runs and resumes sweeps."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from runner.config import Config
from runner.errors import Problem, RunError, UsageError
from runner.language.dtypes import dtype_name
from runner.plan import PlanLimits
from runner.record.directory import create_run_directory, locked, write_atomically
from runner.safe_files import Folder
from runner.sweep.executors import Begun, Executor
from runner.sweep.manifest import now, opening, read_manifest, this_process, write_manifest
from runner.sweep.merging import merge_parts
from runner.sweep.outcome import Outcome
from runner.sweep.planning import SweepPlan, plan_sweep, renumbered
from runner.sweep.processes import Processes
from runner.sweep.reading import finished_outcomes, known_points, next_chunk
from runner.sweep.settings import SWEEP_FILE, Settings, load_sweep
from runner.sweep.table import write_table

TABLE_SECONDS = 1.0
"""The least time between two writes of the table."""


class Watch(Protocol):
    """Follows a sweep."""

    def begun(self, index: int) -> None:
        """A point has begun."""
        ...

    def ended(self, outcomes: Sequence[Outcome]) -> None:
        """Points have ended, and their rows are on disk."""
        ...


@dataclass(frozen=True, slots=True)
class How:
    """How a sweep is executed; no number depends on it, except on `threads`."""

    jobs: int = 1
    threads: int = 1
    time_limit: float | None = None  # seconds a point
    fail_fast: bool = False
    on: str = "processes"  # or ray
    address: str | None = None  # of a Ray cluster
    allowed: tuple[Path, ...] = ()
    limits: PlanLimits | None = None
    command: Sequence[str] | None = field(default=None)


def start_sweep(config: Config, plan: SweepPlan, axes: Mapping[str, Sequence[Any]], sweeps_dir: Path, how: How) -> Path:
    """Make the directory of a sweep: `sweeps_dir/NAME/STAMP/` with its config and manifest.

    Raises:
        RunError: it cannot be written.
    """
    name = config.name or "sweep"
    directory = create_run_directory(sweeps_dir, name, datetime.now())
    text = config.document.to_yaml(absolute_files=True)
    first = plan.first
    content = opening(
        name, axes, len(plan.points), how.threads, first.device, dtype_name(first.dtype), how.allowed, how.command
    )
    try:
        write_atomically(directory / SWEEP_FILE, text.encode())
        write_manifest(directory, content)
    except OSError as error:
        raise cannot_write(directory, error) from error
    return directory


def run_sweep(directory: Path, plan: SweepPlan, how: How, watch: Watch, retry: bool = False) -> dict[int, Outcome]:
    """Run the points of a sweep that are not finished yet.

    Args:
        retry: whether points that have failed run again.
    Returns:
        the outcome of each point that has ended, by index.
    Raises:
        UsageError: another process runs this sweep.
        RunError: a file cannot be written; points that have finished are not lost.
        KeyboardInterrupt: the sweep was interrupted; it can be resumed.
    """
    with locked(directory):
        return _run(directory, plan, how, watch, retry)


def resume_sweep(directory: Path, how: How, many: bool = True) -> tuple[SweepPlan, How]:
    """The plan of a sweep directory, and how to run it.

    Raises:
        UsageError: the folder is not a sweep directory.
        ConfigError: its config is not valid any more, for instance because a data file is missing.
    """
    manifest = read_manifest(directory)
    allowed = (*how.allowed, *_recorded_folders(manifest))
    how = replace(how, allowed=allowed, threads=manifest["threads"])
    config = load_sweep(directory, allowed)
    plan = plan_sweep(config, manifest["axes"], allowed=allowed, limits=how.limits, many=many)
    plan = renumbered(plan, known_points(directory))
    if len(plan.points) < manifest["points"]:
        message = f"{directory} has {manifest['points']} points, and its config gives {len(plan.points)}"
        raise UsageError(Problem(message, f"restore {directory / SWEEP_FILE}"))
    return plan, how


def _recorded_folders(manifest: Mapping[str, Any]) -> tuple[Path, ...]:
    """The recorded data folders that lie below the working directory."""
    here = Path.cwd().resolve()
    folders = (Path(str(folder)).resolve() for folder in manifest["data_folders"])
    return tuple(folder for folder in folders if folder.is_relative_to(here))


def _run(directory: Path, plan: SweepPlan, how: How, watch: Watch, retry: bool) -> dict[int, Outcome]:
    with Folder(directory) as folder:
        folder.remove_leftovers()
    wanted = {task.identity for task in plan.tasks}
    outcomes = {
        outcome.index: outcome
        for outcome in finished_outcomes(directory)
        if outcome.identity in wanted and not (retry and outcome.status == "failed")
    }
    watch.ended(list(outcomes.values()))
    manifest = read_manifest(directory) | {"status": "running", "process": this_process(), "ended": None}
    waiting = [task for task in plan.tasks if task.index not in outcomes]
    objective = plan.objective
    settings = Settings(
        how.threads,
        how.allowed,
        how.limits,
        None if objective is None else objective.column,
        0 if objective is None else objective.recent,
    )
    written = 0.0

    def write(status: str | None = None) -> None:
        nonlocal written
        write_table(directory, plan.tasks, plan.points, outcomes, objective)
        if status is not None:
            ended = None if status == "running" else now()
            write_manifest(directory, manifest | {"status": status, "ended": ended})
        written = time.monotonic()

    status = "interrupted"
    try:
        write("running")
        pool = _executor(directory, settings, how)
        try:
            for event in pool.run(waiting):
                if isinstance(event, Begun):
                    watch.begun(event.index)
                    continue
                outcomes |= {outcome.index: outcome for outcome in event}
                watch.ended(event)
                if how.fail_fast and any(outcome.status == "failed" for outcome in event):
                    status = "failed"
                    break
                if time.monotonic() - written >= TABLE_SECONDS:
                    write()
                    merge_parts(directory, pool.take_number)
            else:
                status = "finished"
        finally:
            late = pool.close()
            outcomes |= {outcome.index: outcome for outcome in late}
            watch.ended(late)
            with suppress(OSError):
                write(status)
        merge_parts(directory, pool.take_number)
        write(status)
    except OSError as error:
        raise cannot_write(directory, error) from error
    return outcomes


def _executor(directory: Path, settings: Settings, how: How) -> Executor:
    first = next_chunk(directory)
    if how.on == "ray":
        from runner.sweep.ray_tasks import RayTasks

        return RayTasks(directory, settings, first=first, address=how.address)
    return Processes(directory, settings, first=first, jobs=how.jobs, time_limit=how.time_limit)


def cannot_write(directory: Path, error: OSError) -> RunError:
    """The error of a sweep that cannot be written."""
    hint = f"free space, then `steprun resume {directory}`"
    return RunError(Problem(f"cannot write to {directory}: {error.strerror or error}", hint))
