"""The state of a run after one of its rows, as a file beside a snapshot: tensors, and JSON among them; never pickle."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from runner.engine import State
from runner.language.dtypes import dtype_name
from runner.plan import Plan
from runner.plan.program.instructions import Action
from runner.record.checkpoints.state import Forged, check_state
from runner.record.checkpoints.store import decode, encode, restore_state, state_contents
from runner.record.json_fields import parse_json
from runner.safe_files import MIB

FORMAT = 1
LARGEST_STATE = 256 * MIB
"""Bytes of a file that is written, and of one that is read."""

_JSON = "state"


class StateError(ValueError):
    """What was read is not the state of a run."""


def encoded(plan: Plan, state: State) -> bytes:
    """The content of the file of a state.

    Rows that the log holds back are left out: every row is logged after a restart.
    """
    tensors: dict[str, Tensor] = {}
    contents = {**state_contents(plan, state), "withheld": [], "last": []}
    told = {"format": FORMAT, "fits": fits(plan), "state": encode(contents, tensors)}
    stored = {name: tensor.contiguous() for name, tensor in tensors.items()}
    stored[_JSON] = torch.frombuffer(bytearray(json.dumps(told).encode()), dtype=torch.uint8)
    return save(stored)


def check_content(content: bytes) -> None:
    """Check that a file holds a state, whatever the run.

    Raises:
        StateError: it does not; the text says why.
    """
    _read(content)


def misfits(plan: Plan, content: bytes) -> list[str]:
    """What of a plan is not as it was when a state was stored: ["the shape of `w`"]; nothing where the state fits."""
    then, now = _read(content)["fits"], fits(plan)
    return [name for name in {**then, **now} if then.get(name) != now.get(name)]


def restore(plan: Plan, state: State, content: bytes) -> None:
    """Bring a freshly made state of a plan to a stored one that fits.

    Raises:
        StateError: it is not one of a run of the plan; the text says why.
    """
    told = _read(content)["state"]
    try:
        check_state(plan, state, told)
    except Forged as error:
        raise StateError(str(error)) from error
    restore_state(state, told, plan.device)


def fits(plan: Plan) -> dict[str, str]:
    """What a plan must have in common with another one so that a state of either is one of the other."""
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
    """The JSON of a file, its state with tensors of its own."""
    try:
        tensors = load(content)
        told = parse_json(tensors.pop(_JSON).numpy().tobytes())
        if told["format"] != FORMAT:
            raise StateError(f"it has format {told['format']}, and this version reads {FORMAT}")
        if not isinstance(told["fits"], dict):
            raise StateError("it does not say what it fits")
        return {"fits": told["fits"], "state": decode(told["state"], tensors)}
    except StateError:
        raise
    except (SafetensorError, Forged) as error:
        raise StateError(str(error)) from error
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise StateError("it is not the state of a run") from error
