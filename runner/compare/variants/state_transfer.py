"""Copies the state of one run into another run of the same program, with its dtypes and on its device."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from runner.engine.state import State
from runner.optim import AnyStepper

OF_EVERY_DTYPE = "step"
"""The entry of optimizer state whose dtype does not depend on that of the parameter."""


def transfer(
    source: State, target: State, optimizers: Collection[str], dtypes: Mapping[torch.dtype, torch.dtype]
) -> None:
    """Copy the state of `source` into `target`; they share no tensors afterwards.

    Weights, gradients and optimizer state take the dtypes of `target`. Its data sources move to the positions of the
    sources of `source`.

    Args:
        source, target: states of plans with the same parameters, sources and program.
        optimizers: the optimizers whose state is copied; the others keep their own.
        dtypes: the dtype that replaces each dtype of named values.
    """
    with torch.no_grad():
        for name, parameter in target.parameters.items():
            given = source.parameters[name]
            parameter.copy_(given)
            parameter.grad = None if given.grad is None else _as(given.grad, parameter.device, parameter.dtype)
    for name in optimizers:
        _transfer_optimizer(source.steppers[name], target.steppers[name], target.parameters)
    device = next(iter(target.parameters.values())).device
    target.values.clear()
    for name, value in source.values.items():
        known = isinstance(value, Tensor)
        target.values[name] = _as(value, device, dtypes.get(value.dtype, value.dtype)) if known else value
    target.iterations[:] = source.iterations
    target.position, target.row = source.position, source.row
    target.evaluations, target.observations = source.evaluations, source.observations
    if source.loss_scale is not None and target.loss_scale is not None:
        target.loss_scale.scale.copy_(source.loss_scale.scale)
        target.loss_scale.growth.copy_(source.loss_scale.growth)
    for position, tracker in target.trackers.items():  # steps hold them, so they stay the same objects
        given_tracker = source.trackers[position]
        tracker.best, tracker.worse = given_tracker.best, given_tracker.worse
        tracker.cooldown, tracker.fresh = given_tracker.cooldown, given_tracker.fresh
    for name, batches in target.batches.items():
        given_place = source.batches[name].place
        if batches.place != given_place:
            batches.restore(*given_place)


def _transfer_optimizer(source: AnyStepper, target: AnyStepper, parameters: Mapping[str, Parameter]) -> None:
    held = [name for name in parameters if target.holds(name)]
    state = {
        name: {key: _entry(key, value, parameters[name], target.state(name).get(key)) for key, value in entries.items()}
        for name, entries in ((name, source.state(name)) for name in held)
    }
    target.load_state(state, source.steps)


def _entry(key: str, value: Any, parameter: Parameter, existing: Any) -> Any:
    """One entry of optimizer state in the dtype that the target has for it, or in that of its parameter."""
    if isinstance(value, (list, tuple)):
        return type(value)(_entry(key, item, parameter, None) for item in value)
    if not isinstance(value, Tensor):
        return value
    if key == OF_EVERY_DTYPE:
        return value.clone()
    if isinstance(existing, Tensor):
        return _as(value, existing.device, existing.dtype)
    return _as(value, parameter.device, parameter.dtype if value.dtype.is_floating_point else value.dtype)


def _as(value: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    return value.detach().to(device, dtype, copy=True)
