"""Creates run directories, locks them, and writes their files atomically."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

from runner.config.run_paths import CONFIG_FILE, MANIFEST_FILE
from runner.errors import Problem, RunError, UsageError
from runner.safe_files import Busy, Content, Folder

ROWS_FOLDER = "rows"


def create_run_directory(runs_dir: Path, name: str, now: datetime) -> Path:
    """Create a new directory `runs_dir/NAME/YYYYMMDD-HHMMSS-xxxx/` with an empty `rows/`, exclusively.

    It survives a power failure only after `sync_opening`.

    Raises:
        RunError: the folder cannot be made, or `runs_dir/NAME` is a link, which may lead anywhere.
    """
    parent = runs_dir / name
    try:
        if not runs_dir.exists():
            runs_dir.mkdir(parents=True, exist_ok=True)
        with Folder(runs_dir) as runs, runs.folder(name, create=True) as name_folder:
            made = _make_exclusively(name_folder, now.strftime("%Y%m%d-%H%M%S"))
            with name_folder.folder(made) as directory:
                directory.make_folder(ROWS_FOLDER)
    except OSError as error:
        raise RunError(
            Problem(
                f"cannot make a run directory in {parent}: {error.strerror or error}",
                hint="choose a folder that can be written with --runs-dir",
            )
        ) from error
    return parent / made


def _make_exclusively(parent: Folder, stamp: str) -> str:
    while True:
        name = f"{stamp}-{secrets.token_hex(2)}"
        try:
            parent.make_folder(name)
        except FileExistsError:
            continue
        return name


def write_atomically(path: Path, content: Content, *, through: Path | None = None, synced: bool = True) -> None:
    """Write a file atomically: a reader finds either the old content or the new one, also after a crash.

    Args:
        through: the parent of the folder of `path`, for the temporary file. The folder of `path` is opened from
            there; it is made if it does not exist, and a link is refused.
        synced: whether the file survives a power failure once this returns, or only a crash of this process.

    Raises:
        OSError: nothing at `path` changed, and the temporary file is removed.
    """
    if through is None:
        with Folder(path.parent) as folder:
            folder.write(path.name, content, synced=synced)
    else:
        with Folder(through) as parent_folder, parent_folder.folder(path.parent.name, create=True) as folder:
            folder.write(path.name, content, through=parent_folder, synced=synced)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Lock a run directory against other writers; the lock ends with this process at the latest.

    Raises:
        UsageError: another process is writing to it.
    """
    with Folder(directory) as folder, ExitStack() as stack:
        try:
            stack.enter_context(folder.locked())
        except Busy as error:
            problem = Problem(f"{directory} is running: {error.strerror}", "wait for it, or end its process")
            raise UsageError(problem) from error
        yield


def sync_opening(directory: Path) -> None:
    """Make a new run directory durable, with its config and its manifest: they survive a power failure.

    Raises:
        OSError: a file or folder cannot be synced.
    """
    with Folder(directory) as folder:
        for name in (CONFIG_FILE, MANIFEST_FILE):
            with folder.open(name) as file:
                os.fsync(file.fileno())
        folder.sync()
    for parent_folder in (directory.parent, directory.parent.parent):
        with Folder(parent_folder) as folder:
            folder.sync()
