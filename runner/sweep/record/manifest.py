"""`sweep.json`: what a sweep is, where it ran, and how it ended."""

from __future__ import annotations

import json
import os
import platform
import socket
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from runner.errors import Problem, UsageError
from runner.record.directory import write_atomically
from runner.record.json_fields import (
    COUNT,
    MAPPING,
    PATHS,
    TEXT,
    TEXTS,
    Kind,
    fault_in,
    mapping_of,
    or_null,
)
from runner.record.manifest import STATUSES, is_alive, process_start
from runner.safe_files import LARGEST_JSON, Folder, parse_json

MANIFEST_FILE = "sweep.json"

FIELDS: Mapping[str, Kind] = {
    "status": TEXT,
    "command": TEXTS,
    "name": TEXT,
    "axes": mapping_of(Kind("a list", lambda value: isinstance(value, list)), "a mapping of lists"),
    "sampler": or_null(TEXT),
    "batch": COUNT,
    "lanes": TEXT,
    "points": COUNT,
    "threads": COUNT,
    "versions": mapping_of(TEXT, "a mapping of strings"),
    "environment": MAPPING,
    "process": MAPPING,
    "started": TEXT,
    "ended": or_null(TEXT),
    "data_folders": PATHS,
}


def opening(
    name: str,
    axes: Mapping[str, Sequence[Any]],
    points: int,
    sampler: str | None,
    batch: int,
    lanes: str,
    environment: Mapping[str, Any],
    folders: Sequence[Path],
    command: Sequence[str] | None,
) -> dict[str, Any]:
    """The manifest of a sweep that begins."""
    import torch

    import runner

    return {
        "status": "running",
        "command": list(sys.argv if command is None else command),
        "name": name,
        "axes": {path: list(values) for path, values in axes.items()},
        "sampler": sampler,
        "batch": batch,
        "lanes": lanes,
        "points": points,
        "threads": environment["threads"],
        "versions": {
            "steprun": runner.__version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
        "environment": dict(environment),
        "process": this_process(),
        "started": now(),
        "ended": None,
        "data_folders": [str(folder) for folder in folders],
    }


def this_process() -> dict[str, Any]:
    """What identifies this process."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": process_start(os.getpid())}


def now() -> str:
    """The time, ISO 8601 with the offset from UTC."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


def write_manifest(directory: Path, content: Mapping[str, Any]) -> None:
    """Write the manifest atomically."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_atomically(directory / MANIFEST_FILE, text.encode())


def read_manifest(directory: Path) -> dict[str, Any]:
    """Read the manifest of a sweep directory; `status` becomes `killed` if its process has ended.

    Raises:
        UsageError: the folder is not a sweep directory.
    """
    path = directory / MANIFEST_FILE
    try:
        with Folder(directory) as folder:
            content = parse_json(folder.read(MANIFEST_FILE, LARGEST_JSON))
    except OSError as error:
        message = f"{directory} is not a sweep directory: cannot read {MANIFEST_FILE}: {error.strerror}"
        raise UsageError(Problem(message, "`steprun runs` lists the recorded runs and sweeps")) from error
    except ValueError as error:
        raise UsageError(f"{path} is not valid JSON") from error
    if not isinstance(content, dict) or content.get("status") not in STATUSES:
        raise UsageError(f"{path} is not the manifest of a sweep: it has no known status")
    fault = fault_in(content, FIELDS)
    if fault is not None:
        raise UsageError(f"{path} is not the manifest of a sweep: {fault}")
    if content["status"] == "running" and not is_alive(content["process"]):
        content["status"] = "killed"
    return content
