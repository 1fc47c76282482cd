"""Snapshots of another environment than this one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from runner.compare.snapshots.reading import read
from runner.compare.snapshots.writing import write


def elsewhere(path: Path, **changes: object) -> None:
    """Make a snapshot one of another environment."""
    snapshot, of = read(path)
    changes = changes or {"battery": "0" * 16}
    write(replace(snapshot, environment={**snapshot.environment, **changes}), path, of)


def line_of(path: Path, start: str) -> str:
    return next(line for line in path.read_text().splitlines() if line.startswith(start))
