"""Lists the runs recorded in a folder, without importing torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.config.files.run_paths import MANIFEST_FILE
from runner.config.files.safe_files import Folder
from runner.errors import Problem, UsageError
from runner.record.directory import ROWS_FOLDER
from runner.record.manifest import read_manifest

UNREADABLE = "unreadable"
"""The status of a run whose manifest cannot be read."""


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A recorded run, as `steprun runs` lists it."""

    path: Path
    name: str
    status: str  # the manifest's status, or `unreadable`
    started: str | None  # ISO 8601 with the offset from UTC
    seconds: float | None
    rows: int | None  # None: unknown
    failure: str | None  # the message of the first problem

    def to_json(self) -> dict[str, Any]:
        """The run as JSON values, for `--json`."""
        return {name: getattr(self, name) for name in self.__slots__} | {"path": str(self.path)}


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recorded run with its manifest."""

    summary: RunSummary
    manifest: Mapping[str, Any]  # empty if it is unreadable


def list_runs(runs_dir: str | Path = "runs", name: str | None = None) -> list[RunSummary]:
    """The runs in `runs_dir`, newest first; only those named `name` if it is given.

    Raises:
        UsageError: the folder does not exist.
    """
    return [run.summary for run in recorded_runs(runs_dir, name)]


def recorded_runs(runs_dir: str | Path = "runs", name: str | None = None) -> list[Recorded]:
    """The runs that `list_runs` lists, each with its manifest.

    Raises:
        UsageError: the folder does not exist.
    """
    folder = Path(runs_dir)
    if not folder.is_dir():
        hint = "run a config first, or name the folder of its runs with --runs-dir"
        raise UsageError(Problem(f"there is no folder {folder}", hint))
    runs = [_recorded(directory) for directory in _directories(folder, name)]
    return sorted(runs, key=lambda run: run.summary.path.name, reverse=True)


def _directories(folder: Path, name: str | None) -> Iterator[Path]:
    """The directories two levels down that have an entry `run.json`, even if it is not a file."""
    for name_folder in _entries(folder):
        if name is None or name_folder.name == name:
            yield from (each for each in _entries(name_folder) if os.path.lexists(each / MANIFEST_FILE))


def _entries(folder: Path) -> list[Path]:
    """The folders in a folder; none if it cannot be read."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return [folder / name for name in names if os.path.isdir(folder / name)]


def _recorded(directory: Path) -> Recorded:
    name = directory.parent.name
    try:
        manifest = read_manifest(directory)
    except UsageError as error:
        message = error.problems[0].message
        return Recorded(RunSummary(directory, name, UNREADABLE, None, None, None, message), {})
    rows = manifest.get("rows")
    failure = manifest.get("failure")
    summary = RunSummary(
        path=directory,
        name=name,
        status=manifest["status"],
        started=manifest.get("started"),
        seconds=manifest.get("seconds"),
        rows=_rows_on_disk(directory) if rows is None else rows,
        failure=failure["problems"][0]["message"] if failure and failure["problems"] else None,
    )
    return Recorded(summary, manifest)


def _rows_on_disk(directory: Path) -> int | None:
    """The number of rows in the part files, for a run whose manifest lacks it; None if a file cannot be read."""
    import pyarrow
    import pyarrow.parquet

    count = 0
    try:
        with Folder(directory) as run, run.folder(ROWS_FOLDER) as folder:
            for name in folder.names(".parquet"):
                with folder.open(name) as file:
                    count += pyarrow.parquet.read_metadata(file).num_rows
    except (OSError, ValueError, pyarrow.ArrowException):
        return None
    return count
