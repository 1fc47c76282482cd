"""Finds run directories by path: `runs/NAME/latest`, and `runs/NAME` alone, mean the newest run of that name."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

MANIFEST_FILE = "run.json"
SWEEP_MANIFEST = "sweep.json"
CONFIG_FILE = "config.yaml"
LATEST = "latest"

_STAMP = len("YYYYMMDD-HHMMSS")


def resolved_run(path: str | Path) -> Path:
    """The run directory that a path means; the path itself if it means none.

    Nothing is stored for `latest`: the newest directory with a manifest is found when it is asked for. So two runs at
    once, or one that is killed, cannot leave a wrong answer.
    """
    directory = Path(path)
    if is_run(directory):
        return directory
    folder = directory.parent if directory.name == LATEST else directory
    found = runs_in(folder)
    return found[-1] if found else directory


def resolved_sweep(path: str | Path) -> Path:
    """The sweep directory that a path means, as `resolved_run`; `sweeps/NAME/latest` is the newest sweep."""
    directory = Path(path)
    if is_run(directory, SWEEP_MANIFEST):
        return directory
    folder = directory.parent if directory.name == LATEST else directory
    found = runs_in(folder, SWEEP_MANIFEST)
    return found[-1] if found else directory


def is_run(directory: Path, manifest: str = MANIFEST_FILE) -> bool:
    """Whether a folder has a manifest, possibly that of a sweep."""
    return os.path.lexists(directory / manifest)


def runs_in(folder: Path, manifest: str = MANIFEST_FILE) -> list[Path]:
    """The run directories in a folder, oldest first, or the sweep directories; links are left out."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    return sorted((path for name in names if is_run(path := folder / name, manifest)), key=_age)


def _age(directory: Path) -> tuple[str, int, str]:
    """Sorts runs by the time in their names; runs of one second by the time of their config, written at the start."""
    try:
        began = os.lstat(directory / CONFIG_FILE).st_mtime_ns
    except OSError:
        began = 0
    return directory.name[:_STAMP], began, directory.name


def fields_digest(fields: Any) -> str:
    """The SHA-256 of the fields of a config, by which a weights file names the config of its run."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
