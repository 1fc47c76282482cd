"""Writes the page of a report to a file, once or again and again while a run goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from runner.config.files.safe_files import Folder
from runner.errors import Problem, RunError, UsageError
from runner.record.directory import ROWS_FOLDER
from runner.record.manifest import read_manifest
from runner.report.page import MARK

LEAST_PAUSE = 2.0
"""The least seconds between two pages while a run goes on."""

SHARE = 10
"""The pause before the next page, as a multiple of the time that the last one took."""


def check_target(path: Path) -> None:
    """Raise UsageError if a file exists that is not a report."""
    if not path.parent.is_dir():
        raise UsageError(Problem(f"there is no folder {path.parent}", "make it, or name another file"))
    try:
        with Folder(path.parent) as folder, folder.open(path.name) as file:
            begins = file.read(len(MARK))
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(Problem(f"cannot write {path}: {error.strerror}", "name another file with -o")) from error
    if begins != MARK.encode():
        raise UsageError(Problem(f"{path} exists, and is not a report", "name another file with -o"))


def write(path: Path, content: bytes) -> None:
    """Write a page atomically, in place of an earlier one.

    Raises:
        RunError: the file cannot be written.
    """
    try:
        with Folder(path.parent) as folder:
            folder.write(path.name, content, synced=False)
    except OSError as error:
        raise RunError(Problem(f"cannot write {path}: {error.strerror}", "name another file with -o")) from error


def follow(
    run: Path,
    write_page: Callable[[], None],
    *,
    seen: object = None,
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Write the page of a run that goes on, again as rows come, until the run ends. Returns how often it was written.

    Args:
        write_page: writes the page as of now; what it raises, such as that the run is damaged, ends this.
        seen: what `state_of` returned before the page that is there was made; None if there is none.
        pause: waits so many seconds.
    """
    written = 0
    while True:
        now = state_of(run)
        began = clock()
        if now != seen:
            write_page()
            written += 1
            seen = now
        if now[0] != "running":
            return written
        pause(max(LEAST_PAUSE, SHARE * (clock() - began)))


def state_of(run: Path) -> tuple[str, object]:
    """What changes as a run goes on: its status, and the names, sizes and times of its part files."""
    try:
        status = str(read_manifest(run)["status"])
    except UsageError:  # the page says what is wrong
        return "unreadable", None
    try:
        with Folder(run) as folder, folder.folder(ROWS_FOLDER) as rows:
            found = [(name, rows.status(name)) for name in rows.names(".parquet")]
    except OSError:
        return status, None
    return status, [(name, each.st_size, each.st_mtime_ns) for name, each in found]
