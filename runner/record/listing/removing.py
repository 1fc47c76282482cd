"""Removes run directories: never through a link, never one that is running, and nothing that is not a run."""

from __future__ import annotations

import re
from contextlib import suppress

from runner.config.files.run_paths import MANIFEST_FILE
from runner.config.files.safe_files import Busy, Folder
from runner.errors import Problem, UsageError
from runner.record.directory import ROWS_FOLDER
from runner.record.listing.runs import UNREADABLE, RunSummary
from runner.record.manifest import read_manifest

_STAMPED = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")


def remove_run(run: RunSummary) -> None:
    """Remove a run directory, and the folder of its name if that is empty then.

    The directory is looked up below the folder of all runs without following links. Its lock is held meanwhile, and
    `run.json` is removed last: a removal that is interrupted can be repeated.

    Raises:
        UsageError: it is running, it is a link or no run directory, or a file cannot be removed.
    """
    directory = run.path
    try:
        with Folder(directory.parents[1]) as runs:
            with runs.folder(directory.parent.name) as named:
                with named.folder(directory.name) as folder, folder.locked():
                    _check(run, folder)
                    folder.clear(last=MANIFEST_FILE)
                named.remove_folder(directory.name)
            with suppress(OSError):  # it has other runs
                runs.remove_folder(directory.parent.name)
    except Busy as error:
        raise _running(run) from error
    except OSError as error:
        raise UsageError(Problem(f"cannot delete {directory}: {error.strerror or error}")) from error


def _check(run: RunSummary, folder: Folder) -> None:
    """Raise UsageError unless a folder is a run directory that no process writes to."""
    if not folder.holds(MANIFEST_FILE):
        raise UsageError(f"cannot delete {run.path}: its {MANIFEST_FILE} is not an ordinary file")
    if run.status == UNREADABLE:
        with suppress(OSError), folder.folder(ROWS_FOLDER):
            if _STAMPED.fullmatch(run.path.name):
                return
        hint = "remove it yourself if you do not need it"
        raise UsageError(Problem(f"cannot delete {run.path}: it may be something else than a run", hint))
    if read_manifest(run.path)["status"] == "running":
        raise _running(run)


def _running(run: RunSummary) -> UsageError:
    return UsageError(Problem(f"cannot delete {run.path}: it is running", "wait for it, or end its process"))
