"""`sweep.json`: what a sweep is, where it ran, and how it ended."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runner.config.files.run_paths import SWEEP_MANIFEST
from runner.errors import Problem, UsageError
from runner.record.directory import write_atomically
from runner.record.json_fields import (
    COUNT,
    MAPPING,
    PATHS,
    TEXT,
    TEXTS,
    Kind,
    mapping_of,
    or_null,
)
from runner.record.manifest import Kept, now, this_process, with_digest
from runner.record.manifest import read_manifest as read_kept

FIELDS: Mapping[str, Kind] = {
    "status": TEXT,
    "command": TEXTS,
    "name": TEXT,
    "config": or_null(TEXT),
    "axes": mapping_of(Kind("a list", lambda value: isinstance(value, list)), "a mapping of lists"),
    "sampler": or_null(TEXT),
    "batch": COUNT,
    "lanes": TEXT,
    "points": COUNT,
    "threads": Kind("a whole number from 1 to 1,024", lambda value: type(value) is int and 1 <= value <= 1024),
    "versions": mapping_of(TEXT, "a mapping of strings"),
    "environment": MAPPING,
    "process": MAPPING,
    "started": TEXT,
    "ended": or_null(TEXT),
    "data_folders": PATHS,
    "warnings": or_null(TEXTS),
    "widening": or_null(TEXT),
}
_SWEEP = Kept("sweep", SWEEP_MANIFEST, FIELDS, True, "the recorded runs and sweeps", ("config", "warnings", "widening"))


def opening(
    name: str,
    config: str,
    axes: Mapping[str, Sequence[Any]],
    points: int,
    sampler: str | None,
    batch: int,
    lanes: str,
    environment: Mapping[str, Any],
    folders: Sequence[Path],
    command: Sequence[str] | None,
) -> dict[str, Any]:
    """The manifest of a sweep that begins.

    Args:
        config: the text of its config.
    """
    return {
        "status": "running",
        "command": list(sys.argv if command is None else command),
        "name": name,
        "config": digest(config),
        "axes": {path: list(values) for path, values in axes.items()},
        "sampler": sampler,
        "batch": batch,
        "lanes": lanes,
        "points": points,
        "threads": environment["threads"],
        "versions": versions(),
        "environment": dict(environment),
        "process": this_process(),
        "started": now(),
        "ended": None,
        "data_folders": [str(folder) for folder in folders],
        "warnings": [],
    }


def versions() -> dict[str, str]:
    """The versions of this process that the numbers of points may depend on; those of JAX if it is installed."""
    import torch

    import runner
    from runner.plan.checks.engines.versions import jax_versions

    return {
        "steprun": runner.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        **jax_versions(),
    }


def digest(config: str) -> str:
    """The digest of a config's text, by which an edited one is found."""
    return hashlib.sha256(config.encode()).hexdigest()


def write_manifest(directory: Path, content: Mapping[str, Any]) -> None:
    """Write the manifest atomically."""
    text = json.dumps(with_digest(content), indent=2, ensure_ascii=False) + "\n"
    write_atomically(directory / SWEEP_MANIFEST, text.encode())


def read_manifest(directory: Path) -> dict[str, Any]:
    """Read the manifest of a sweep directory; `status` becomes `killed` if its process has ended.

    Raises:
        UsageError: the folder is not a sweep directory.
    """
    if not os.path.lexists(directory):
        raise UsageError(
            Problem(f"there is no folder {directory}", "`steprun runs` lists the recorded runs and sweeps")
        )
    return read_kept(directory, _SWEEP)
