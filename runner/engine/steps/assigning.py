"""`assign`: writes weights, gradients and optimizer state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from runner.engine.binding import Binding, MissingValue, RefusedValue
from runner.engine.session import Session
from runner.engine.steps.step_code import Loops, Run
from runner.faults import ConfigPath, KeyPath
from runner.optim.stepper import STEP, Stepper
from runner.plan.program.instructions import Assign
from runner.plan.rows.layout import Held


def assign(session: Session, argument: Assign, loops: Loops) -> Run:
    """Computes all values, then writes them."""
    binding = session.binding
    calls = [binding.call(computation, loops) for computation in argument.computations]
    targets = [target.partition(".")[::2] for target in argument.targets]
    weights = binding.parameters([name for name, entry in targets if not entry])
    gradients = binding.parameters([name for name, entry in targets if entry == "grad"])
    writes = [_writer(binding, *target, path) for target, path in zip(targets, argument.config_paths, strict=True)]
    keep_state = binding.capture_state if any(entry not in ("", "grad") for _, entry in targets) else None
    look, look_again = session.watch.assigned(binding, argument, loops)

    def run() -> Held:
        results = [call()[0] for call in calls]
        if look is not None:
            look(results)
        for write, result in zip(writes, results, strict=True):
            write(result)
        if look_again is not None:
            look_again(results)
        binding.capture_weights(weights)
        binding.capture_gradients(gradients)
        if keep_state is not None:
            keep_state()
        return tuple(binding.latest)

    return run


def _writer(binding: Binding, name: str, entry: str, path: ConfigPath) -> Callable[[Any], None]:
    """A function that writes a weight, a gradient or an entry of optimizer state.

    Weights and gradients get new storage, because rows may have the old one. Rows have copies of optimizer state.
    """
    parameter = binding.state.parameters[name]

    def write_weight(result: Any) -> None:
        parameter.data = _filled(torch.empty_like(parameter, requires_grad=False), result)

    def write_gradient(result: Any) -> None:
        parameter.grad = _filled(torch.empty_like(parameter, requires_grad=False), result)

    if entry:
        return write_gradient if entry == "grad" else _state_writer(binding, name, entry, path)
    return write_weight


def _state_writer(binding: Binding, name: str, entry: str, path: ConfigPath) -> Callable[[Any], None]:
    stepper = binding.stepper(name)
    counts = entry == STEP and isinstance(stepper, Stepper)

    def write(result: Any) -> None:
        now = stepper.state(name).get(entry)
        if not isinstance(now, Tensor):
            missing = MissingValue(f"`{name}.{entry}` does not exist before the first step")
            missing.hint = f"put it after a step, or write `state: {{{name}: {{{entry}: …}}}}` under the optimizer"
            missing.origin = KeyPath(path)
            raise missing
        if counts:
            _check_count(f"{name}.{entry}", float(result), path)
        stepper.assign_state(name, entry, _filled(torch.empty_like(now), result))

    return write


def _check_count(target: str, value: float, path: ConfigPath) -> None:
    """Check the number of steps that an optimizer of torch is to have taken."""
    if not (value >= 0 and value.is_integer()):
        refused = RefusedValue(f"`{target}` counts steps, and this is {value:g}")
        refused.hint = "assign an integer, 0 or more"
        refused.origin = KeyPath(path)
        raise refused


def _filled(new: Tensor, result: Any) -> Tensor:
    return new.copy_(result) if isinstance(result, Tensor) else new.fill_(result)
