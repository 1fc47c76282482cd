"""Lets the last loop of a finished run go on: a new run with the earlier rows, in the bits of the longer run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from runner.config import Config, overridden
from runner.config.files.run_paths import resolved_run
from runner.config.files.safe_files import Folder
from runner.config.text.nodes import dotted
from runner.engine.rows import AnyRows, Compiling
from runner.errors import Problem, RunError, UsageError
from runner.plan import Plan, PlanLimits, compile
from runner.plan.program.last_loop import LastLoop, last_loop
from runner.plan.tensors.run_files import CHECKPOINTS_FOLDER, LAST
from runner.record.checkpoints.config_fields import config_fields, difference
from runner.record.checkpoints.fitted import load_fitted
from runner.record.checkpoints.store import check_versions, position_of, read_checkpoint
from runner.record.directory import create_run_directory
from runner.record.reading import Run, open_run
from runner.record.resuming.stopped import changed_data, config_of, recorded_folders, resume_stopped
from runner.record.running import Earlier, run_recorded
from runner.text import steprun_command

_STATUSES = {
    "running": "is running",
    "failed": "has failed",
    "interrupted": "was interrupted",
    "killed": "was killed",
}

_AGAIN = "run the longer config as a new run"
_OTHERWISE = "start a new run from its weights with `from_run`"


@dataclass(frozen=True, slots=True)
class Longer:
    """A finished run whose last loop goes on."""

    plan: Plan
    earlier: Earlier

    def make_directory(self, now: datetime) -> Path:
        """Make the directory of the new run, beside that of the earlier one.

        Raises:
            RunError: it cannot be made.
        """
        path = self.earlier.run.path
        runs = path.parent.parent if len(path.parts) > 2 else Path(os.path.abspath(path)).parent.parent
        return create_run_directory(runs, self.plan.name, now)


def lengthen(
    path: str | Path,
    overrides: Sequence[str],
    *,
    allowed_folders: Sequence[str | Path] = (),
    limits: PlanLimits | None = None,
    allow_changed_data: bool = False,
) -> Longer:
    """Plan a longer run that begins with the rows and the state of a finished one.

    Args:
        path: the directory of the finished run; it stays as it is.
        overrides: the larger count of the last loop, as `steps=2000` or `steps.epochs=20`.
        allowed_folders, limits, allow_changed_data: as for `resume`.
    Raises:
        UsageError: the run is not finished, or something other than this count changes.
        RunError: the run kept no state, or its state or a data file is damaged or has changed.
        ConfigError: the longer config is not valid.
    """
    run = open_run(resolved_run(path))
    folders = [*(Path(folder) for folder in allowed_folders), *recorded_folders(run.manifest)]
    before = config_of(run, folders)
    after = overridden(before, overrides)
    if run.status != "finished":
        raise _not_finished(run, before, after)
    fitted = load_fitted(run.path, run.manifest)
    old = compile(before, allowed=folders, limits=limits, fitted=fitted)
    loop = last_loop(old.program)
    if loop is None:
        raise UsageError(Problem(f"{run.path} has no loop, so nothing can grow", "run its config again for a new run"))
    field = _grown_field(run, before, after, loop)
    plan = compile(after, allowed=folders, limits=limits, fitted=fitted)
    longer = last_loop(plan.program)
    if longer is None or longer.times <= loop.times:
        now = 0 if longer is None else longer.times
        message = f"`{field}` gives the last loop {now:,} iterations, and {run.path} has {loop.times:,}"
        raise UsageError(Problem(message, "write a larger count"))
    checkpoint = _kept_state(run, before)
    kept = read_checkpoint(checkpoint)
    check_versions(f"the checkpoint {checkpoint.name} was written", kept, plan)
    if position_of(kept) > loop.end:
        raise _ended_early(run)
    rows = kept["row"]
    if rows > len(run):
        raise RunError(Problem(f"{run.path} has fewer rows than its kept state", "restore the run from a backup"))
    return Longer(plan, Earlier(run, rows, checkpoint, field, changed_data(plan, run, allow_changed_data)))


def resume(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    allowed_folders: Sequence[str | Path] = (),
    limits: PlanLimits | None = None,
    allow_changed_data: bool = False,
    checkpoint_every: int | None = None,
    prepare: Callable[[Plan], Callable[[AnyRows], None]] | None = None,
    stop: Callable[[], bool] | None = None,
    command: Sequence[str] | None = None,
    compiling: Compiling | None = None,
) -> Run:
    """Resume a run that was stopped, or with `overrides` let the last loop of a finished run go on in a new run.

    Args:
        overrides: the larger count of the last loop, as for `lengthen`.
    The other arguments, and what it raises, are those of `resume_stopped` and of `lengthen`.
    """
    if not overrides:
        return resume_stopped(
            path,
            allowed_folders=allowed_folders,
            limits=limits,
            allow_changed_data=allow_changed_data,
            checkpoint_every=checkpoint_every,
            prepare=prepare,
            stop=stop,
            command=command,
            compiling=compiling,
        )
    longer = lengthen(
        path, overrides, allowed_folders=allowed_folders, limits=limits, allow_changed_data=allow_changed_data
    )
    directory = longer.make_directory(datetime.now())
    run_recorded(
        longer.plan,
        directory,
        command=command,
        see=None if prepare is None else prepare(longer.plan),
        checkpoint_every=checkpoint_every,
        stop=stop,
        earlier=longer.earlier,
        compiling=compiling,
    )
    return open_run(directory)


def _not_finished(run: Run, before: Config, after: Config) -> UsageError:
    """Why a run that has not finished takes none of some overrides."""
    then, now = config_fields(before.document), config_fields(after.document)
    steps = {name for name in {*then, *now} if name.partition(".")[0] == "steps"}
    others = difference(_without(then, steps), _without(now, steps))
    status = _STATUSES[run.status]
    goes_on = f"`{steprun_command('resume', run.path)}` goes on"
    if others is not None:
        hint = "wait for it" if run.status == "running" else f"{goes_on} with its own config"
        return UsageError(Problem(f"{run.path} {status}, and cannot go on with another config: {others}", hint))
    hint = "wait for it" if run.status == "running" else f"{goes_on}; then let it grow"
    return UsageError(Problem(f"{run.path} {status}, and only a finished run can grow", hint))


def _grown_field(run: Run, before: Config, after: Config, loop: LastLoop) -> str:
    """The field with the count of the last loop; raises UsageError if another field changes, or none."""
    then, now = config_fields(before.document), config_fields(after.document)
    counts = {
        dotted((*loop.config_path, *more)) for more in ((), ("epochs",), ("repeat", "times"), ("for_each", "epochs"))
    }
    mine = sorted(counts & {*then, *now})
    others = difference(_without(then, counts), _without(now, counts))
    hint = f"only the count of the last loop may grow, such as `{mine[0]}=…`; for other changes, make a new run"
    if others is not None:
        raise UsageError(Problem(f"{run.path} cannot go on with another config: {others}", hint))
    grown = [name for name in mine if then.get(name) != now.get(name)]
    if not grown:
        raise UsageError(Problem(f"{run.path} has this count already", hint))
    if len(grown) > 1 or not {*grown} <= {*then} & {*now}:
        raise UsageError(Problem(f"{run.path} cannot go on with another config: {difference(then, now)}", hint))
    return grown[0]


def _without(fields: dict[str, str], names: set[str]) -> dict[str, str]:
    return {name: value for name, value in fields.items() if name not in names}


def _kept_state(run: Run, config: Config) -> Path:
    """The checkpoint with the state that the run kept."""
    name = f"{LAST}.json"
    try:
        with Folder(run.path) as folder, folder.folder(CHECKPOINTS_FOLDER) as checkpoints:
            found = checkpoints.holds(name)
    except OSError:
        found = False
    if not found:
        if config.log.weights:
            raise _ended_early(run)
        why = "its config says `log: {weights: false}`"
        raise RunError(Problem(f"{run.path} kept no state from which its last loop could go on: {why}", _AGAIN))
    return run.path / CHECKPOINTS_FOLDER / name


def _ended_early(run: Run) -> RunError:
    message = f"the last loop of {run.path} ended before its count, so a larger count changes nothing"
    return RunError(Problem(message, _OTHERWISE))
