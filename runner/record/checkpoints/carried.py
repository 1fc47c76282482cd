"""Carries the checkpoints of a finished run into a longer one, as they were when its state was kept.

Steps after the last loop may replace a checkpoint. So the run keeps what the longer one needs under a second name:
`best.last.json` is the JSON of `best.json` at that moment, and while it is there, its tensors stay too.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from runner.config.files.safe_files import LARGEST_JSON, Folder
from runner.engine.state import State
from runner.errors import Problem, RunError
from runner.plan.plan import Plan
from runner.plan.program.instructions import Action, Checkpoint, KeepBest
from runner.plan.program.last_loop import last_loop
from runner.plan.tensors.run_files import BEST, BEST_FILE, CHECKPOINTS_FOLDER, KEPT_SUFFIX, LAST
from runner.record.checkpoints.store import UNTAGGED, read_state, write_checkpoint
from runner.record.checkpoints.weights import write_weights
from runner.record.directory import write_atomically
from runner.text import steprun_command

_AGAIN = "restore it from a backup, or run the longer config as a new run"


def keep_checkpoints(plan: Plan, directory: Path) -> None:
    """Keep the checkpoints of a run as they are now, if later steps may replace them.

    Raises:
        RunError: a file cannot be written.
    """
    if not _may_change(plan):
        return
    try:
        with Folder(directory) as run, run.folder(CHECKPOINTS_FOLDER) as folder:
            for name in folder.names(KEPT_SUFFIX):
                folder.remove(name)
            kept = {name: folder.read(name, LARGEST_JSON) for name in folder.names(".json")}
    except FileNotFoundError:
        return  # there is no checkpoint yet
    except OSError as error:
        raise _unwritable(directory, error) from error
    kept.pop(f"{LAST}.json", None)
    for name, content in kept.items():
        path = directory / CHECKPOINTS_FOLDER / f"{name.removesuffix('.json')}{KEPT_SUFFIX}"
        try:
            write_atomically(path, content, through=directory)
        except OSError as error:
            raise _unwritable(directory, error) from error


def carry_checkpoints(plan: Plan, state: State, run: Path, directory: Path, grown: str) -> None:
    """Write the checkpoints and the best weights that a finished run kept into the directory of a longer one.

    Args:
        plan, state: those of the longer run.
        run: the directory of the finished run.
        grown: the field of the config that grows.
    Raises:
        RunError: a checkpoint is damaged, or cannot be written.
    """
    suffix = KEPT_SUFFIX if _may_change(plan) else ".json"
    steps = [action.argument for action in plan.program if isinstance(action, Action)]
    untagged = Checkpoint(None) in [step for step in steps if isinstance(step, Checkpoint)]
    for name in _names(run, suffix):
        tag = name.removesuffix(suffix)
        if tag == LAST or name.endswith(KEPT_SUFFIX) != (suffix == KEPT_SUFFIX):
            continue
        of_command = UNTAGGED.fullmatch(f"{tag}.json") is not None  # by `--checkpoint-every`, if no step saves such
        if of_command and not untagged:
            continue
        try:
            contents = read_state(plan, state, run / CHECKPOINTS_FOLDER / name, grown)
        except RunError as error:
            raise RunError([replace(problem, hint=_AGAIN) for problem in error.problems]) from error
        if tag == BEST:  # first: a run that resumes from the checkpoint has them
            write_weights(plan, contents["weights"], contents["row"], directory, BEST_FILE)
        write_checkpoint(plan, contents, directory, None if of_command else tag)


def _names(run: Path, suffix: str) -> list[str]:
    try:
        with Folder(run) as opened, opened.folder(CHECKPOINTS_FOLDER) as folder:
            return folder.names(suffix)
    except OSError as error:
        message = f"checkpoints cannot be read from {run / CHECKPOINTS_FOLDER}: {error.strerror or error}"
        raise RunError(Problem(message, _AGAIN)) from error


def _may_change(plan: Plan) -> bool:
    """Whether a step may save a checkpoint after the state of the run is kept.

    If the log leaves out rows, that is before the last iteration of the loop.
    """
    loop = last_loop(plan.program)
    if loop is None:
        return False
    after = plan.program[loop.end if plan.log.every == 1 else loop.start :]
    return any(isinstance(each, Action) and isinstance(each.argument, Checkpoint | KeepBest) for each in after)


def _unwritable(directory: Path, error: OSError) -> RunError:
    message = f"cannot write a checkpoint to {directory / CHECKPOINTS_FOLDER}: {error.strerror or error}"
    return RunError(Problem(message, f"free space, and `{steprun_command('resume', directory)}` goes on"))
