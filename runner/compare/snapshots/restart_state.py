"""The state of a run after one of its rows, as a file next to a snapshot: tensors and JSON, never pickle."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from runner.config.files.safe_files import MIB, parse_json
from runner.engine import State
from runner.language.dtypes import dtype_name
from runner.plan import Plan
from runner.plan.program.instructions import Action
from runner.record.checkpoints.state import Forged, check_state
from runner.record.checkpoints.store import decode, encode, restore_state, state_contents

FORMAT = 1
LARGEST_STATE = 256 * MIB
"""The limit in bytes for files that are written and for files that are read."""

_JSON = "state"


class StateError(ValueError):
    """The file does not contain the state of a run."""


def encoded(plan: Plan, state: State) -> bytes:
    """A state as the content of its file.

    Rows that the log withholds are left out, because every row is logged after a restart.
    """
    tensors: dict[str, Tensor] = {}
    contents = {**state_contents(plan, state), "withheld": [], "last": []}
    header = {"format": FORMAT, "fits": fits(plan), "state": encode(contents, partial(_numbered, tensors))}
    stored = dict(tensors)
    stored[_JSON] = torch.frombuffer(bytearray(json.dumps(header).encode()), dtype=torch.uint8)
    return save(stored)


def _numbered(tensors: dict[str, Tensor], path: object, tensor: Tensor) -> Mapping[str, Any]:
    """Store a tensor under a number, a complex one as pairs of real numbers."""
    key = f"t{len(tensors)}"
    kept = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    tensors[key] = kept.cpu().clone(memory_format=torch.contiguous_format)  # safetensors refuses shared memory
    return {"tensor": key, "complex": tensor.is_complex()}


def check_content(content: bytes) -> None:
    """Check that a file contains a state, of any run.

    Raises:
        StateError: it does not; the text says why.
    """
    _read(content)


def misfits(plan: Plan, content: bytes) -> list[str]:
    """Names what differs between a plan and that of a stored state, as "the shape of `w`"; empty if the state fits."""
    then, now = _read(content)["fits"], fits(plan)
    return [name for name in {**then, **now} if then.get(name) != now.get(name)]


def restore(plan: Plan, state: State, content: bytes) -> None:
    """Set a new state of a plan to a stored one that fits.

    Raises:
        StateError: it is not a state of this plan; the text says why.
    """
    contents = _read(content)["state"]
    try:
        check_state(plan, state, contents)
    except Forged as error:
        raise StateError(str(error)) from error
    restore_state(state, contents, plan.device)


def fits(plan: Plan) -> dict[str, str]:
    """The properties, by name, in which two plans must agree for a state of one to fit the other."""
    return dict(_fits(plan))


def _fits(plan: Plan) -> Iterator[tuple[str, str]]:
    for name in plan.parameters:
        tensor = plan.tensors[name]
        yield f"the shape of `{name}`", f"{dtype_name(tensor.dtype)} {list(tensor.shape)}"
    for name, optimizer in plan.optimizers.items():
        kept = {
            parameter: [f"{entry.name} {dtype_name(entry.dtype)} {list(entry.shape)}" for entry in entries]
            for parameter, entries in optimizer.state.items()
        }
        yield f"the state of `{name}`", f"{optimizer.kind} {optimizer.parameters} {kept}"
    for name, source in plan.sources.items():
        yield f"the batches of `{name}`", f"{source.samples} in {source.batches}, shuffled: {source.shuffle}"
    steps = [f"{item.kind} {item.loops}" if isinstance(item, Action) else type(item).__name__ for item in plan.program]
    yield "the steps", "; ".join(steps)


def _read(content: bytes) -> Mapping[str, Any]:
    """The JSON of a file, with the tensors in its state."""
    try:
        tensors = load(content)
        header = parse_json(tensors.pop(_JSON).numpy().tobytes())
        if header["format"] != FORMAT:
            raise StateError(f"it has format {header['format']}, and this version reads {FORMAT}")
        if not isinstance(header["fits"], dict):
            raise StateError("it does not say what it fits")
        return {"fits": header["fits"], "state": decode(header["state"], tensors)}
    except StateError:
        raise
    except (SafetensorError, Forged) as error:
        raise StateError(str(error)) from error
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise StateError("it is not the state of a run") from error
