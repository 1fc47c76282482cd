"""The states of the points that wait for a rung of halving to be decided: two files for each chunk of points."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from runner.config.files.safe_files import LARGEST_JSON, Folder, parse_json
from runner.errors import Problem, RunError
from runner.plan.data.sandbox import FileFault
from runner.record.checkpoints.tensor_file import Digested, pieces_of, read_tensors
from runner.record.directory import write_atomically

STATES_FOLDER = "states"

States = Mapping[str, tuple[Any, Mapping[str, Tensor]]]
"""Identity of a point → its state as JSON, and its tensors."""

_KEYS = {"sha256", "states", "digest"}


def save_states(directory: Path, name: str, states: States) -> str:
    """Write the states of some points, and return the name of the files.

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
    return name


def load_state(directory: Path, name: str, identity: str) -> tuple[Any, Mapping[str, Tensor]]:
    """The state of one point.

    Raises:
        RunError: the files are missing or damaged.
    """
    return load_states(directory, name, [identity])[identity]


def load_states(directory: Path, name: str, identities: Sequence[str]) -> States:
    """The states of some points of one file.

    Raises:
        RunError: the files are missing or damaged.
    """
    contents, tensors = _read(directory, name)
    missing = next((identity for identity in identities if identity not in contents), None)
    if missing is not None:
        raise _damaged(directory, f"{name}.json", f"it has no state of point {missing}")
    found: dict[str, dict[str, Tensor]] = {identity: {} for identity in identities}
    for key, tensor in tensors.items():
        identity, _, place = key.partition("/")
        if identity in found:
            found[identity][place] = tensor
    return {identity: (contents[identity], found[identity]) for identity in identities}


def has_states(directory: Path, name: str) -> bool:
    """Whether both files of some states are there.

    Raises:
        RunError: one is damaged.
    """
    folder = directory / STATES_FOLDER
    if not all((folder / f"{name}.{kind}").exists() for kind in ("json", "safetensors")):
        return False
    _read(directory, name)
    return True


def _read(directory: Path, name: str) -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
    """The content of the two files, after their digests were compared, if they have any."""
    file_name = f"{name}.json"
    try:
        with Folder(directory) as sweep, sweep.folder(STATES_FOLDER) as folder:
            written = parse_json(folder.read(file_name, LARGEST_JSON))
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
    return contents, tensors


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
