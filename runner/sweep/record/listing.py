"""Lists the sweeps recorded in a folder, without importing torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.config.files.run_paths import SWEEP_MANIFEST, runs_in
from runner.errors import UsageError
from runner.sweep.record.manifest import read_manifest


@dataclass(frozen=True, slots=True)
class SweepSummary:
    """A recorded sweep, as `steprun runs` lists it."""

    path: Path
    name: str
    status: str  # the manifest's status, or `unreadable`
    started: str | None  # ISO 8601 with the offset from UTC
    points: int | None
    failure: str | None = None  # why it is unreadable

    def to_json(self) -> dict[str, Any]:
        """The sweep as JSON values, for `--json`."""
        return {name: getattr(self, name) for name in self.__slots__} | {"path": str(self.path)}


def list_sweeps(sweeps_dir: str | Path = "sweeps", name: str | None = None) -> list[SweepSummary]:
    """The sweeps in `sweeps_dir`, newest first; only those named `name` if it is given."""
    folder = Path(sweeps_dir)
    names = sorted(each.name for each in folder.iterdir() if each.is_dir()) if folder.is_dir() else []
    found = [path for each in names if name in (None, each) for path in runs_in(folder / each, SWEEP_MANIFEST)]
    return sorted(map(_summary, found), key=lambda sweep: sweep.path.name, reverse=True)


def _summary(directory: Path) -> SweepSummary:
    try:
        manifest = read_manifest(directory)
    except UsageError as error:
        return SweepSummary(directory, directory.parent.name, "unreadable", None, None, error.problems[0].message)
    return SweepSummary(directory, directory.parent.name, manifest["status"], manifest["started"], manifest["points"])
