"""The data files of a run, by digest, so that a resumed run can check that it reads the same files."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

from runner.errors import Problem, RunError
from runner.language.dtypes import dtype_name
from runner.plan.data.sandbox import FileFault, open_ordinary
from runner.plan.data.sources import SourcePlan

DATA_COLUMNS = "data_columns"
"""The manifest's key for the shapes and dtypes of the columns of data sources."""

DATA_FILES = "data_files"
"""The manifest's key for the data files."""

WHOLE_BYTES = 1 << 30
"""The largest file to digest before a run. A larger one is digested while the run goes on; until then it is identified
by its size, its time, and its first and last bytes."""

END_BYTES = 1 << 20
PIECE_BYTES = 4 << 20
PATIENCE = 10.0
"""Seconds that the end of a run waits for the digests of large files; a digest that takes longer is left out."""

_WHOLE = "sha256"


def data_columns(sources: Mapping[str, SourcePlan]) -> dict[str, dict[str, Any]]:
    """What describes each data source: the number of its samples, and the shape, dtype and columns of one.

    The columns of the file are without globs, so that another file is read alike.
    """
    return {
        name: {
            "samples": source.samples,
            "columns": {
                column.name: {
                    "shape": list(column.shape),
                    "dtype": dtype_name(column.dtype),
                    "of_file": list(columns) if isinstance(columns := column.array.columns, tuple) else columns,
                }
                for column in source.columns
            },
        }
        for name, source in sources.items()
    }


def data_files(paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """What identifies each data file, by its path: its size and digest; of a large one, see `WHOLE_BYTES`.

    Raises:
        RunError: a file cannot be read.
    """
    return {str(path): _of_file(path, _identity) for path in paths}


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The paths of the files that are in both mappings and differ.

    A large file with another time is digested whole, if its digest was recorded.

    Raises:
        RunError: a file cannot be read.
    """
    return [path for path, identity in now.items() if path in before and not _is_same(path, before[path], identity)]


@contextmanager
def digesting(files: Mapping[str, Mapping[str, Any]], record: Callable[[str, str], None]) -> Iterator[None]:
    """Digest the large files among `files` on a thread during the block, and pass each to `record` at its end.

    Args:
        files: what `data_files` returns.
        record: takes the path and the SHA-256 of a file, once the block has ended without an exception.
    """
    large = [path for path, identity in files.items() if _WHOLE not in identity]
    if not large:
        yield
        return
    found: dict[str, str] = {}
    stop = threading.Event()

    def work() -> None:
        for path in large:
            with suppress(FileFault, OSError), open_ordinary(Path(path)) as file:
                digest = _digest_unless(stop, file)
                if digest is not None:
                    found[path] = digest

    thread = threading.Thread(target=work, name="steprun-digests", daemon=True)
    thread.start()
    try:
        yield
        thread.join(PATIENCE)
    finally:
        stop.set()
    for path, digest in list(found.items()):
        record(path, digest)


def _of_file(path: Path, of: Callable[[BufferedReader], Any]) -> Any:
    try:
        with open_ordinary(path) as file:
            return of(file)
    except FileFault as fault:
        raise RunError(Problem(fault.message, fault.hint)) from fault


def _identity(file: BufferedReader) -> dict[str, Any]:
    status = os.fstat(file.fileno())
    if status.st_size <= WHOLE_BYTES:
        return {"bytes": status.st_size, _WHOLE: hashlib.file_digest(file, "sha256").hexdigest()}
    digest = hashlib.sha256(file.read(END_BYTES))
    file.seek(-END_BYTES, os.SEEK_END)
    digest.update(file.read(END_BYTES))
    return {"bytes": status.st_size, "modified": status.st_mtime_ns, "ends_sha256": digest.hexdigest()}


def _is_same(path: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    whole = before.get(_WHOLE)
    if _WHOLE in now or before.get("bytes") != now["bytes"]:
        return before == now
    if all(before.get(key) == value for key, value in now.items()):
        return True
    return whole is not None and whole == _of_file(Path(path), _digest)


def _digest(file: BufferedReader) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_unless(stop: threading.Event, file: BufferedReader) -> str | None:
    """The digest of a file; None if `stop` is set before its end."""
    digest = hashlib.sha256()
    while piece := file.read(PIECE_BYTES):
        if stop.is_set():
            return None
        digest.update(piece)
    return digest.hexdigest()
