"""Everything that a run changes: weights, gradients, optimizer state, counters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from runner.errors import RunError
from runner.language.faults import LanguageError
from runner.language.inference import Bounds
from runner.language.scalars import compile_scalar
from runner.optim import InitialState, Option, Scheduled, Stepper, build, resolve
from runner.optim.faults import PlacedFault
from runner.plan.faults import place
from runner.plan.initial import Computed
from runner.plan.initialising import Surroundings, computed_value, initial_values
from runner.plan.instructions import Enter
from runner.plan.plan import Plan


@dataclass(frozen=True, slots=True)
class Schedule:
    """A hyperparameter that changes with `t`."""

    group: int
    option: str
    value: Callable[[int], Any]  # of t, the step that is about to be taken, from 1


@dataclass(slots=True)
class State:
    """The state of a run between two steps."""

    parameters: dict[str, Parameter]
    constants: dict[str, Tensor]
    steppers: dict[str, Stepper]
    schedules: dict[str, tuple[Schedule, ...]]
    iterations: list[int]  # of each loop, from 1; 0 before it is entered
    values: dict[str, Any] = field(default_factory=dict)  # named values as they were last computed
    position: int = 0  # in the program
    row: int = 0  # the number of the next row
    evaluations: int = 0  # computations with random numbers done; each has a stream of its own

    def tensors(self) -> dict[str, Tensor]:
        """Weights, gradients and optimizer state by name: `x1`, `x1.grad`, `x1.exp_avg`; only what exists."""
        found: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            found[name] = parameter.detach()
            if parameter.grad is not None:
                found[f"{name}.grad"] = parameter.grad
            for stepper in self.steppers.values():
                if stepper.holds(name):
                    state = stepper.state(name)
                    found.update({f"{name}.{key}": value for key, value in state.items() if isinstance(value, Tensor)})
        return found


def initial_state(plan: Plan) -> State:
    """The state before step 1.

    Raises:
        RunError: an initial value cannot be made any more: a data file has changed since planning.
    """
    document = plan.config.document
    around = Surroundings(plan.seed, plan.scalars, plan.functions, plan.dtype, Bounds())
    try:
        values = initial_values(plan.tensors, around)
    except PlacedFault as fault:
        raise RunError(fault.problem(document)) from fault
    except LanguageError as error:
        raise RunError(place(document, ("parameters",), error)) from error
    parameters: dict[str, Parameter] = {}
    constants: dict[str, Tensor] = {}
    for name, value in values.items():
        tensor = plan.tensors[name]
        moved = value.to(plan.device)
        if tensor.role == "parameter":
            parameters[name] = Parameter(moved, requires_grad=tensor.requires_grad)
        else:
            constants[name] = moved
    loops = sum(isinstance(instruction, Enter) for instruction in plan.program)
    scalars = {**plan.tables, **plan.scalars}

    def scheduled(option: Scheduled) -> Callable[[Mapping[str, Any]], int | float | bool]:
        return compile_scalar(option.text, scalars, ("t",))

    def initial(entry: InitialState) -> Tensor | int | float | bool:
        if not isinstance(entry.value, str):
            return entry.value
        return computed_value(Computed(entry.value, entry.path, ()), "state", values, around).to(plan.device)

    steppers = {
        name: build(optimizer, parameters, lambda option: scheduled(option)({"t": 1}), initial)
        for name, optimizer in plan.optimizers.items()
    }
    schedules = {
        name: tuple(
            Schedule(group, option, _at_step(value, scheduled)) for group, option, value in optimizer.scheduled()
        )
        for name, optimizer in plan.optimizers.items()
    }
    return State(parameters, constants, steppers, schedules, [0] * loops)


def _at_step(
    option: Option, scheduled: Callable[[Scheduled], Callable[[Mapping[str, Any]], Any]]
) -> Callable[[int], Any]:
    """An option as a function of `t`; its expressions are compiled once."""
    compiled: dict[str, Callable[[Mapping[str, Any]], Any]] = {}

    def evaluate(element: Scheduled, t: int) -> Any:
        if element.text not in compiled:
            compiled[element.text] = scheduled(element)
        return compiled[element.text]({"t": t})

    return lambda t: resolve(option, lambda element: evaluate(element, t))


def manual_seed(seed: int, device: str) -> None:
    """Seed the generator that operations on `device` draw from."""
    torch.default_generator.manual_seed(seed)
    if device != "cpu":
        getattr(torch, device.partition(":")[0]).manual_seed(seed)
