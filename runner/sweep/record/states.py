"""The states of the points that wait for a rung of halving to be decided: one file for each chunk of points."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from runner.config.files.safe_files import LARGEST_JSON, Folder, parse_json
from runner.errors import Problem, RunError
from runner.plan.data.sandbox import FileFault
from runner.record.checkpoints.tensor_file import pieces_of, read_tensors
from runner.record.directory import write_atomically

STATES_FOLDER = "states"

States = Mapping[str, tuple[Any, Mapping[str, Tensor]]]
"""Identity of a point → its state as JSON, and its tensors."""


def save_states(directory: Path, name: str, states: States) -> str:
    """Write the states of some points, and return the name of the files.

    The tensors come first: a JSON file is there only with them.
    """
    folder = directory / STATES_FOLDER
    folder.mkdir(exist_ok=True)
    tensors = {f"{key}/{tensor}": value for key, (_, each) in states.items() for tensor, value in each.items()}
    content = b"".join(bytes(piece) for piece in pieces_of(tensors))
    write_atomically(folder / f"{name}.safetensors", content, through=directory)
    described = json.dumps({key: contents for key, (contents, _) in states.items()}).encode()
    write_atomically(folder / f"{name}.json", described, through=directory)
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
    try:
        with Folder(directory) as sweep, sweep.folder(STATES_FOLDER) as folder:
            written = parse_json(folder.read(f"{name}.json", LARGEST_JSON))
            contents = {identity: written[identity] for identity in identities}
            with folder.open(f"{name}.safetensors") as file:
                tensors, _ = read_tensors(file, name)
    except (OSError, ValueError, KeyError, FileFault) as error:
        message = f"the state of a point in {directory / STATES_FOLDER / name} is damaged: {error}"
        raise RunError(Problem(message, f"remove {directory / STATES_FOLDER}, and resume the sweep")) from error
    found: dict[str, dict[str, Tensor]] = {identity: {} for identity in identities}
    for key, tensor in tensors.items():
        identity, _, place = key.partition("/")
        if identity in found:
            found[identity][place] = tensor
    return {identity: (contents[identity], found[identity]) for identity in identities}
