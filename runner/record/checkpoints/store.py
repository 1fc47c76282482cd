"""Saves and loads the full state of a run: tensors as safetensors, everything else as JSON; never pickle."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runner.config.files.safe_files import LARGEST_JSON, Folder, parse_json
from runner.engine.state import State, Withheld
from runner.errors import Problem, RunError
from runner.plan.checks.engines.versions import JAX, engine_versions, other_versions
from runner.plan.data.sandbox import FileFault
from runner.plan.plan import Plan
from runner.plan.tensors.run_files import CHECKPOINTS_FOLDER
from runner.record.checkpoints.config_fields import config_fields, difference
from runner.record.checkpoints.state import Forged, check_complex, check_state, largest_checkpoint
from runner.record.checkpoints.tensor_file import Digested, pieces_of, read_tensors
from runner.record.directory import write_atomically
from runner.record.json_fields import COUNT, TEXT, fault_in, mapping_of
from runner.text import steprun_command

FORMAT = 3
FIELDS = {
    "torch": TEXT,
    "config": mapping_of(TEXT, "a mapping of strings"),
    "row": COUNT,
    "tensors": TEXT,
    "sha256": TEXT,
}
VERSIONS = dict.fromkeys(JAX, TEXT)
"""Fields that a checkpoint of another engine than `xla`, or of an earlier version of steprun, lacks."""

UNTAGGED = re.compile(r"\d{8,}\.json")
_TENSORS = re.compile(r"(?:[A-Za-z0-9_-]+-)?\d{8,}\.safetensors")
"""The names of tensor files; no other file in the folder is removed."""


def save_checkpoint(plan: Plan, state: State, directory: Path, tag: str | None = None) -> Path:
    """Write the state of a run below its directory, and return the path of the JSON file.

    A tagged checkpoint replaces the previous one with its tag; of untagged ones, the newest two are kept. Both files
    are written atomically. The JSON file comes last: it names the tensor file, and has the digests of both files.
    """
    return write_checkpoint(plan, state_contents(plan, state), directory, tag)


def write_checkpoint(plan: Plan, state: Mapping[str, Any], directory: Path, tag: str | None) -> Path:
    """Write what `state_contents` returned, as `save_checkpoint` does."""
    folder, row = directory / CHECKPOINTS_FOLDER, state["row"]
    tensors: dict[str, Tensor] = {}
    contents = encode(state, partial(_named, tensors))
    name = f"{row:08}" if tag is None else f"{tag}-{row:08}"
    path = folder / f"{name if tag is None else tag}.json"
    data = Digested(pieces_of(tensors))
    try:
        write_atomically(folder / f"{name}.safetensors", data, through=directory)
        write_atomically(path, _description(plan, row, name, data.digest, contents), through=directory)
        _prune(directory)
    except OSError as error:
        message = f"cannot write a checkpoint to {folder}: {error.strerror or error}"
        hint = f"free space, and `{steprun_command('resume', directory)}` goes on"
        raise RunError(Problem(message, hint)) from error
    return path


def _description(plan: Plan, row: int, name: str, digest: str, contents: Any) -> bytes:
    """The JSON of a checkpoint."""
    content = {
        "format": FORMAT,
        "torch": str(torch.__version__),
        **engine_versions(plan.config.engine),
        "config": config_fields(plan.config.document),
        "row": row,
        "tensors": f"{name}.safetensors",
        "sha256": digest,
        "state": contents,
    }
    content["digest"] = _digest(content)
    return json.dumps(content).encode()


def _prune(directory: Path) -> None:
    """Remove all untagged checkpoints but the newest two, and tensor files that no JSON file names.

    The tensor file of an unreadable JSON file is kept.
    """
    with Folder(directory) as run, run.folder(CHECKPOINTS_FOLDER) as folder:
        tensors = {name: _tensors_named(folder, name) for name in folder.names(".json")}
        untagged = [name for name in tensors if UNTAGGED.fullmatch(name) and tensors[name] == _tensors_file(name)]
        for name in untagged[:-2]:
            folder.remove(name)
            del tensors[name]
        named = set(tensors.values())
        for name in folder.names(".safetensors"):
            if _TENSORS.fullmatch(name) and name not in named:
                folder.remove(name)


def _tensors_named(folder: Folder, name: str) -> str:
    try:
        return str(read_checkpoint(folder.path / name)["tensors"])
    except RunError:
        return _tensors_file(name)


def _tensors_file(name: str) -> str:
    """The name of the tensor file of an untagged checkpoint."""
    return name.removesuffix(".json") + ".safetensors"


def load_checkpoint(plan: Plan, state: State, path: Path, grown: str | None = None) -> None:
    """Restore a new state from a checkpoint.

    Args:
        grown: a field of the config that may differ from that of the checkpoint.
    Raises:
        RunError: the checkpoint is damaged, has another format, or belongs to another config; the message says which.
    """
    content = _of_this_run(plan, path, grown)
    limit = largest_checkpoint(plan, state)
    _release_weights(state)
    contents = _contents(plan, state, path, content, limit)
    for name, parameter in state.parameters.items():
        parameter.data = contents["weights"][name].to(plan.device)
    restore_state(state, contents, plan.device)


def read_state(plan: Plan, state: State, path: Path, grown: str) -> dict[str, Any]:
    """The contents of a checkpoint, as `state_contents` returned them. Takes and raises as `load_checkpoint`.

    Args:
        state: a state of the run, for its shapes; it stays as it is.
    """
    return _contents(plan, state, path, _of_this_run(plan, path, grown), largest_checkpoint(plan, state))


def _of_this_run(plan: Plan, path: Path, grown: str | None) -> dict[str, Any]:
    """The content of a checkpoint's JSON file, if it belongs to the run."""
    content = read_checkpoint(path)
    check_versions(f"the checkpoint {path.name} was written", content, plan)
    then, now = content["config"], config_fields(plan.config.document)
    if grown is not None and grown in then:
        then = then | {grown: now[grown]}
    differing = difference(then, now)
    if differing is not None:
        hint = "undo the change to resume, or run the changed config as a new run"
        raise RunError(Problem(f"the checkpoint {path.name} belongs to another config: {differing}", hint))
    return content


def check_versions(what: str, then: Mapping[str, str], plan: Plan) -> None:
    """Raise RunError if something was recorded with another version of what computes the numbers of a plan.

    Args:
        what: the beginning of the message: `the checkpoint 00000060.json was written`.
        then: the recorded versions; one that is missing is not known.
    """
    now = {"torch": str(torch.__version__), **engine_versions(plan.config.engine)}
    differing = other_versions(then, now)
    if differing is not None:
        message = f"{what} with {differing[0]}, and this is {differing[1]}"
        raise RunError(Problem(message, f"later bits may differ: resume with {differing[0]}"))


def _contents(plan: Plan, state: State, path: Path, content: Mapping[str, Any], limit: int) -> dict[str, Any]:
    """The state in a checkpoint, checked against the plan."""
    tensors = _tensors(path, content["tensors"], content["sha256"], limit)
    try:
        contents: dict[str, Any] = decode(content["state"], tensors)
        check_state(plan, state, contents)
    except Forged as error:
        raise _damaged(f"the checkpoint {path.name} does not belong to this run: {error}", path) from error
    if contents["row"] != content["row"]:
        raise _damaged(f"the checkpoint {path.name} does not belong to this run: it has two different row counts", path)
    return contents


def _release_weights(state: State) -> None:
    """Give back the memory of the initial weights, which those of a checkpoint replace; shapes and dtypes stay."""
    for parameter in state.parameters.values():
        parameter.data = torch.empty((), dtype=parameter.dtype, device=parameter.device).expand(parameter.shape)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint's JSON file.

    Raises:
        RunError: the file cannot be read, is damaged, or has another format.
    """
    try:
        content = parse_json(_read(path.parent.parent, path.name, LARGEST_JSON))
    except OSError as error:
        raise _damaged(f"the checkpoint {path.name} cannot be read: {error.strerror}", path) from error
    except ValueError as error:
        raise _damaged(f"the checkpoint {path.name} is truncated or damaged: it is not JSON", path) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else None
        message = f"the checkpoint {path.name} has format {found!r}, and this version reads {FORMAT}"
        raise RunError(Problem(message, "resume with the version that wrote it"))
    if content.pop("digest", None) != _digest(content):
        raise _damaged(f"the checkpoint {path.name} is damaged: its digest does not match", path)
    fault = fault_in(content, FIELDS) or fault_in(content, VERSIONS, required=False)
    if fault is not None:
        raise _damaged(f"the checkpoint {path.name} is damaged: {fault}", path)
    return content


def position_of(content: Mapping[str, Any]) -> int:
    """The position in the program of a checkpoint that `read_checkpoint` returned; 0 if it has none."""
    match content.get("state"):
        case {"mapping": [*pairs]}:
            return next(
                (value for key, value in filter(_is_pair, pairs) if key == "position" and type(value) is int), 0
            )
    return 0


def _read(directory: Path, name: str, limit: int) -> bytes:
    """The content of a file in the run's checkpoint folder, which must be a regular file."""
    with Folder(directory) as run, run.folder(CHECKPOINTS_FOLDER) as folder:
        return folder.read(name, limit)


def _digest(content: Mapping[str, Any]) -> str:
    """The digest of the content of a JSON file, as it is written."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _damaged(message: str, path: Path) -> RunError:
    where = f"{CHECKPOINTS_FOLDER}/{path.name}"
    return RunError(Problem(message, f"remove {where} to resume from an earlier checkpoint, or from the start"))


def latest_checkpoint(directory: Path, rows: int) -> Path | None:
    """The newest checkpoint within the first `rows` rows of a run; None if there is none.

    Raises:
        RunError: the checkpoint folder or a checkpoint cannot be read.
    """
    folder = directory / CHECKPOINTS_FOLDER
    try:
        with Folder(directory) as run, run.folder(CHECKPOINTS_FOLDER) as opened:
            names = opened.names(".json")
    except FileNotFoundError:
        return None
    except OSError as error:
        message = f"checkpoints cannot be read from {folder}: {error.strerror}"
        raise RunError(Problem(message, f"remove {CHECKPOINTS_FOLDER} to resume from the start")) from error
    found = [(read_checkpoint(folder / name)["row"], folder / name) for name in names]
    usable = [(row, path) for row, path in found if row <= rows]
    return max(usable)[1] if usable else None


def state_contents(plan: Plan, state: State) -> dict[str, Any]:
    """The full state of a run as mappings, lists, numbers and tensors; the tensors are the run's own.

    `trackers` are there only if a step follows what is measured, and `loss_scale` only if there is a loss scaler.
    """
    scale = state.loss_scale
    trackers = {
        str(position): [torch.tensor(tracker.best, dtype=torch.float64), tracker.worse, tracker.cooldown, tracker.fresh]
        for position, tracker in state.trackers.items()
    }
    return {
        **({"trackers": trackers} if trackers else {}),
        **({} if scale is None else {"loss_scale": [scale.scale, scale.growth]}),
        "weights": {name: parameter.detach() for name, parameter in state.parameters.items()},
        "gradients": {name: parameter.grad for name, parameter in state.parameters.items()},
        "optimizers": {
            name: {
                "steps": stepper.steps,
                "state": {key: dict(stepper.state(key)) for key in plan.optimizers[name].parameters},
            }
            for name, stepper in state.steppers.items()
        },
        "values": {
            name: value.detach() if isinstance(value, Tensor) else value for name, value in state.values.items()
        },
        "iterations": list(state.iterations),
        "position": state.position,
        "row": state.row,
        "evaluations": state.evaluations,
        "observations": state.observations,
        "withheld": [
            [loop, iteration, rows]
            for loop, (iteration, rows) in state.withheld.items()
            if iteration == state.iterations[loop]
        ],
        "last": state.last,
        "batches": {
            name: {
                "epoch": batches.epoch,
                "position": batches.position,
                "drawn": batches.drawn,
                **({"computed": True} if batches.computed else {}),
            }
            for name, batches in state.batches.items()
        },
    }


def restore_state(state: State, content: Mapping[str, Any], device: str) -> None:
    """Restore a new state from what `state_contents` returned; optimizers use its tensors without a copy."""
    with torch.no_grad():
        for name, parameter in state.parameters.items():
            if parameter.data_ptr() != content["weights"][name].data_ptr():  # they may be there already
                parameter.copy_(content["weights"][name])
            gradient = content["gradients"][name]
            parameter.grad = None if gradient is None else gradient.to(parameter.device)
    for name, stepper in state.steppers.items():
        optimizer = content["optimizers"][name]
        stepper.load_state(optimizer["state"], optimizer["steps"])
    state.values.update((name, _on_device(value, device)) for name, value in content["values"].items())
    state.iterations[:] = content["iterations"]
    state.position, state.row = content["position"], content["row"]
    state.evaluations, state.observations = content["evaluations"], content["observations"]
    if state.loss_scale is not None:
        scale, growth = content["loss_scale"]
        state.loss_scale.scale.copy_(scale)
        state.loss_scale.growth.copy_(growth)
    for position, (best, worse, cooldown, fresh) in content.get("trackers", {}).items():
        tracker = state.trackers[int(position)]
        tracker.best, tracker.worse, tracker.cooldown, tracker.fresh = best.item(), worse, cooldown, fresh
    state.withheld.update((loop, (iteration, _rows(rows, device))) for loop, iteration, rows in content["withheld"])
    state.last[:] = _rows(content["last"], device)
    for name, batches in state.batches.items():
        batches.restore(**{"computed": False, **content["batches"][name]})


def _rows(content: Sequence[Sequence[Any]], device: str) -> list[Withheld]:
    return [(position, tuple(_on_device(value, device) for value in values)) for position, values in content]


def _on_device(value: Any, device: str) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value


Place = tuple[str | int, ...]
Store = Callable[[Place, Tensor], Mapping[str, Any]]
"""Stores the tensor at a path of the state, and returns the JSON in its place."""


def encode(value: Any, store: Store, path: Place = ()) -> Any:
    """A nested value as JSON, with each tensor replaced by what `store` returns."""
    if isinstance(value, Tensor):
        return store(path, value.detach())
    if isinstance(value, Mapping):
        return {"mapping": [[key, encode(item, store, (*path, key))] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return {"list": [encode(item, store, (*path, index)) for index, item in enumerate(value)]}
    return value


def _named(tensors: dict[str, Tensor], path: Place, tensor: Tensor) -> Mapping[str, Any]:
    """Store a weight under the name of its parameter, any other tensor under its path: `gradients.w`.

    No parameter has a dot in its name. The tensors keep the memory of the run.
    """
    name = ".".join(map(str, path[1:] if path[0] == "weights" else path))
    while name in tensors:
        name += "_"
    tensors[name] = tensor
    return {"tensor": name, "complex": False}


def decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `encode`; raises `Forged` for a value that `encode` never returns."""
    match value:
        case {"tensor": str(key), "complex": bool(is_complex)} if key in tensors:
            return check_complex(tensors[key]) if is_complex else tensors[key]
        case {"mapping": [*pairs]} if all(_is_pair(pair) for pair in pairs):
            return {key: decode(item, tensors) for key, item in pairs}
        case {"list": [*items]}:
            return [decode(item, tensors) for item in items]
        case dict() | list():
            raise Forged("it contains an invalid value")
    return value


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)


def _tensors(path: Path, name: str, digest: str, limit: int) -> dict[str, Tensor]:
    """The tensors in the tensor file of a checkpoint."""
    try:
        with (
            Folder(path.parent.parent) as run,
            run.folder(CHECKPOINTS_FOLDER) as folder,
            folder.open(name, limit) as file,
        ):
            tensors, found = _read_tensors(file, name, digest)
    except OSError as error:
        raise _damaged(f"the checkpoint's tensors {name} cannot be read: {error.strerror}", path) from error
    except FileFault as fault:
        raise _damaged(f"the checkpoint's tensors {name} are not a `.safetensors` file", path) from fault
    if found != digest:
        raise _damaged(f"the checkpoint's tensors {name} are damaged: their digest does not match", path)
    return tensors


def _read_tensors(file: BufferedReader, name: str, digest: str) -> tuple[dict[str, Tensor], str]:
    """As `read_tensors`, but a file with another digest is no fault: the caller compares the digest."""
    try:
        return read_tensors(file, name)
    except FileFault:
        file.seek(0)
        found = hashlib.file_digest(file, "sha256").hexdigest()
        if found == digest:
            raise
        return {}, found
