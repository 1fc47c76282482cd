"""Runs an optimizer: `torch.optim`'s own class over a run's parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from runner.faults import sentence
from runner.optim.classes import optimizer_class
from runner.optim.plans import ON, InitialState, OptimizerPlan, Option, Scheduled, Value, elements, resolve
from runner.optim.updates import Pieces, Replacing, Update, begin_updates, subgroups, total

STEP = "step"
"""The state entry in which torch counts the steps of a parameter."""

StateValue = Tensor | int | float | None | Sequence[Tensor | None]
"""A value of an optimizer's state; L-BFGS has numbers and lists of tensors too."""


class AnyStepper(Protocol):
    """An optimizer of a run: one of torch's, or a rule.

    Attributes:
        steps: the number of finished steps.
        remembers: whether steps keep the previous weights for `before`, until `forget`. This is nearly free if
            `remembers_cheaply`.
        sums: whether steps compute `total`, the sum of all weights. It is finite only if all weights are. This is
            cheaper than checking the weights if `sums_cheaply`.

    A step may write weights in place, except those passed to `keep`. `step_in_place` always writes weights and state
    in place, and `update_in_place` does so without counting the step.
    """

    steps: int
    remembers: bool
    sums: bool

    def keep(self, names: Iterable[str]) -> None: ...
    @property
    def remembers_cheaply(self) -> bool: ...
    def before(self, name: str) -> Tensor: ...
    def forget(self) -> None: ...
    @property
    def sums_cheaply(self) -> bool: ...
    def total(self) -> float: ...
    def holds(self, name: str) -> bool: ...
    def step(self) -> None: ...
    def step_in_place(self) -> None: ...
    def update_in_place(self) -> None: ...
    def state(self, name: str) -> Mapping[str, StateValue]: ...
    def load_state(self, state: Mapping[str, Mapping[str, Any]], steps: int) -> None: ...
    def assign_state(self, name: str, entry: str, value: Tensor) -> None: ...
    def advance(self, state: Mapping[str, Mapping[str, Tensor]], steps: int) -> None: ...


class Stepper:
    """One optimizer of a run, with its parameters by name.

    `steps` counts the finished steps; the next one has `t = steps + 1`.
    """

    __slots__ = (
        "_before",
        "_parameters",
        "_preserved",
        "_subgroups",
        "_updates",
        "optimizer",
        "remembers",
        "steps",
        "sums",
    )

    def __init__(self, optimizer: Optimizer, parameters: Mapping[str, Parameter]) -> None:
        self.optimizer = optimizer
        self.steps = 0
        self.remembers = self.sums = False
        self._before: dict[Parameter, Tensor] = {}  # set if torch's own code took the last step
        self._parameters = dict(parameters)
        self._preserved: set[Parameter] = set()
        self._subgroups = subgroups(optimizer) or ()
        self._updates: list[Update] | None = None  # set once they can replace torch's own step

    def holds(self, name: str) -> bool:
        """Whether this optimizer has the parameter."""
        return name in self._parameters

    def keep(self, names: Iterable[str]) -> None:
        """Make later steps allocate new storage for these parameters: tensors that share the old one do not change."""
        self._sync_counters()
        self._updates = None
        self._preserved.update(self._parameters[name] for name in names)

    @property
    def remembers_cheaply(self) -> bool:
        """Whether all parameters are updated together: they are small, or their new weights are new tensors."""
        return bool(self._subgroups) and all(subgroup.method is not Pieces for subgroup in self._subgroups)

    def before(self, name: str) -> Tensor:
        """The weight `(*s)` of a parameter before the last step; available while `remembers` is true."""
        found = dict(self._before)
        for update in self._updates or ():
            found |= update.before()
        return found[self._parameters[name]]

    def forget(self) -> None:
        """Release the weights from before the last step."""
        self._before = {}
        for update in self._updates or ():
            update.method.forget()

    @property
    def sums_cheaply(self) -> bool:
        """Whether most steps write weights that are contiguous or in the cache."""
        return any(subgroup.method is not Replacing for subgroup in self._subgroups)

    def total(self) -> float:
        """The sum of all weights after the last step, if it `sums`; finite only if all weights are."""
        if self._updates is None:
            return total(self._parameters.values())
        return sum(update.method.total() for update in self._updates)

    def step(self) -> None:
        """Take a step, as `optimizer.step()` does: parameters without a gradient do not change."""
        self.steps += 1
        if not self._stepped_together():
            self._sync_counters()
            if self.remembers:
                self._before = {each: each.detach().clone() for each in self._parameters.values()}
            self._renew(parameter for parameter in self._parameters.values() if parameter.grad is not None)
            self._updates = None
            self.optimizer.step()

    def step_in_place(self) -> None:
        """Take a step in place: the parameters keep their storage, even if it is shared."""
        self.update_in_place()
        self.steps += 1

    def update_in_place(self) -> None:
        """As `step_in_place`, for `t = steps + 1`, without counting the step, so that a CUDA graph can capture it."""
        self._sync_counters()
        self._updates = None
        self.optimizer.step()

    def _stepped_together(self) -> bool:
        """Update the parameters together if possible, and return whether that took the step."""
        if self._updates is None:
            self._updates = self._begun()
        if self._updates is None:
            return False
        given = []
        for update in self._updates:
            gradients = update.gradients()
            if gradients is None:
                return False
            given.append(gradients)
        for update, gradients in zip(self._updates, given, strict=True):
            update.step(gradients, remembers=self.remembers, sums=self.sums)
        return True

    def _begun(self) -> list[Update] | None:
        """The updates for parameters together, from this step on; None if torch's own code has to take this step."""
        if not self._subgroups or any(parameter.grad is None for parameter in self._parameters.values()):
            return None
        found = subgroups(self.optimizer, self._preserved)
        if found is None:  # an option has changed
            return None
        self._subgroups = found
        for subgroup in found:
            if subgroup.method is not Replacing:  # momentum buffers differ before and after the first step
                new = [parameter for parameter in subgroup.parameters if not self.optimizer.state[parameter]]
                _initialise(self.optimizer, {**subgroup.options, "params": new})
        return begin_updates(self.optimizer, found)

    def _renew(self, parameters: Iterable[Parameter]) -> None:
        """Allocate new storage for those of the parameters that were passed to `keep`."""
        for parameter in parameters:
            if parameter in self._preserved:
                parameter.data = parameter.detach().clone()

    def _sync_counters(self) -> None:
        for update in self._updates or ():
            update.sync_counters()

    def step_closure(self, closure: Callable[[], Tensor]) -> None:
        """Take a step with a closure, which zeroes the gradients, and computes the objective and its gradients."""
        self.steps += 1
        self._renew(self._parameters.values())
        self.optimizer.step(closure)  # type: ignore[arg-type]  # torch declares float and accepts a tensor

    def set_option(self, group: int, name: str, value: Value | tuple[Value, ...]) -> None:
        """Set a hyperparameter of one group, from the next step on."""
        options = self.optimizer.param_groups[group]
        if bool(options[name]) != bool(
            value
        ):  # this may change the update method, or make the first step create buffers
            self._sync_counters()
            self._updates = None
        options[name] = value

    def state(self, name: str) -> Mapping[str, StateValue]:
        """The state of a parameter, under torch's names; empty before its first step.

        The tensors are the optimizer's own, and the next step writes them.
        """
        self._sync_counters()
        entries: Mapping[str, StateValue] = self.optimizer.state.get(self._parameters[name], {})
        return entries

    def load_state(self, state: Mapping[str, Mapping[str, Any]], steps: int) -> None:
        """Restore what `state` returned for each parameter, and the step count. Tensors are used without a copy."""
        self._updates = None
        self.optimizer.state.clear()
        for name, entries in state.items():
            if entries:
                self.optimizer.state[self._parameters[name]] = dict(entries)
        self.steps = steps

    def assign_state(self, name: str, entry: str, value: Tensor) -> None:
        """Replace an existing entry of a parameter's state. The tensor is used without a copy."""
        self._sync_counters()
        self._updates = None
        self.optimizer.state[self._parameters[name]][entry] = value

    def advance(self, state: Mapping[str, Mapping[str, Tensor]], steps: int) -> None:
        """Set the state of some parameters after `steps` further steps, which other code has computed."""
        self._sync_counters()
        self._updates = None
        for name, entries in state.items():
            own = self.optimizer.state[self._parameters[name]]
            own.update(entries)
            if STEP in own:
                own[STEP] = own[STEP] + steps
        self.steps += steps

    def prepare(self, name: str, entries: Iterable[str]) -> None:
        """Make a parameter's state before its first step, as torch does; `entries` that torch makes later are zeros."""
        parameter = self._parameters[name]
        _lazily_initialised(self.optimizer, parameter)
        state = self.optimizer.state[parameter]
        for entry in entries:
            if not isinstance(state.get(entry), Tensor):
                state[entry] = torch.zeros_like(parameter, requires_grad=False)

    def first_state(self, name: str) -> Mapping[str, StateValue]:
        """The state of a parameter before its first step, as torch makes it; the optimizer does not keep it."""
        if not self.state(name):
            self.prepare(name, ())
            return dict(self.optimizer.state.pop(self._parameters[name]))
        return self.state(name)

    def group(self, number: int) -> Mapping[str, Any]:
        """The options of a group, completed with torch's defaults, and its `params`."""
        found: Mapping[str, Any] = self.optimizer.param_groups[number]
        return found


def build(
    plan: OptimizerPlan,
    parameters: Mapping[str, Parameter],
    schedule: Callable[[Scheduled], int | float | bool],
    initial: Callable[[InitialState], Tensor | int | float | bool],
) -> Stepper:
    """Build the optimizer of a plan.

    Args:
        plan: a plan from `plan_optimizers`.
        parameters: at least those of the plan, on their device.
        schedule: returns the value of an expression at t = 1. It raises ValueError if a parameter that the expression
            reads has no usable value yet.
        initial: returns the initial value of a state entry: a number, or a tensor that broadcasts to the entry.
    """
    own = {name: parameters[name] for name in plan.parameters}

    def made(values: Callable[[Mapping[str, Option]], dict[str, Any]]) -> Optimizer:
        groups = [([own[name] for name in group.parameters], values(group.options)) for group in plan.groups]
        return construct(plan.class_name, values(plan.options), groups)

    try:
        optimizer = made(lambda options: _values(options, schedule))
    except ValueError:  # the initial value of a parameter is out of range, and may change before the first step
        optimizer = made(lambda options: _values(_without_measured(options), schedule))
    for name, entries in plan.initial_state.items():
        start_state(optimizer, own[name], {key: initial(entry) for key, entry in entries.items()})
    return Stepper(optimizer, own)


def construct(
    class_name: str, options: Mapping[str, Any], groups: Sequence[tuple[Sequence[Tensor], Mapping[str, Any]]]
) -> Optimizer:
    """Construct a `torch.optim` class with its arguments, over groups of parameters with theirs."""
    make: Callable[..., Optimizer] = optimizer_class(class_name)
    if len(groups) == 1:
        parameters, own = groups[0]
        return make(parameters, **{**options, **own})
    return make([{"params": parameters, **own} for parameters, own in groups], **options)


def refusal(class_name: str, option: str, value: Value | tuple[Value, ...]) -> str | None:
    """Why torch does not accept a value of a hyperparameter; None if it does."""
    try:
        construct(class_name, {option: value}, [([torch.zeros(1, 1)], {})])
    except (ValueError, TypeError, RuntimeError) as error:
        return sentence(error)
    return None


def _values(
    options: Mapping[str, Option], schedule: Callable[[Scheduled], int | float | bool]
) -> dict[str, Value | tuple[Value, ...]]:
    return {name: resolve(option, schedule) for name, option in options.items()}


def _without_measured(options: Mapping[str, Option]) -> dict[str, Option]:
    """Options without those that read parameters; of these, options for which torch keeps state are on."""
    found = {name: option for name, option in options.items() if not _is_measured(option)}
    return found | {name: ON[name] for name in options if name in ON and name not in found}


def _is_measured(option: Option) -> bool:
    return any(isinstance(element, Scheduled) and element.reads for element in elements(option))


def start_state(optimizer: Optimizer, parameter: Tensor, entries: Mapping[str, Tensor | int | float | bool]) -> None:
    """Initialise some entries of a parameter's state from given values, and the rest as torch does.

    An entry that torch makes only in its first step, such as the momentum buffer of SGD, is made like the parameter.
    """
    state = optimizer.state[parameter]
    _lazily_initialised(optimizer, parameter)
    with torch.no_grad():
        for key, value in entries.items():
            state[key] = state[key] if isinstance(state.get(key), Tensor) else torch.zeros_like(parameter)
            if isinstance(value, Tensor):
                state[key].copy_(value)
            else:
                state[key].fill_(value)


def _lazily_initialised(optimizer: Optimizer, parameter: Tensor) -> None:
    """Let torch make a parameter's state as in a first step, without taking the step."""
    group = next(group for group in optimizer.param_groups if any(each is parameter for each in group["params"]))
    if optimizer.state[parameter]:
        return
    gradient, parameter.grad = parameter.grad, torch.empty_like(parameter)  # its values are not read
    try:
        _initialise(optimizer, {**group, "params": [parameter]})
    finally:
        parameter.grad = gradient


def _initialise(optimizer: Optimizer, group: Mapping[str, Any]) -> None:
    """Let torch make the state of parameters with gradients, if its class has a function for that."""
    initialise = getattr(optimizer, "_init_group", None)
    if initialise is not None:
        initialise(group, *([] for _ in range(len(inspect.signature(initialise).parameters) - 1)))
