"""Runs and resumes sweeps."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from runner.config import Config
from runner.config.files.safe_files import Folder
from runner.errors import Problem, RunError, UsageError
from runner.language.dtypes import dtype_name
from runner.plan import PlanLimits
from runner.record.directory import create_run_directory, locked, write_atomically
from runner.record.manifest import fingerprint, now, this_process
from runner.record.resuming.stopped import recorded_folders
from runner.sweep.choosing.objective import Objective
from runner.sweep.executors.executor import Begun, Executor
from runner.sweep.executors.here import Here
from runner.sweep.executors.laned import Lanes
from runner.sweep.executors.processes import Processes
from runner.sweep.executors.settings import Settings
from runner.sweep.lanes.grouping import OFF, Grouping, room_of
from runner.sweep.planning import SweepPlan, plan_sampled, plan_sweep, renumbered
from runner.sweep.points.outcome import Outcome, joined
from runner.sweep.points.space import Point
from runner.sweep.points.task import Task
from runner.sweep.record.config import SWEEP_FILE, check_unchanged, load_sweep
from runner.sweep.record.manifest import opening, read_manifest, versions, write_manifest
from runner.sweep.record.merging import merge_parts, remove_superseded
from runner.sweep.record.parts import known_points, last_rungs, next_chunk, resumable
from runner.sweep.record.table import write_table
from runner.sweep.rounds import Rounds, rounds_of
from runner.sweep.widening import check_kept, check_not_widened, check_versions, save, widened, widened_axes
from runner.text import steprun_command

TABLE_SECONDS = 1.0
"""The least time between two writes of the table."""


class Watch(Protocol):
    """Follows a sweep."""

    def begun(self, index: int) -> None:
        """A point has begun."""
        ...

    def known(self, outcomes: Sequence[Outcome]) -> None:
        """The rows of points were on disk before; `outcomes` have all of their rungs until now."""
        ...

    def ended(self, outcomes: Sequence[Outcome]) -> None:
        """Points have ended or wait, and their rows are on disk; `outcomes` have all of their rungs until now."""
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
    lanes: str = "exact"  # or close, off: see `runner.sweep.lanes`


def start_sweep(config: Config, plan: SweepPlan, axes: Mapping[str, Sequence[Any]], sweeps_dir: Path, how: How) -> Path:
    """Make the directory of a sweep: `sweeps_dir/NAME/STAMP/` with its config and manifest.

    Raises:
        RunError: it cannot be written.
    """
    rounds_of(plan)  # before anything is written: it may need a library that is missing
    name = config.name or "sweep"
    directory = create_run_directory(sweeps_dir, name, datetime.now())
    text = config.document.to_yaml(absolute_files=True)
    first = plan.first
    environment = {**fingerprint(first.device, dtype_name(first.dtype)), "threads": how.threads}
    points = plan.total
    folders = config.document.folders()
    content = opening(name, text, axes, points, plan.sampler, plan.batch, how.lanes, environment, folders, how.command)
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
        UsageError: another process runs this sweep, or has widened it since it was planned.
        RunError: a file cannot be written; points that have finished are not lost.
        KeyboardInterrupt: the sweep was interrupted; it can be resumed.
    """
    rounds = rounds_of(plan)
    with locked(directory):
        check_not_widened(directory, plan.total)
        return _run(directory, plan, rounds, how, watch, retry)


def resume_sweep(
    directory: Path,
    how: How,
    many: bool = True,
    axes: Mapping[str, Sequence[Any]] | None = None,
    overrides: Sequence[str] = (),
) -> tuple[SweepPlan, How]:
    """The plan of a sweep directory, and how to run it.

    Args:
        many: whether more than `MANY_POINTS` points are meant.
        axes: axes with more values, which replace those of the sweep; the directory records them.
        overrides: overrides of `sweep`, such as `sweep.random.samples=128`.
    Raises:
        UsageError: the folder is not a sweep directory, or points that it has would be lost.
        ConfigError: its config is not valid any more, for instance because a data file is missing.
        RunError: a file cannot be written.
    """
    manifest = read_manifest(directory)
    allowed = (*how.allowed, *recorded_folders(manifest))
    how = replace(how, allowed=allowed, threads=manifest["threads"], lanes=manifest["lanes"])
    written = load_sweep(directory, allowed)
    check_unchanged(directory, manifest, written)
    config = widened(written, overrides, manifest["axes"])
    if manifest["sampler"] is not None:
        if axes or overrides:
            raise UsageError(Problem("a sampler chooses the points of this sweep", "leave the values out"))
        plan = plan_sampled(config, manifest["sampler"], manifest["batch"], allowed=allowed, limits=how.limits)
        check_versions(directory, manifest, plan, known_points(directory))
        return plan, how
    given = widened_axes(manifest["axes"], axes or {})
    plan = plan_sweep(config, given, allowed=allowed, limits=how.limits, many=many)
    known = known_points(directory)
    check_versions(directory, manifest, plan, known)
    plan = renumbered(plan, known)
    check_kept(directory, manifest, plan, known, bool(axes or overrides))
    if len(plan.points) < manifest["points"]:
        message = f"{directory} has {manifest['points']} points, and its config gives {len(plan.points)}"
        raise UsageError(Problem(message, f"restore {directory / SWEEP_FILE}"))
    if axes or overrides:
        try:
            save(directory, manifest, config, given, len(plan.points))
        except OSError as error:
            raise cannot_write(directory, error) from error
    return plan, how


def _run(directory: Path, plan: SweepPlan, rounds: Rounds, how: How, watch: Watch, retry: bool) -> dict[int, Outcome]:
    with Folder(directory) as folder:
        folder.remove_leftovers()
    found = resumable(directory, retry).values()
    before = {(outcome.identity, outcome.rung): outcome for rungs in found for outcome in rungs}
    own = {"status": "running", "process": this_process(), "ended": None, "points": plan.total}
    if not before and not known_points(directory):
        own["versions"] = versions()
    manifest = read_manifest(directory) | own
    bare = {key: outcome for key, outcome in before.items() if not outcome.schema}
    journal = _Journal(directory, plan.objective, manifest, bare)
    executor: Executor | None = None
    status = "interrupted"
    try:
        write_manifest(directory, manifest)
        try:
            while pairs := rounds.next(journal.outcomes):
                journal.pairs |= {point.index: (point, task) for point, task in pairs}
                tasks = [task for _, task in pairs]
                known = [replace(before[key], index=task.index) for task in tasks if (key := _key(task, before))]
                watch.known(journal.add(known))
                waiting = [task for task in tasks if _key(task, before) is None]
                if not waiting:
                    continue
                if not journal.written:  # the table keeps the index of each point, also of those that wait
                    journal.write()
                if executor is None:
                    executor, recorded = _executor(directory, plan, how), last_rungs(directory)
                again = {task.identity: task.rung for task in waiting if recorded.pop(task.identity, -1) >= task.rung}
                if again:
                    remove_superseded(directory, again, executor.take_number)
                    before = {key: each for key, each in before.items() if key[1] < again.get(key[0], key[1] + 1)}
                for event in executor.run(waiting):
                    if isinstance(event, Begun):
                        watch.begun(event.index)
                        continue
                    watch.ended(journal.add(event))
                    if how.fail_fast and any(outcome.status == "failed" for outcome in event):
                        raise _FailedFast
                    if journal.due:
                        journal.write()
                        merge_parts(directory, executor.take_number)
            watch.known(journal.keep_further(before.values()))
            status = "finished"
        except _FailedFast:
            status = "failed"
        except BaseException:
            journal.close(executor, watch)
            with suppress(OSError):
                journal.write(status)
            raise
        journal.close(executor, watch)
        if executor is not None:
            merge_parts(directory, executor.take_number)
        journal.write(status)
    except OSError as error:
        raise cannot_write(directory, error) from error
    return journal.outcomes


def _key(task: Task, before: Mapping[tuple[str, int], Outcome]) -> tuple[str, int] | None:
    """The key of the outcome of a task, if it is on disk."""
    found = before.get((task.identity, task.rung))
    if found is None or (found.status == "paused" and task.until is None):
        return None
    return (task.identity, task.rung)


class _FailedFast(Exception):
    """A point has failed, and the caller wants no further ones."""


@dataclass(slots=True)
class _Journal:
    """The points of a sweep and their outcomes, which it writes to the table and the manifest."""

    directory: Path
    objective: Objective | None
    manifest: dict[str, Any]
    bare: dict[tuple[str, int], Outcome]  # by identity and rung: those that are in no part file, only in the table
    pairs: dict[int, tuple[Point, Task]] = field(default_factory=dict)
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    written: float = 0.0

    @property
    def due(self) -> bool:
        """Whether the table should be written again."""
        return time.monotonic() - self.written >= TABLE_SECONDS

    def add(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Add the outcomes of a rung; returns those of the points, with their earlier rungs."""
        for outcome in outcomes:
            if outcome.schema:
                self.bare.pop((outcome.identity, outcome.rung), None)
            else:
                self.bare[outcome.identity, outcome.rung] = outcome
            earlier = self.outcomes.get(outcome.index)
            self.outcomes[outcome.index] = joined([earlier, outcome]) if earlier and outcome.rung else outcome
        return [self.outcomes[outcome.index] for outcome in outcomes]

    def keep_further(self, before: Iterable[Outcome]) -> list[Outcome]:
        """Keep what points had computed beyond the rung at which they stop now: a widened sweep is decided again.

        Returns:
            the outcomes of these points.
        """
        indices = {task.identity: index for index, (_, task) in self.pairs.items()}
        rungs: dict[int, list[Outcome]] = {}
        further: list[Outcome] = []
        for outcome in sorted(before, key=lambda each: each.rung):
            index = indices.get(outcome.identity)
            if index is not None:
                rungs.setdefault(index, []).append(replace(outcome, index=index))
        for index, outcomes in rungs.items():
            if index in self.outcomes and outcomes[-1].rung > self.outcomes[index].rung:
                self.outcomes[index] = joined(outcomes)
                further.append(self.outcomes[index])
        return further

    def close(self, executor: Executor | None, watch: Watch) -> None:
        """End an executor, and add what it still wrote."""
        late = executor.close() if executor is not None else []
        watch.ended(self.add(late))

    def write(self, status: str | None = None) -> None:
        """Write the table, and with `status` the manifest."""
        pairs = [self.pairs[index] for index in sorted(self.pairs)]
        tasks, points = [task for _, task in pairs], [point for point, _ in pairs]
        write_table(self.directory, tasks, points, self.outcomes, self.objective, self.bare.values())
        if status is not None:
            ended = None if status == "running" else now()
            warnings = [each.warning for _, each in sorted(self.outcomes.items()) if each.warning is not None]
            write_manifest(self.directory, self.manifest | {"status": status, "ended": ended, "warnings": warnings})
        self.written = time.monotonic()


def _executor(directory: Path, plan: SweepPlan, how: How) -> Executor:
    objective = plan.objective
    column, recent = (None, 0) if objective is None else (objective.column, objective.recent)
    allowed = (*how.allowed, *plan.base.document.folders())
    settings = Settings(how.threads, allowed, how.limits, column, recent, how.lanes != "close")
    first = next_chunk(directory)
    grouping = grouping_of(plan, how)
    if how.on == "ray":
        from runner.sweep.executors.ray_tasks import RayTasks

        return RayTasks(directory, settings, grouping, first=first, address=how.address)
    pool = Processes(directory, settings, first=first, jobs=how.jobs, time_limit=how.time_limit)
    here = None if how.time_limit is not None else Here(directory, settings, pool.take_number)
    return Lanes(grouping, here, pool)


def grouping_of(plan: SweepPlan, how: How) -> Grouping:
    """How the points of a sweep are grouped into chunks of lanes."""
    alone = OFF if how.lanes == "off" else None
    room = room_of(plan.first)
    return Grouping(plan.base, plan.first, how.allowed, how.limits, how.jobs, room, alone, how.lanes != "close")


def cannot_write(directory: Path, error: OSError) -> RunError:
    """The error of a sweep that cannot be written."""
    hint = f"free space, then `{steprun_command('resume', directory)}`"
    return RunError(Problem(f"cannot write to {directory}: {error.strerror or error}", hint))
