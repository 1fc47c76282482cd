"""The full state of a run on disk: tensors as safetensors, everything else as JSON beside them; never pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runner.engine.state import State, Withheld
from runner.errors import Problem, RunError
from runner.plan.plan import Plan
from runner.record.config_fields import config_fields, difference
from runner.record.directory import write_atomically

FORMAT = 3
CHECKPOINTS_FOLDER = "checkpoints"


def save_checkpoint(plan: Plan, state: State, directory: Path, tag: str | None = None) -> Path:
    """Write the state of a run below its directory, and give the path of the JSON.

    A tagged checkpoint replaces the last one of its tag; of those without, the newest two are kept. Both files are
    written whole or not at all, the JSON last: it names the tensors' file, and holds the digests of that and of itself.
    """
    from safetensors.torch import save

    folder = directory / CHECKPOINTS_FOLDER
    tensors: dict[str, Tensor] = {}
    contents = _encode(_contents(plan, state), tensors)
    data = save({key: value.contiguous() for key, value in tensors.items()})
    name = f"{state.row:08}" if tag is None else f"{tag}-{state.row:08}"
    told = {
        "format": FORMAT,
        "torch": torch.__version__,
        "config": config_fields(plan.config.document),
        "row": state.row,
        "tensors": f"{name}.safetensors",
        "sha256": hashlib.sha256(data).hexdigest(),
        "state": contents,
    }
    told["digest"] = _digest(told)
    path = folder / f"{name if tag is None else tag}.json"
    try:
        folder.mkdir(exist_ok=True)
        write_atomically(folder / f"{name}.safetensors", data)
        write_atomically(path, json.dumps(told).encode())
        _tidy(folder)
    except OSError as error:
        message = f"cannot write a checkpoint to {folder}: {error.strerror or error}"
        raise RunError(Problem(message, f"free space, and `steprun resume {directory}` goes on")) from error
    return path


def _tidy(folder: Path) -> None:
    """Remove all but the newest two untagged checkpoints, and tensors that no JSON names."""
    untagged = sorted(path for path in folder.glob("*.json") if path.stem.isdigit())
    for path in untagged[:-2]:
        path.unlink()
    named = {read_checkpoint(path)["tensors"] for path in folder.glob("*.json")}
    for path in folder.glob("*.safetensors"):
        if path.name not in named:
            path.unlink()


def load_checkpoint(plan: Plan, state: State, path: Path) -> None:
    """Bring a freshly made state to where a checkpoint was written.

    Raises:
        RunError: the checkpoint is damaged, of another format, or of another config; the text says which.
    """
    told = read_checkpoint(path)
    if told["torch"] != torch.__version__:
        message = f"the checkpoint {path.name} was written under torch {told['torch']}, and this is {torch.__version__}"
        raise RunError(Problem(message, "the bits that follow may differ: resume under that version"))
    differing = difference(told["config"], config_fields(plan.config.document))
    if differing is not None:
        hint = "put that back to go on, or run the changed config as a run of its own"
        raise RunError(Problem(f"the checkpoint {path.name} is of another config: {differing}", hint))
    tensors = _tensors(path, told["tensors"], told["sha256"])
    _restore(state, _decode(told["state"], tensors), plan.device)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What the JSON of a checkpoint tells.

    Raises:
        RunError: it cannot be read, is damaged, or is of another format.
    """
    try:
        told = json.loads(path.read_bytes())
    except OSError as error:
        raise _damaged(f"the checkpoint {path.name} cannot be read: {error.strerror}", path) from error
    except (ValueError, RecursionError) as error:
        raise _damaged(f"the checkpoint {path.name} is truncated or damaged: it is not JSON", path) from error
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        found = told.get("format") if isinstance(told, dict) else None
        message = f"the checkpoint {path.name} has format {found!r}, and this version reads {FORMAT}"
        raise RunError(Problem(message, "resume with the version that wrote it"))
    if told.pop("digest", None) != _digest(told):
        raise _damaged(f"the checkpoint {path.name} is damaged: its digest is another", path)
    return told


def _digest(told: Mapping[str, Any]) -> str:
    """Of what a JSON tells, as it is written."""
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _damaged(message: str, path: Path) -> RunError:
    where = f"{CHECKPOINTS_FOLDER}/{path.name}"
    return RunError(Problem(message, f"remove {where} to go on from an earlier checkpoint, else from the start"))


def latest_checkpoint(directory: Path, rows: int) -> Path | None:
    """The newest checkpoint of a run that needs no more than its first `rows` rows; None where there is none."""
    found = [(read_checkpoint(path)["row"], path) for path in sorted((directory / CHECKPOINTS_FOLDER).glob("*.json"))]
    usable = [(row, path) for row, path in found if row <= rows]
    return max(usable)[1] if usable else None


def _contents(plan: Plan, state: State) -> dict[str, Any]:
    return {
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
            name: {"epoch": batches.epoch, "position": batches.position, "drawn": batches.drawn}
            for name, batches in state.batches.items()
        },
    }


def _restore(state: State, told: Mapping[str, Any], device: str) -> None:
    with torch.no_grad():
        for name, parameter in state.parameters.items():
            parameter.copy_(told["weights"][name])
            gradient = told["gradients"][name]
            parameter.grad = None if gradient is None else gradient.to(parameter.device)
    for name, stepper in state.steppers.items():
        optimizer = told["optimizers"][name]
        stepper.load_state(optimizer["state"], optimizer["steps"])
    state.values.update((name, _moved(value, device)) for name, value in told["values"].items())
    state.iterations[:] = told["iterations"]
    state.position, state.row = told["position"], told["row"]
    state.evaluations, state.observations = told["evaluations"], told["observations"]
    state.withheld.update((loop, (iteration, _rows(rows, device))) for loop, iteration, rows in told["withheld"])
    state.last[:] = _rows(told["last"], device)
    for name, batches in state.batches.items():
        batches.restore(**told["batches"][name])


def _rows(told: Sequence[Sequence[Any]], device: str) -> list[Withheld]:
    return [(position, tuple(_moved(value, device) for value in values)) for position, values in told]


def _moved(value: Any, device: str) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value


def _encode(value: Any, tensors: dict[str, Tensor]) -> Any:
    """A nested value as JSON, its tensors set aside and named."""
    if isinstance(value, Tensor):
        key = f"t{len(tensors)}"
        kept = value.detach().cpu()
        tensors[key] = torch.view_as_real(kept).clone() if kept.is_complex() else kept.clone()
        return {"tensor": key, "complex": kept.is_complex()}
    if isinstance(value, Mapping):
        return {"mapping": [[key, _encode(item, tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return {"list": [_encode(item, tensors) for item in value]}
    return value


def _decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        tensor = tensors[value["tensor"]]
        return torch.view_as_complex(tensor) if value["complex"] else tensor
    if "mapping" in value:
        return {key: _decode(item, tensors) for key, item in value["mapping"]}
    return [_decode(item, tensors) for item in value["list"]]


def _tensors(path: Path, name: str, digest: str) -> dict[str, Tensor]:
    """What the tensors' file beside a JSON holds."""
    from safetensors.torch import load

    try:
        data = (path.parent / name).read_bytes()
    except OSError as error:
        raise _damaged(f"the checkpoint's tensors {name} cannot be read: {error.strerror}", path) from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise _damaged(f"the checkpoint's tensors {name} are damaged: their digest is another", path)
    return load(data)
