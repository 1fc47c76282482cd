"""The states of the points that wait for a rung of halving to be decided: two files for each chunk of points."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from runner.config.files.safe_files import LARGEST_JSON, Folder, parse_json
from runner.errors import Problem, RunError
from runner.plan.data.sandbox import FileFault
from runner.record.checkpoints.tensor_file import Digested, pieces_of, read_tensors
from runner.record.directory import write_atomically

STATES_FOLDER = "states"

MOST_TEXT = 2 << 20
"""The most bytes that the JSON and the header of one file take, if it has several states."""

MOST_BYTES = 32 << 20
"""The most bytes of the tensors of one file, if it has several states."""

MOST_KEPT = 128 << 20
"""The most bytes that files which were read take in memory, so that further points of them need not read them again."""

State = tuple[Any, Mapping[str, Tensor]]
"""The state of a point as JSON, and its tensors."""

States = Mapping[str, State]
"""Identity of a point → its state."""

_KEYS = {"sha256", "states", "digest"}
_ENTRY_BYTES = 100  # of a tensor in a header, besides its name
_TENSOR_BYTES = 1 << 10  # of a tensor in memory, besides its elements
_PARSED = 10  # bytes in memory of one byte of JSON


class StateFiles:
    """Collects the states of one part, in as many files as are small enough to be read."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._files: dict[str, dict[str, State]] = {}
        self._text = self._bytes = 0  # of the last file

    def add(self, identity: str, state: State) -> str:
        """Add the state of a point, and return the name of its files."""
        contents, tensors = state
        text = len(json.dumps(contents)) + sum(len(f"{identity}/{name}") + _ENTRY_BYTES for name in tensors)
        size = sum(tensor.nbytes for tensor in tensors.values())
        if not self._files or self._text + text > MOST_TEXT or self._bytes + size > MOST_BYTES:
            count = len(self._files)
            self._files[f"{self._name}-{count}" if count else self._name] = {}
            self._text = self._bytes = 0
        self._text += text
        self._bytes += size
        name = next(reversed(self._files))
        self._files[name][identity] = state
        return name

    def save(self, directory: Path) -> None:
        """Write the files."""
        for name, states in self._files.items():
            save_states(directory, name, states)


def save_states(directory: Path, name: str, states: States) -> None:
    """Write the states of some points to the files of this name.

    The tensors come first: a JSON file is there only with them. It has the digests of both.
    """
    folder = directory / STATES_FOLDER
    folder.mkdir(exist_ok=True)
    tensors = {f"{key}/{tensor}": value for key, (_, each) in states.items() for tensor, value in each.items()}
    content = Digested(pieces_of(tensors))
    write_atomically(folder / f"{name}.safetensors", content, through=directory)
    described = {"sha256": content.digest, "states": {key: contents for key, (contents, _) in states.items()}}
    described["digest"] = _digest(described)
    write_atomically(folder / f"{name}.json", json.dumps(described).encode(), through=directory)


def load_state(directory: Path, name: str, identity: str) -> tuple[Any, Mapping[str, Tensor]]:
    """The state of one point.

    Raises:
        RunError: the files are missing or damaged.
    """
    return load_states(directory, name, [identity])[identity]


def load_states(directory: Path, name: str, identities: Sequence[str]) -> States:
    """The states of some points of one file; their tensors are the caller's own.

    Raises:
        RunError: the files are missing or damaged.
    """
    file = _FILES.open(directory, name)
    missing = next((identity for identity in identities if identity not in file.contents), None)
    if missing is not None:
        raise _damaged(directory, f"{name}.json", f"it has no state of point {missing}")
    return {identity: (file.contents[identity], file.copies(identity)) for identity in identities}


def has_states(directory: Path, name: str) -> bool:
    """Whether both files of some states are there.

    Raises:
        RunError: one is damaged.
    """
    folder = directory / STATES_FOLDER
    if not all((folder / f"{name}.{kind}").exists() for kind in _KINDS):
        return False
    _read(directory, name)
    return True


@dataclass(frozen=True, slots=True)
class _File:
    """The content of both files of a name."""

    stamp: object  # other if a file is replaced
    contents: Mapping[str, Any]  # by identity
    tensors: Mapping[str, Mapping[str, Tensor]]  # by identity, and place in the state
    size: int  # bytes in memory, about

    def copies(self, identity: str) -> dict[str, Tensor]:
        """The tensors of a point, which can be written."""
        return {place: tensor.clone() for place, tensor in self.tensors.get(identity, {}).items()}


@dataclass(frozen=True, slots=True)
class _Files:
    """The files that this process read last, as many as `MOST_KEPT` allows."""

    kept: dict[tuple[Path, str], _File] = field(default_factory=dict)  # the one that was used last comes last

    def open(self, directory: Path, name: str) -> _File:
        """The content of the files of a name as they are on disk."""
        key = directory, name
        file = self.kept.pop(key, None)
        if file is None or file.stamp != _stamp(directory, name):
            file = _read(directory, name)
        self.kept[key] = file
        while self.kept and sum(each.size for each in self.kept.values()) > MOST_KEPT:
            del self.kept[next(iter(self.kept))]
        return file


_FILES = _Files()
_KINDS = "json", "safetensors"


def _stamp(directory: Path, name: str) -> object:
    """Equal for files that nobody has replaced or written; None without them."""
    try:
        found = [(directory / STATES_FOLDER / f"{name}.{kind}").lstat() for kind in _KINDS]
    except OSError:
        return None
    return [(each.st_dev, each.st_ino, each.st_size, each.st_mtime_ns) for each in found]


def _read(directory: Path, name: str) -> _File:
    """The content of the two files, after their digests were compared, if they have any."""
    stamp = _stamp(directory, name)
    file_name = f"{name}.json"
    try:
        with Folder(directory) as sweep, sweep.folder(STATES_FOLDER) as folder:
            text = folder.read(file_name, LARGEST_JSON)
            written = parse_json(text)
            contents = _checked(written)
            file_name = f"{name}.safetensors"
            with folder.open(file_name) as file:
                tensors, found = read_tensors(file, name)
    except FileFault as fault:
        raise _damaged(directory, file_name, fault.message) from fault
    except (OSError, ValueError, RuntimeError) as error:
        raise _damaged(directory, file_name, str(getattr(error, "strerror", None) or error)) from error
    if contents is not written and found != written["sha256"]:
        raise _damaged(directory, file_name, "its digest does not match")
    by_point: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        identity, _, place = key.partition("/")
        by_point.setdefault(identity, {})[place] = tensor
    size = _PARSED * len(text) + sum(tensor.nbytes + _TENSOR_BYTES for tensor in tensors.values())
    return _File(stamp, contents, by_point, size)


def _checked(written: Any) -> Mapping[str, Any]:
    """The states in the content of a JSON file: the content itself, if it was written before there were digests.

    Raises:
        ValueError: it has no states, or its digest does not match.
    """
    if isinstance(written, dict) and written and not _KEYS & written.keys():
        return written
    if not isinstance(written, dict) or not isinstance(written.get("states"), dict):
        raise ValueError("it has no states")
    if _digest({key: value for key, value in written.items() if key != "digest"}) != written.get("digest"):
        raise ValueError("its digest does not match")
    states: Mapping[str, Any] = written["states"]
    return states


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _damaged(directory: Path, name: str, reason: str) -> RunError:
    message = f"{directory / STATES_FOLDER / name} is damaged: {' '.join(reason.split())}"
    return RunError(Problem(message, "remove it, then resume the sweep"))
