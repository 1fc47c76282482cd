"""The runs that are recorded in a folder. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.errors import UsageError
from runner.record.directory import MANIFEST_FILE, ROWS_FOLDER
from runner.record.manifest import read_manifest


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One recorded run, as `steprun runs` lists it."""

    path: Path
    name: str
    status: str  # of the manifest, or `unreadable`
    started: str | None  # ISO 8601 with the offset from UTC
    seconds: float | None
    rows: int | None  # None: nothing there says how many
    failure: str | None  # the first message

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `--json`."""
        return {name: getattr(self, name) for name in self.__slots__} | {"path": str(self.path)}


def list_runs(runs_dir: str | Path = "runs", name: str | None = None) -> list[RunSummary]:
    """The runs in `runs_dir`, newest first; only those called `name` where it is given.

    Raises:
        UsageError: there is no such folder.
    """
    folder = Path(runs_dir)
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}")
    manifests = folder.glob(f"*/*/{MANIFEST_FILE}")
    runs = [_summary(path.parent) for path in manifests if name is None or path.parent.parent.name == name]
    return sorted(runs, key=lambda run: run.path.name, reverse=True)


def _summary(directory: Path) -> RunSummary:
    name = directory.parent.name
    try:
        manifest = read_manifest(directory)
    except UsageError as error:
        return RunSummary(directory, name, "unreadable", None, None, None, error.problems[0].message)
    rows = manifest.get("rows")
    problems = (manifest.get("failure") or {}).get("problems") or [{}]
    return RunSummary(
        path=directory,
        name=name,
        status=manifest["status"],
        started=manifest.get("started"),
        seconds=manifest.get("seconds"),
        rows=_rows_on_disk(directory) if rows is None else rows,
        failure=problems[0].get("message"),
    )


def _rows_on_disk(directory: Path) -> int:
    """Counted in the files, for a run that did not come to write it down."""
    import pyarrow.parquet

    return sum(pyarrow.parquet.read_metadata(part).num_rows for part in (directory / ROWS_FOLDER).glob("*.parquet"))
