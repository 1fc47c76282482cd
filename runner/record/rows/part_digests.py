"""The digests of the finished parts of a run, in `rows.json`, to detect flipped bits on disk.

An unfinished part has no digest; its pages have their own checksums.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from runner.config.files.safe_files import LARGEST_JSON, Folder, parse_json
from runner.errors import Problem, RunError
from runner.record.directory import ROWS_FOLDER, write_atomically

DIGESTS_FILE = "rows.json"

RESTORE = "restore it from a backup, or run the config again"
"""What to do about files of a run that differ from what was written."""


def read_digests(directory: Path) -> dict[str, str]:
    """The SHA-256 of each finished part of a run directory, by file name; empty without `rows.json`.

    Raises:
        RunError: `rows.json` cannot be read.
    """
    path = directory / DIGESTS_FILE
    try:
        with Folder(directory) as folder:
            content = parse_json(folder.read(DIGESTS_FILE, LARGEST_JSON))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise damaged(path, f"it cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise damaged(path, "it is not JSON") from error
    parts = content.get("sha256") if isinstance(content, dict) else None
    if not isinstance(parts, dict) or not all(isinstance(digest, str) for digest in parts.values()):
        raise damaged(path, "it contains no digests")
    return parts


def write_digests(directory: Path, digests: Mapping[str, str], *, synced: bool) -> None:
    """Write the digests of the finished parts.

    Raises:
        OSError: nothing on disk changed.
    """
    text = json.dumps({"sha256": dict(sorted(digests.items()))}, indent=1) + "\n"
    write_atomically(directory / DIGESTS_FILE, text.encode(), synced=synced)


def digest_of(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()


def check_parts(directory: Path, before: str | None = None) -> None:
    """Compare the finished parts of a run with their digests.

    Args:
        before: the name of the first part that does not matter; all do by default, and none if it is empty.
    Raises:
        RunError: a part is missing or damaged; the message names the first.
    """
    for name, expected in sorted(read_digests(directory).items() if before != "" else ()):
        path = directory / ROWS_FOLDER / Path(name).name
        if before is not None and path.name >= before:
            continue
        try:
            with Folder(directory) as run, run.folder(ROWS_FOLDER) as rows, rows.open(path.name) as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise damaged(path, f"it cannot be read: {error.strerror or error}") from error
        if found != expected:
            raise damaged(path, "its digest does not match")


def damaged(path: Path, reason: str) -> RunError:
    """The error for a file of a run that differs from what was written."""
    error = RunError(Problem(f"{path} is damaged: {reason}", RESTORE))
    error.file = path
    return error
