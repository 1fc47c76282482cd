"""Everything that a run changes: weights, gradients, optimizer state, counters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
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
    elements,
    refusal,
    resolve,
)
from runner.plan.data.files import ArrayFile, FileFault, read, text_read_once
from runner.plan.data.sources import columns_read
from runner.plan.plan import Plan
from runner.plan.program.instructions import LoopStart, followed_by
from runner.plan.rows.layout import Values
from runner.plan.streams import stream_seed
from runner.plan.tensors.from_run_state import Kept
from runner.plan.tensors.initial import Computed
from runner.plan.tensors.initial_values import NOTHING, InitialContext, computed_value, initial_values

Withheld = tuple[int, Values]
"""A step's position in the program, and its row, which the log keeps only if the iteration is the last one."""


@dataclass(slots=True)
class Tracker:
    """What a step that follows a result of `evaluate` remembers."""

    result: str  # "valid.loss"
    best: float
    worse: int = 0  # evaluations in a row that were not better
    cooldown: int = 0  # evaluations to wait
    fresh: bool = False  # whether there is an evaluation that the step has not seen


@dataclass(frozen=True, slots=True)
class LossScale:
    """The state of a loss scaler, as `torch.amp.GradScaler` keeps it; steps write it in place."""

    scale: Tensor  # float32 `()`
    growth: Tensor  # int32 `()`, the number of steps in a row with finite gradients


@dataclass(frozen=True, slots=True)
class Schedule:
    """A hyperparameter that changes during a run."""

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
    trackers: dict[int, Tracker] = field(default_factory=dict)  # by the position of the step in the program
    loss_scale: LossScale | None = None
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
    parameters, constants = _on_device(plan, values)
    steppers = _steppers(plan, parameters, values, context)
    _restore_optimizers(plan, steppers, parameters)
    loops = sum(isinstance(instruction, LoopStart) for instruction in plan.program)
    warnings: list[Problem] = []
    batches = open_batches(plan, warnings)
    trackers = {
        position: Tracker(followed.result, followed.worst)
        for position, instruction in enumerate(plan.program)
        if (followed := followed_by(instruction)) is not None
    }
    state = State(
        parameters, constants, steppers, {}, [0] * loops, batches=batches, trackers=trackers, warnings=tuple(warnings)
    )
    if plan.loss_scaling is not None:
        first = torch.full((), plan.loss_scaling.init_scale, dtype=torch.float32, device=plan.device)
        state.loss_scale = LossScale(first, torch.zeros((), dtype=torch.int32, device=plan.device))
    for name, optimizer in plan.optimizers.items():
        state.schedules[name] = tuple(
            Schedule(group, option, at_step(plan, state, optimizer, option, value))
            for group, option, value in optimizer.scheduled()
        )
    return state


def _on_device(plan: Plan, values: Mapping[str, Tensor]) -> tuple[dict[str, Parameter], dict[str, Tensor]]:
    """The parameters and the constants, with their initial values on the run's device."""
    parameters: dict[str, Parameter] = {}
    constants: dict[str, Tensor] = {}
    for name, value in values.items():
        tensor = plan.tensors[name]
        moved = value.to(plan.device)
        if tensor.role == "parameter":
            parameters[name] = Parameter(moved, requires_grad=tensor.requires_grad)
        else:
            constants[name] = moved
    return parameters, constants


def _steppers(
    plan: Plan, parameters: dict[str, Parameter], values: Mapping[str, Tensor], context: InitialContext
) -> dict[str, AnyStepper]:
    """The steppers of all optimizers, with the initial state of those that are rules.

    Raises:
        RunError: torch cannot make a state.
    """

    def initial(entry: InitialState) -> Tensor | int | float | bool:
        if not isinstance(entry.value, str):
            return entry.value
        return computed_value(Computed(entry.value, entry.path, ()), "state", values, context).to(plan.device)

    def stepper(optimizer: OptimizerPlan) -> AnyStepper:
        if optimizer.rule is None:
            return build(optimizer, parameters, lambda option: _first_value(plan, option, parameters), initial)
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
    return steppers


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


def at_step(plan: Plan, state: State, optimizer: OptimizerPlan, name: str, option: Option) -> Callable[[int], Any]:
    """An option as a function of `t`; its expressions are compiled once."""
    compiled: dict[Scheduled, Callable[[int], Scalar]] = {}
    for element in elements(option):
        if isinstance(element, Scheduled):
            compiled[element] = _scheduled(plan, element, state.parameters, lambda: f", row {state.row}")
    checks = [
        _range_check(plan, state, optimizer, name, element) for element in compiled if name == "lr" or element.reads
    ]

    def at(t: int) -> Any:
        value = resolve(option, lambda element: compiled[element](t))
        for check in checks:
            check(t, value)
        return value

    return at


def _range_check(
    plan: Plan, state: State, optimizer: OptimizerPlan, name: str, element: Scheduled
) -> Callable[[int, Any], None]:
    """A function that raises RunError if an option is out of the range that torch accepts."""
    accepted: Any = None

    def check(t: int, value: Any) -> None:
        nonlocal accepted
        if value == accepted or isinstance(value, bool) or (name == "lr" and value >= 0):
            return
        reason, hint = f"this is {value}", "a learning rate is 0 or more"
        if name != "lr":
            found = refusal(optimizer.class_name, name, value)
            if found is None:
                accepted = value
                return
            reason, hint = found, f"torch's `{optimizer.class_name}` refuses it: assign a value in its range"
        read = _values_read(element, state.parameters)
        message = f"{reason} in step {t} of the optimizer{f' (row {state.row}; {read})' if read else ''}"
        raise RunError(plan.config.document.problem(element.path, message, hint))

    return check


def _values_read(element: Scheduled, parameters: Mapping[str, Tensor]) -> str:
    """The parameters that an expression reads, with their values: "`rate` is -0.1"."""
    return " and ".join(f"`{name}` is {parameters[name].item()}" for name in element.reads)


def _first_value(plan: Plan, option: Scheduled, parameters: Mapping[str, Parameter]) -> Scalar:
    """The value of an expression in the first step; ValueError if a parameter that it reads has no usable value."""
    try:
        return _scheduled(plan, option, parameters)(1)
    except RunError as error:
        if option.reads:
            raise ValueError(str(error)) from error
        raise


def _scheduled(
    plan: Plan, option: Scheduled, parameters: Mapping[str, Parameter], row: Callable[[], str] = lambda: ""
) -> Callable[[int], Scalar]:
    """The value of an expression of `t` and parameters; an error in it has its place in the config."""
    document = plan.config.document
    measured = {name: parameters[name].item for name in option.reads}
    try:
        compiled = compile_schedule(option.text, {**plan.tables, **plan.scalars}, measured)
    except LanguageError as error:
        raise RunError(place(document, option.path, error)) from error

    def at(t: int) -> Scalar:
        try:
            return compiled(t)
        except LanguageError as error:
            problem = place(document, option.path, error)
            read = _values_read(option, parameters)
            where = f"in step {t} of the optimizer{f'{row()}; {read}' if read else ''}"
            raise RunError(replace(problem, message=f"{problem.message} ({where})")) from error

    return at
