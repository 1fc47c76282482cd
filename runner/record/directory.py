"""Creates run directories, locks them, and writes their files atomically."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from threading import Thread

from runner.config.files.run_paths import CONFIG_FILE, MANIFEST_FILE
from runner.config.files.safe_files import Busy, Content, Folder
from runner.errors import Problem, RunError, UsageError

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


def write_atomically(
    path: Path, content: Content, *, through: Path | None = None, synced: bool = True, named: bool = True
) -> None:
    """Write a file atomically: a reader finds either the old content or the new one, also after a crash.

    Args:
        through: the parent of the folder of `path`, for the temporary file. The folder of `path` is opened from
            there; it is made if it does not exist, and a link is refused.
        synced: whether the file survives a power failure once this returns, or only a crash of this process.
        named: whether its name does, too; otherwise the next sync of the folder makes it durable.

    Raises:
        OSError: nothing at `path` changed, and the temporary file is removed.
    """
    if through is None:
        with Folder(path.parent) as folder:
            folder.write(path.name, content, synced=synced, named=named)
    else:
        with Folder(through) as parent_folder, parent_folder.folder(path.parent.name, create=True) as folder:
            folder.write(path.name, content, through=parent_folder, synced=synced, named=named)


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

    All are synced at the same time: a file system writes what several calls wait for at once.

    Raises:
        OSError: a file or folder cannot be synced.
    """
    faults: list[OSError] = []

    def sync(target: Path, name: str | None) -> None:
        try:
            _sync(target, name)
        except OSError as fault:
            faults.append(fault)

    targets = [(directory, CONFIG_FILE), (directory, MANIFEST_FILE)]
    folders = [(folder, None) for folder in (directory, directory.parent, directory.parent.parent)]
    threads = [Thread(target=sync, args=each, name="steprun-sync", daemon=True) for each in (*targets, *folders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]


def _sync(directory: Path, name: str | None) -> None:
    """Sync a file of a folder, or the folder itself."""
    with Folder(directory) as folder:
        if name is None:
            folder.sync()
            return
        with folder.open(name) as file:
            os.fsync(file.fileno())
