"""A run that was stopped, gone on with to the same bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from runner.engine.rows import Compiling, Row
from runner.errors import Problem, RunError, UsageError
from runner.plan import Plan, PlanLimits, compile
from runner.record.checkpoints.store import latest_checkpoint
from runner.record.config_fields import config_fields, difference
from runner.record.data_files import DATA_FILES, changed, data_files
from runner.record.directory import CONFIG_FILE, locked
from runner.record.reading import Run, check_is_run, open_run
from runner.record.recorder import Recorded
from runner.record.running import CONFIG_FIELDS, Resumption, run_recorded
from runner.safe_files import Folder

_WAIT = "wait for it, or end its process"


def resume(
    path: str | Path,
    *,
    allowed_folders: Sequence[str | Path] = (),
    limits: PlanLimits | None = None,
    allow_changed_data: bool = False,
    checkpoint_every: int | None = None,
    prepare: Callable[[Plan], Callable[[Row], None]] | None = None,
    stop: Callable[[], bool] | None = None,
    command: Sequence[str] | None = None,
    compiling: Compiling | None = None,
) -> Run:
    """Go on with a run that was interrupted, killed, or failed, from its newest checkpoint, else from the start.

    It ends in the same rows and the same state, bit for bit, as a run that was never stopped. Rows that are on disk
    already are computed again where they come after the checkpoint, and not written twice.

    Args:
        path: the run directory.
        allowed_folders: folders that it may read data from; those below the working directory that the run was
            allowed are allowed again.
        allow_changed_data: go on where a data file is another one than the run began with, and record that.
        prepare: called with the plan; gives what is called with each new row.
        compiling: told of each compilation of `engine: compile`.
    Raises:
        UsageError: the run is finished, or is still running, also in a process that goes on with it.
        RunError: `config.yaml` or a data file is not what the run began with, a checkpoint is damaged or of another
            config, or a step fails.
    """
    directory = Path(path)
    check_is_run(directory)
    with locked(directory):
        _remove_leftovers(directory)
        run = open_run(directory)
        if run.status in ("finished", "running"):
            hint = "run its config again for another one" if run.status == "finished" else _WAIT
            raise UsageError(Problem(f"{directory} is {run.status}", hint))
        folders = [Path(folder) for folder in allowed_folders]
        folders += _recorded_folders(run.manifest)
        plan = compile(run.load_config(folders), allowed=folders, limits=limits)
        _check_unchanged(plan, run)
        others = _changed_data(plan, run, allow_changed_data)
        recorded = Recorded(len(run), len(run.parts), others)
        run_recorded(
            plan,
            directory,
            command=command,
            see=None if prepare is None else prepare(plan),
            checkpoint_every=checkpoint_every,
            stop=stop,
            resumption=Resumption(recorded, latest_checkpoint(directory, recorded.rows)),
            compiling=compiling,
        )
    return open_run(directory)


def _remove_leftovers(directory: Path) -> None:
    """What a process that was killed had begun to write."""
    with Folder(directory) as folder:
        folder.remove_leftovers()


def _check_unchanged(plan: Plan, run: Run) -> None:
    """The rows to come have to be of the config that those on disk are of."""
    before, now = run.manifest.get(CONFIG_FIELDS), config_fields(plan.config.document)
    differing = None if before is None else difference(before, now)
    if differing is not None:
        hint = "put that back to go on, or run the changed config as a run of its own"
        raise RunError(Problem(f"{run.path / CONFIG_FILE} is not what the run began with: {differing}", hint))


def _changed_data(plan: Plan, run: Run, allowed: bool) -> tuple[str, ...]:
    """The data files that are others than the run began with, where that is allowed."""
    others = changed(run.manifest.get(DATA_FILES) or {}, data_files(plan.files))
    if others and not allowed:
        shown = others[0] if len(others) == 1 else f"{others[0]} and {len(others) - 1} more data files"
        are = "is not the file" if len(others) == 1 else "are not the files"
        hint = "put that back to go on; --allow-changed-data goes on with what is there, and records that"
        raise RunError(Problem(f"{shown} {are} that the run began with", hint))
    return tuple(others)


def _recorded_folders(manifest: dict[str, Any]) -> list[Path]:
    """The data folders of the run, as far as they lie below the working directory."""
    here = Path.cwd().resolve()
    folders = [Path(str(folder)).resolve() for folder in manifest.get("data_folders", [])]
    return [folder for folder in folders if folder.is_relative_to(here)]
