"""Everything that a run changes: weights, gradients, optimizer state, counters."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor
from torch.nn import Parameter

from runner.engine.data.batches import Batches, open_batches
from runner.errors import Problem, RunError
from runner.faults import PlacedFault, place
from runner.language.graph.codegen import fault_place
from runner.language.inference.generators import left_alone, manual_seed
from runner.language.inference.inference import Bounds
from runner.language.lowering.diagnosis import torch_message
from runner.language.text.arithmetic import Scalar
from runner.language.text.faults import LanguageError
from runner.optim import (
    AnyStepper,
    InitialState,
    OptimizerPlan,
    Option,
    RuleStepper,
    Scheduled,
    Stepper,
    build,
    compile_schedule,
    resolve,
)
from runner.plan.data.files import ArrayFile, FileFault, read, text_read_once
from runner.plan.data.sources import columns_read
from runner.plan.plan import Plan
from runner.plan.program.instructions import LoopStart
from runner.plan.streams import stream_seed
from runner.plan.tensors.from_run_state import Kept
from runner.plan.tensors.initial import Computed
from runner.plan.tensors.initial_values import NOTHING, InitialContext, computed_value, initial_values

Values = tuple[Tensor | None, ...]
Withheld = tuple[int, Values]
"""A step's position in the program, and its row, which the log keeps only if the iteration is the last one."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A hyperparameter that depends on `t`."""

    group: int
    option: str
    value: Callable[[int], Any]  # a function of t, the number of the next step, from 1


@dataclass(slots=True)
class State:
    """The state of a run between two steps."""

    parameters: dict[str, Parameter]
    constants: dict[str, Tensor]
    steppers: dict[str, AnyStepper]
    schedules: dict[str, tuple[Schedule, ...]]
    iterations: list[int]  # the iteration of each loop, from 1; 0 before it starts
    values: dict[str, Any] = field(default_factory=dict)  # the last value of each named value
    position: int = 0  # of the next instruction
    row: int = 0  # the number of the next row
    batches: dict[str, Batches] = field(default_factory=dict)  # the cursor of each data source
    evaluations: int = 0  # how many computations have drawn random numbers; each has its own stream
    compiled: dict[int, Any] = field(
        default_factory=dict, repr=False, compare=False
    )  # compiled code by the position of its step
    observations: int = 0  # as `evaluations`, for `expect` and `when`, which have separate streams
    withheld: dict[int, tuple[int, list[Withheld]]] = field(default_factory=dict)  # loop → iteration, and its rows
    last: list[Withheld] = field(default_factory=list)  # rows of a loop that ended, which are yielded next
    warnings: tuple[Problem, ...] = ()  # warnings about the data

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


def initial_state(plan: Plan, given: Mapping[str, Tensor] = NOTHING) -> State:
    """The state before step 1.

    Args:
        given: values that replace the initial values of some tensors.
    Raises:
        RunError: an initial value cannot be computed, because a data file has changed since planning.
    """
    with text_read_once(columns_read(plan.config), plan.read) as tables:
        try:
            return _initial_state(plan, given)
        finally:
            tables.clear()


def _initial_state(plan: Plan, given: Mapping[str, Tensor]) -> State:
    document = plan.config.document
    context = InitialContext(plan.seed, plan.environment, Bounds(), fitted=plan.fitted)
    try:
        values = initial_values(plan.tensors, context, given=given, drawn=plan.drawings.take())
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
    loops = sum(isinstance(instruction, LoopStart) for instruction in plan.program)

    def initial(entry: InitialState) -> Tensor | int | float | bool:
        if not isinstance(entry.value, str):
            return entry.value
        return computed_value(Computed(entry.value, entry.path, ()), "state", values, context).to(plan.device)

    def stepper(optimizer: OptimizerPlan) -> AnyStepper:
        if optimizer.rule is None:
            return build(optimizer, parameters, lambda option: _scheduled(plan, option)(1), initial)
        given = {
            name: {key: initial(entry) for key, entry in entries.items()}
            for name, entries in optimizer.initial_state.items()
        }
        name = optimizer.name

        def seed(t: int) -> None:
            manual_seed(stream_seed(plan.seed, "rule", name, t), plan.device)

        return RuleStepper(optimizer.rule, optimizer.state, parameters, given, seed)

    steppers: dict[str, AnyStepper] = {}
    with left_alone(plan.device):
        for name, optimizer in plan.optimizers.items():
            try:
                steppers[name] = stepper(optimizer)
            except RuntimeError as error:
                raise _state_fault(plan, optimizer, error) from error
    _restore_optimizers(plan, steppers, parameters)
    schedules = {
        name: tuple(
            Schedule(group, option, _at_step(plan, option, value)) for group, option, value in optimizer.scheduled()
        )
        for name, optimizer in plan.optimizers.items()
    }
    told: list[Problem] = []
    batches = open_batches(plan, told)
    return State(parameters, constants, steppers, schedules, [0] * loops, batches=batches, warnings=tuple(told))


def _restore_optimizers(plan: Plan, steppers: Mapping[str, AnyStepper], parameters: Mapping[str, Parameter]) -> None:
    """Set the state of optimizers to that of the run which the config starts from.

    Raises:
        RunError: the file of that state has changed since planning.
    """
    for name, start in plan.optimizer_starts.items():
        stepper = steppers[name]
        state = {each: dict(stepper.state(each)) for each in plan.optimizers[name].parameters}
        for each, entries in start.state.items():
            if isinstance(stepper, Stepper):
                stepper.prepare(each, ())  # as before the first step: where torch keeps each entry
            made = stepper.state(each)
            state[each] |= {
                key: _restored(plan, value, made.get(key), parameters[each]) for key, value in entries.items()
            }
        stepper.load_state(state, start.steps)


def _restored(plan: Plan, value: Kept, made: Any, parameter: Parameter) -> Tensor | int | float | None:
    if not isinstance(value, ArrayFile):
        return value
    try:
        return read(value).to(made.device if isinstance(made, Tensor) else parameter.device)
    except FileFault as fault:
        raise RunError(plan.config.document.problem(("from_run", "optimizer"), fault.message, fault.hint)) from fault


def _state_fault(plan: Plan, optimizer: OptimizerPlan, error: RuntimeError) -> RunError:
    """The error that torch raised while it created the state of an optimizer."""
    path, found = (*optimizer.path, "state"), fault_place(error.__traceback__)
    if found is None:
        return RunError(plan.config.document.problem(path, torch_message(error)))
    return RunError(place(plan.config.document, path, LanguageError(torch_message(error), None, *found)))


def _at_step(plan: Plan, name: str, option: Option) -> Callable[[int], Any]:
    """An option as a function of `t`; its expressions are compiled once."""
    elements = option if isinstance(option, tuple) else (option,)
    least = 0.0 if name == "lr" else -math.inf
    compiled = {element: _scheduled(plan, element, least) for element in elements if isinstance(element, Scheduled)}
    return lambda t: resolve(option, lambda element: compiled[element](t))


def _scheduled(plan: Plan, option: Scheduled, least: float = -math.inf) -> Callable[[int], Scalar]:
    """The value of an expression of `t`; an error in it has its place in the config."""
    document = plan.config.document
    try:
        compiled = compile_schedule(option.text, {**plan.tables, **plan.scalars})
    except LanguageError as error:
        raise RunError(place(document, option.path, error)) from error

    def at(t: int) -> Scalar:
        try:
            value = compiled(t)
        except LanguageError as error:
            problem = place(document, option.path, error)
            raise RunError(replace(problem, message=f"{problem.message} (in step {t} of the optimizer)")) from error
        if value < least:
            message = f"this is {value} in step {t} of the optimizer"
            raise RunError(document.problem(option.path, message, "a learning rate is 0 or more"))
        return value

    return at
