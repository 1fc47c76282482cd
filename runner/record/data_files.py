"""The data files of a run, by digest, so that a resumed run can check that it reads the same files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

from runner.errors import Problem, RunError
from runner.plan.data.sandbox import FileFault, open_ordinary

DATA_FILES = "data_files"
"""The manifest's key for the data files."""

WHOLE_BYTES = 1 << 30
"""The largest file to digest whole. A larger one is identified by its size, time, and first and last bytes."""

END_BYTES = 1 << 20


def data_files(paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """What identifies each data file, by its path: its size and digest; of a large one, see `WHOLE_BYTES`.

    Raises:
        RunError: a file cannot be read.
    """
    found = {}
    for path in paths:
        try:
            with open_ordinary(path) as file:
                found[str(path)] = _identity(file)
        except FileFault as fault:
            raise RunError(Problem(fault.message, fault.hint)) from fault
    return found


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The paths of the files that are in both mappings and differ."""
    return [path for path, identity in now.items() if path in before and before[path] != identity]


def _identity(file: BufferedReader) -> dict[str, Any]:
    status = os.fstat(file.fileno())
    if status.st_size <= WHOLE_BYTES:
        return {"bytes": status.st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    digest = hashlib.sha256(file.read(END_BYTES))
    file.seek(-END_BYTES, os.SEEK_END)
    digest.update(file.read(END_BYTES))
    return {"bytes": status.st_size, "modified": status.st_mtime_ns, "ends_sha256": digest.hexdigest()}
