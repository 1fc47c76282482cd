"""The data files of a run as its manifest keeps them: by their bytes, so that a resumed run reads the same ones."""

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
"""Where a manifest keeps them."""

WHOLE_BYTES = 1 << 30
"""Up to here the whole of a file is digested; of a larger one its size, its time, its first and its last bytes."""

END_BYTES = 1 << 20


def data_files(paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """What tells each data file from another one, by its path.

    Raises:
        RunError: one cannot be read.
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
    """The files that are others than they were."""
    return [path for path, identity in now.items() if path in before and before[path] != identity]


def _identity(file: BufferedReader) -> dict[str, Any]:
    status = os.fstat(file.fileno())
    if status.st_size <= WHOLE_BYTES:
        return {"bytes": status.st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    digest = hashlib.sha256(file.read(END_BYTES))
    file.seek(-END_BYTES, os.SEEK_END)
    digest.update(file.read(END_BYTES))
    return {"bytes": status.st_size, "modified": status.st_mtime_ns, "ends_sha256": digest.hexdigest()}
