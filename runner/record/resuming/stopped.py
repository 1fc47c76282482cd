"""Resumes runs that were stopped, with the same bits as without the stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from runner.config import Config, overridden
from runner.config.files.run_paths import CONFIG_FILE, resolved_run
from runner.config.files.safe_files import Folder
from runner.engine.rows import AnyRows, Compiling
from runner.errors import Problem, RunError, UsageError
from runner.plan import Plan, PlanLimits, compile
from runner.plan.rows.columns import recorded
from runner.record.checkpoints.config_fields import config_fields, difference
from runner.record.checkpoints.fitted import load_fitted
from runner.record.checkpoints.store import check_versions, latest_checkpoint
from runner.record.data_files import DATA_FILES, changed, data_files
from runner.record.directory import locked
from runner.record.reading import Run, check_is_run, open_run
from runner.record.recorder import Recorded
from runner.record.rows.storage import column_json
from runner.record.running import CONFIG_FIELDS, Resumption, run_recorded

_WAIT = "wait for it, or end its process"


def resume_stopped(
    path: str | Path,
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
    """Resume a run that was interrupted, killed, or failed, from its newest checkpoint, else from the start.

    The run ends with the same rows and the same state, bit for bit, as a run that was never stopped. Rows after the
    checkpoint that are already on disk are computed again, but not written twice.

    Args:
        path: the run directory, or `runs/NAME/latest` or `runs/NAME` for the newest run of that name.
        allowed_folders: folders that the run may read data from. Folders below the working directory that the run
            was allowed before are allowed again.
        allow_changed_data: whether to resume with changed data files, and record that.
        prepare: called with the plan; returns a function that is called with each new row.
        compiling: called at each compilation of `engine: compile`.
    Raises:
        UsageError: the run is finished, or is still running, possibly in a process that has resumed it.
        RunError: `config.yaml` or a data file has changed since the run began, a checkpoint is damaged or belongs to
            another config, or a step fails.
    """
    directory = resolved_run(path)
    check_is_run(directory)
    with locked(directory):
        _remove_leftovers(directory)
        run = open_run(directory)
        if run.status in ("finished", "running"):
            hint = "run its config again for a new run" if run.status == "finished" else _WAIT
            raise UsageError(Problem(f"{directory} is {run.status}", hint))
        folders = [Path(folder) for folder in allowed_folders]
        folders += recorded_folders(run.manifest)
        fitted = load_fitted(directory, run.manifest)
        plan = compile(config_of(run, folders), allowed=folders, limits=limits, fitted=fitted)
        _check_unchanged(plan, run)
        files = changed_data(plan, run, allow_changed_data)
        rows = Recorded(len(run), len(run.parts), files)
        checkpoint = latest_checkpoint(directory, rows.rows)
        if checkpoint is None and rows.rows:  # a checkpoint has versions of its own
            check_versions(f"{directory} was recorded", run.manifest.get("versions", {}), plan)
        run_recorded(
            plan,
            directory,
            command=command,
            see=None if prepare is None else prepare(plan),
            checkpoint_every=checkpoint_every,
            stop=stop,
            resumption=Resumption(rows, checkpoint),
            compiling=compiling,
        )
    return open_run(directory)


def _remove_leftovers(directory: Path) -> None:
    """Remove the temporary files of a killed process."""
    with Folder(directory) as folder:
        folder.remove_leftovers()


def config_of(run: Run, folders: Sequence[Path]) -> Config:
    """The config of a run, without the digest of its first weights: they are compared with the other data files."""
    config = run.load_config(folders)
    if config.from_run is None or config.from_run.sha256 is None:
        return config
    return overridden(config, ["~from_run.sha256"])


def _check_unchanged(plan: Plan, run: Run) -> None:
    """Raise RunError unless the config is the one that the rows on disk belong to."""
    before, now = run.manifest.get(CONFIG_FIELDS), config_fields(plan.config.document)
    differing = None if before is None else difference(before, now)
    if differing is not None:
        hint = "undo the change to resume, or run the changed config as a new run"
        raise RunError(Problem(f"{run.path / CONFIG_FILE} has changed since the run began: {differing}", hint))
    columns = [column_json(part) for column in plan.columns for part in recorded(column)]
    if columns != run.manifest.get("columns", columns):
        message = f"{run.path} was recorded by a version of steprun whose log has other columns"
        raise RunError(Problem(message, "run its config again for a new run"))


def changed_data(plan: Plan, run: Run, allowed: bool) -> tuple[str, ...]:
    """The data files that have changed since the run began; raises RunError if that is not allowed."""
    files = changed(run.manifest.get(DATA_FILES) or {}, data_files(plan.files))
    if files and not allowed:
        shown = files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more data files"
        have = "has" if len(files) == 1 else "have"
        hint = "restore the data to resume; --allow-changed-data resumes with the changed data, and records that"
        raise RunError(Problem(f"{shown} {have} changed since the run began", hint))
    return tuple(files)


def recorded_folders(manifest: dict[str, Any]) -> list[Path]:
    """The recorded data folders that lie below the working directory."""
    here = Path.cwd().resolve()
    folders = [Path(str(folder)).resolve() for folder in manifest.get("data_folders", [])]
    return [folder for folder in folders if folder.is_relative_to(here)]
