"""Writes and reads `run.json`: the config, environment, commit and end of a run. Reading does not import torch."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.config.files.run_paths import MANIFEST_FILE
from runner.config.files.safe_files import LARGEST_JSON, Folder, parse_json
from runner.errors import Problem, SteprunError, UsageError
from runner.record.directory import write_atomically
from runner.record.json_fields import (
    COUNT,
    DURATION,
    INTEGER,
    MAPPING,
    PATHS,
    TEXT,
    TEXTS,
    Kind,
    fault_in,
    list_of,
    mapping_of,
    or_null,
)
from runner.record.repository import DirtyCheck, find_repository
from runner.text import printable_line, shortened

if TYPE_CHECKING:
    import torch

    from runner.plan.rows.columns import Column

GIT_PATIENCE = 0.2
"""Maximum time in seconds to wait for git at the end of a run: whether tracked files have changed."""

_PROBLEM = Kind("a problem", lambda value: isinstance(value, dict) and isinstance(value.get("message"), str))
_FAILURE = Kind(
    "a failure with its problems",
    lambda value: isinstance(value, dict) and list_of(_PROBLEM, "").accepts(value.get("problems")),
)
FIELDS: Mapping[str, Kind] = {
    "status": TEXT,
    "command": TEXTS,
    "name": TEXT,
    "seed": INTEGER,
    "engine": TEXT,
    "engine_reason": or_null(TEXT),
    "versions": mapping_of(TEXT, "a mapping of strings"),
    "environment": MAPPING,
    "git": or_null(MAPPING),
    "process": MAPPING,
    "started": TEXT,
    "ended": or_null(TEXT),
    "seconds": or_null(DURATION),
    "compile_seconds": or_null(DURATION),
    "rows": or_null(COUNT),
    "failure": or_null(_FAILURE),
    "warnings": TEXTS,
    "columns": list_of(MAPPING, "a list of mappings"),
    "data_folders": PATHS,
    "data_files": mapping_of(MAPPING, "a mapping of mappings"),
    "data_columns": mapping_of(MAPPING, "a mapping of mappings"),
    "fitted": MAPPING,
    "weights": mapping_of(TEXT, "a mapping of strings"),
    "config_fields": mapping_of(TEXT, "a mapping of strings"),
    "continues": or_null(MAPPING),
    "resumed": or_null(list_of(MAPPING, "a list of mappings")),
}
"""The fields of a manifest; a manifest from an earlier version may lack some."""

DIGEST = "digest"
"""The field with the digest of all others; a manifest from an earlier version has none."""

STATUSES = ("running", "finished", "failed", "interrupted", "killed")


@dataclass(frozen=True, slots=True)
class RunDescription:
    """The properties of a run that are known before its first step."""

    command: Sequence[str]
    name: str
    seed: int
    device: str
    dtype: str
    engine: str
    warnings: Sequence[str] = ()
    more: Mapping[str, Any] = field(default_factory=dict)  # further top-level keys
    engine_reason: str | None = None  # why `engine: auto` is this engine


class Manifest:
    """Writes the manifest of the run of this process: once with status `running`, and again at the end of the run.

    The first manifest of a new run survives a power failure only after `sync_opening` of `runner/record/directory.py`.
    """

    def __init__(
        self,
        directory: Path,
        description: RunDescription,
        columns: Sequence[Column],
        *,
        resumed_at: int | None = None,
        copied_rows: int = 0,
    ) -> None:
        self._path = directory / MANIFEST_FILE
        self._began = time.monotonic()
        repository = find_repository(Path.cwd())
        self.content = _opening(description, columns)
        self._rows_before = resumed_at or copied_rows
        self._seconds_before = 0.0
        if resumed_at is not None:
            before = read_manifest(directory)
            resumption = {"row": resumed_at, "at": self.content["started"], "after": before["status"]}
            self.content["resumed"] = [*(before.get("resumed") or ()), resumption]
            self.content["started"] = before.get("started") or self.content["started"]
            self._seconds_before = before.get("seconds") or 0.0  # a killed process did not write its seconds
            self.content |= {key: before.get(key) for key in ("engine_reason", "seconds", "compile_seconds")}
            for warning in before.get("warnings", ()):
                self.warn(warning)
        if repository:
            self.content["git"] = {"commit": repository.commit, "dirty": None}
        self._write(synced=resumed_at is not None)
        self._dirty = DirtyCheck(repository) if repository else None

    def warn(self, message: str) -> None:
        """Add a warning, once for each text; the file is written at the end of the run."""
        if message not in self.content["warnings"]:
            self.content["warnings"].append(message)

    def note_changed_data(self, paths: Sequence[str]) -> None:
        """Write to the manifest that this resumption reads changed data files."""
        self.content["resumed"][-1]["changed_data"] = list(paths)
        self._write()

    def digest(self, path: str, sha256: str) -> None:
        """Add the digest of a large data file; it is written at the end of the run."""
        self.content["data_files"][path]["sha256"] = sha256

    def wrote_weights(self, digests: Mapping[str, str]) -> None:
        """Add the SHA-256 of the weights files, by name; they are written at the end of the run."""
        self.content["weights"] = dict(digests)

    def compiled(self, seconds: float) -> None:
        """Add the seconds of a compilation, which are part of `seconds`; the file is written at the end of the run."""
        self.content["compile_seconds"] = round((self.content["compile_seconds"] or 0.0) + seconds, 6)

    def finish(self, rows: int, error: BaseException | None = None) -> None:
        """Write how the run ended; `rows` counts the rows that this process wrote."""
        self.content["status"] = _status(error)
        self.content["failure"] = _failure(error)
        self.content["rows"] = self._rows_before + rows
        self.content["ended"] = now()
        self.content["seconds"] = round(self._seconds_before + time.monotonic() - self._began, 6)
        if self._dirty:
            self.content["git"]["dirty"] = self._dirty.result(GIT_PATIENCE)
        self._write()

    def _write(self, *, synced: bool = True) -> None:
        content = with_digest(self.content)
        write_atomically(self._path, manifest_text(content).encode(), synced=synced)


def with_digest(content: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a manifest, and last their digest."""
    return {**content, DIGEST: _digest(json.loads(_json(content)))}


def _digest(content: Mapping[str, Any]) -> str:
    """The SHA-256 of the fields as a reader parses them, whatever their order and spacing in the file."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def note_interruption(directory: Path) -> None:
    """Write to the manifest of this process's run that it was interrupted within a step, after which nothing runs.

    Raises:
        OSError: it cannot be written.
        UsageError: there is no manifest.
    """
    content = read_manifest(directory)
    if content["status"] != "running" or content["process"] != this_process():
        return
    ended, resumed = now(), content.get("resumed")
    began = resumed[-1]["at"] if resumed else content["started"]
    passed = datetime.fromisoformat(ended) - datetime.fromisoformat(began)
    content |= {
        "status": "interrupted",
        "failure": _failure(KeyboardInterrupt("interrupted inside a step")),
        "ended": ended,
        "seconds": round((content["seconds"] or 0.0) + passed.total_seconds(), 6),
    }
    write_atomically(directory / MANIFEST_FILE, manifest_text(with_digest(content)).encode())


def manifest_text(content: Mapping[str, Any]) -> str:
    """The JSON of a manifest: each key, and each entry of a list or mapping, has a line of its own."""
    lines = (f"  {_json(key)}: {_entries(value)}" for key, value in content.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _entries(value: Any) -> str:
    if not isinstance(value, Mapping | list) or not value:
        return _json(value)
    if isinstance(value, list):
        return "[\n" + ",\n".join(f"    {_json(each)}" for each in value) + "\n  ]"
    return "{\n" + ",\n".join(f"    {_json(key)}: {_json(each)}" for key, each in value.items()) + "\n  }"


_json = json.JSONEncoder(ensure_ascii=False).encode  # with `indent`, Python would write it, not C


def _opening(description: RunDescription, columns: Sequence[Column]) -> dict[str, Any]:
    import torch

    import runner
    from runner.plan.checks.engines.versions import engine_versions
    from runner.plan.rows.columns import recorded
    from runner.record.rows.storage import column_json

    return {
        "status": "running",
        "command": list(description.command),
        "name": description.name,
        "seed": description.seed,
        "engine": description.engine,
        "engine_reason": description.engine_reason,
        "versions": {
            "steprun": runner.__version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
            **engine_versions(description.engine),
        },
        "environment": fingerprint(description.device, description.dtype, description.engine),
        "git": None,
        "process": this_process(),
        "started": now(),
        "ended": None,
        "seconds": None,
        "compile_seconds": None,
        "rows": None,
        "failure": None,
        "warnings": list(description.warnings),
        "columns": [column_json(part) for column in columns for part in recorded(column)],
        **description.more,
    }


def fingerprint(device: str, dtype: str, engine: str | None = None) -> dict[str, Any]:
    """The properties of the environment that the bits of a run depend on, besides its config.

    Args:
        engine: that of the run; the versions of the libraries that it needs are part of the environment.
    """
    import torch

    from runner.plan.checks.engines.versions import engine_versions

    return {
        "torch": str(torch.__version__),
        "device": device,
        "device_name": _device_name(torch.device(device)),
        "dtype": dtype,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        **({} if engine is None else engine_versions(engine)),
    }


def _device_name(device: torch.device) -> str | None:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def _status(error: BaseException | None) -> str:
    if error is None:
        return "finished"
    return "interrupted" if isinstance(error, (KeyboardInterrupt, GeneratorExit, BrokenPipeError)) else "failed"


def _failure(error: BaseException | None) -> dict[str, Any] | None:
    if error is None:
        return None
    problems = error.problems if isinstance(error, SteprunError) else (Problem(_said(error)),)
    return {"error": type(error).__name__, "problems": [problem.to_json() for problem in problems]}


def _said(error: BaseException) -> str:
    if isinstance(error, BrokenPipeError):
        return "interrupted when its output was closed"
    if isinstance(error, (KeyboardInterrupt, GeneratorExit)):
        return str(error) or "interrupted"
    return str(error) or type(error).__name__


def this_process() -> dict[str, Any]:
    """What identifies this process."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": process_start(os.getpid())}


def now() -> str:
    """The time, ISO 8601 with the offset from UTC."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


# --- reading


PUT_BACK = "restore the original file"
_KEEP = f"{PUT_BACK}; to keep an edit, remove its field `{DIGEST}`"

LONGEST_VERSION = 40
"""The most characters that are shown of a version."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What kind of directory a manifest is kept in, and which fields it has."""

    of: str  # "run" or "sweep"
    file: str
    fields: Mapping[str, Kind]
    required: bool  # whether each field must be there
    listed: str  # what `steprun runs` lists
    absent: tuple[str, ...] = ()  # fields that older manifests lack: they become null


_RUN = Kept("run", MANIFEST_FILE, FIELDS, False, "the recorded runs")


def read_manifest(directory: Path, kept: Kept = _RUN) -> dict[str, Any]:
    """Read the manifest of a run directory; `status` becomes `killed` if it is `running` and that process has ended.

    Args:
        kept: the kind of directory and its manifest.
    Raises:
        UsageError: `run.json` does not exist, is not a manifest, or has another digest than it states.
    """
    path = directory / kept.file
    try:
        with Folder(directory) as folder:
            content = parse_json(folder.read(kept.file, LARGEST_JSON))
    except OSError as error:
        message = f"{directory} is not a {kept.of} directory: cannot read {path.name}: {error.strerror}"
        raise UsageError(Problem(message, f"`steprun runs` lists {kept.listed}")) from error
    except ValueError as error:
        raise UsageError(Problem(f"{path} is not valid JSON", PUT_BACK)) from error
    if not isinstance(content, dict) or content.get("status") not in STATUSES:
        message = f"{path} is not the manifest of a {kept.of}: it has no known status"
        raise UsageError(Problem(message, hint_about(content)))
    stated = content.pop(DIGEST, None)
    digest = None if stated is None else _digest(content)
    content = {**dict.fromkeys(kept.absent), **content}
    fault = fault_in(content, kept.fields, required=kept.required)
    if fault is not None:
        raise UsageError(Problem(f"{path} is not the manifest of a {kept.of}: {fault}", hint_about(content)))
    if digest != stated:
        raise UsageError(Problem(f"{path} is damaged or was edited: its digest does not match", _KEEP))
    if content["status"] == "running" and not is_alive(content.get("process")):
        content["status"] = "killed"
    return content


def other_version(content: object) -> str | None:
    """The version of steprun that wrote a manifest; None if it is this one, or is not known."""
    import runner

    versions = content.get("versions") if isinstance(content, dict) else None
    version = versions.get("steprun") if isinstance(versions, dict) else None
    known = isinstance(version, str) and version != runner.__version__
    return shortened(printable_line(str(version)), LONGEST_VERSION) if known else None


def hint_about(content: object) -> str:
    """What to do about a manifest that cannot be understood."""
    version = other_version(content)
    return PUT_BACK if version is None else f"steprun {version} recorded it: read it with that version"


def is_alive(process: object) -> bool:
    """Whether a recorded process still runs; True for one of another host, which cannot be checked."""
    if not isinstance(process, dict) or not isinstance(process.get("pid"), int):
        return False
    if process.get("host") != socket.gethostname():
        return True
    return _exists(process["pid"]) and process.get("started") == process_start(process["pid"])


def _exists(pid: int) -> bool:
    if sys.platform == "win32":
        return pid == os.getpid()  # on Windows, signal 0 would end the process
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def process_start(pid: int) -> str | None:
    """The boot and tick at which a process started: a later process may have its pid. None except on Linux."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    return f"{boot} {fields[19]}" if fields[0] != "Z" else None
