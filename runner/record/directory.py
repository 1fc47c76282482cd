"""The run directory: made exclusively, and written so that whoever reads sees each file whole or not at all."""

from __future__ import annotations

import os
import secrets
from datetime import datetime
from pathlib import Path

from runner.errors import Problem, RunError

CONFIG_FILE = "config.yaml"
MANIFEST_FILE = "run.json"
ROWS_FOLDER = "rows"


def create_run_directory(runs_dir: Path, name: str, now: datetime) -> Path:
    """Make `runs_dir/NAME/YYYYMMDD-HHMMSS-xxxx/` with its empty `rows/`; it never existed before and is nobody else's.

    What outlasts a power failure is up to `sync_opening`.

    Raises:
        RunError: the folder cannot be made.
    """
    parent = runs_dir / name
    try:
        parent.mkdir(parents=True, exist_ok=True)
        directory = _make_exclusively(parent, now.strftime("%Y%m%d-%H%M%S"))
        (directory / ROWS_FOLDER).mkdir()
    except OSError as error:
        raise RunError(
            Problem(
                f"cannot make a run directory in {parent}: {error.strerror or error}",
                hint="choose a folder that can be written with --runs-dir",
            )
        ) from error
    return directory


def _make_exclusively(parent: Path, stamp: str) -> Path:
    while True:
        directory = parent / f"{stamp}-{secrets.token_hex(2)}"
        try:
            directory.mkdir()
        except FileExistsError:
            continue
        return directory


def write_atomically(
    path: Path, content: bytes | memoryview, *, through: Path | None = None, synced: bool = True
) -> None:
    """Write a file so that a reader, also after a crash, finds the old content or the new one and nothing between.

    Args:
        through: the folder of the temporary file, on the same file system as `path`; the folder of `path` by default.
        synced: whether it outlasts a power failure once this returns; if not, only a crash of this process.

    Raises:
        OSError: nothing at `path` changed, and the temporary file is gone.
    """
    temporary = (through or path.parent) / f".{path.name}.writing"
    try:
        with open(temporary, "wb", buffering=0) as file:
            _write_all(file.fileno(), content)
            if synced:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if synced:
        _sync_folder(path.parent)


def _write_all(descriptor: int, content: bytes | memoryview) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_opening(directory: Path) -> None:
    """Let a run directory that was just made outlast a power failure, with its config and its manifest.

    Raises:
        OSError: it may not.
    """
    for name in (CONFIG_FILE, MANIFEST_FILE):
        with open(directory / name, "r+b" if os.name == "nt" else "rb") as file:
            os.fsync(file.fileno())
    for folder in (directory, directory.parent, directory.parent.parent):
        _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder durable; where it may not be opened, that is the system's matter."""
    if os.name == "nt":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
