"""An optimizer at work: `torch.optim`'s own class over a run's parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from runner.optim.classes import optimizer_class
from runner.optim.plans import InitialState, OptimizerPlan, Option, Scheduled, Value, resolve
from runner.optim.updates import Pieces, Replacing, Update, begin_updates, subgroups, total

STEP = "step"
"""The entry in which torch counts the steps of a parameter."""

StateValue = Tensor | int | float | None | Sequence[Tensor | None]
"""What torch keeps in an optimizer's state; L-BFGS keeps numbers and lists of tensors too."""


class AnyStepper(Protocol):
    """An optimizer of a run, one of torch's or a rule.

    A step may write weights in place, but for those that it was told to `keep`. Where `remembers` is true
    `before` tells what the last step has replaced, until `forget`; `remembers_cheaply` says that this costs next to
    nothing. Where `sums` is true `total` is a sum over all weights after a step, which is finite only where each of
    them is; `sums_cheaply` says that it costs less than looking at them. `step_in_place` writes the storage that
    weights and state have, and `update_in_place` is the same without counting it.
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
    def advance(self, state: Mapping[str, Mapping[str, Tensor]], steps: int) -> None: ...


class Stepper:
    """One optimizer of a run, its parameters known by name.

    `steps` counts the steps taken; the next one is `t = steps + 1`.
    """

    __slots__ = (
        "_before",
        "_kept",
        "_parameters",
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
        self._before: dict[Parameter, Tensor] = {}  # where the last step was torch's own
        self._parameters = dict(parameters)
        self._kept: set[Parameter] = set()
        self._subgroups = subgroups(optimizer) or ()
        self._updates: list[Update] | None = None  # once they can do what torch's own step would

    def holds(self, name: str) -> bool:
        """Whether a parameter is one of its own."""
        return name in self._parameters

    def keep(self, names: Iterable[str]) -> None:
        """From now on, a step gives these parameters new storage: what shares the old one stays as it was."""
        self._sync_counters()
        self._updates = None
        self._kept.update(self._parameters[name] for name in names)

    @property
    def remembers_cheaply(self) -> bool:
        """Whether parameters are updated together, which are small or whose new weights are new tensors."""
        return bool(self._subgroups) and all(subgroup.method is not Pieces for subgroup in self._subgroups)

    def before(self, name: str) -> Tensor:
        """The weight `(*s)` of a parameter before the last step, which `remembers`."""
        found = dict(self._before)
        for update in self._updates or ():
            found |= update.before()
        return found[self._parameters[name]]

    def forget(self) -> None:
        """Let go of what weights were."""
        self._before = {}
        for update in self._updates or ():
            update.method.forget()

    @property
    def sums_cheaply(self) -> bool:
        """Whether most steps write weights that lie together, or are in the cache."""
        return any(subgroup.method is not Replacing for subgroup in self._subgroups)

    def total(self) -> float:
        """A sum over all weights after the last step, where it `sums`: finite only where each of them is."""
        if self._updates is None:
            return total(self._parameters.values())
        return sum(update.method.total() for update in self._updates)

    def step(self) -> None:
        """`optimizer.step()`: parameters without a gradient are left as they are."""
        self.steps += 1
        if not self._stepped_together():
            self._sync_counters()
            if self.remembers:
                self._before = {kept: kept.detach().clone() for kept in self._parameters.values()}
            self._renew(parameter for parameter in self._parameters.values() if parameter.grad is not None)
            self._updates = None
            self.optimizer.step()

    def step_in_place(self) -> None:
        """`step` into the storage that the parameters have, whoever shares it."""
        self.update_in_place()
        self.steps += 1

    def update_in_place(self) -> None:
        """`step_in_place` for `t = steps + 1`, which is not counted: a recording does this again and again."""
        self._sync_counters()
        self._updates = None
        self.optimizer.step()

    def _stepped_together(self) -> bool:
        """Take the step by updates of parameters together, where that can be done."""
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
        """Updates of parameters together from here on; None where this step has to be torch's own."""
        if not self._subgroups or any(parameter.grad is None for parameter in self._parameters.values()):
            return None
        found = subgroups(self.optimizer, self._kept)
        if found is None:  # an option has changed
            return None
        self._subgroups = found
        for subgroup in found:
            if (
                subgroup.method is not Replacing
            ):  # momentum buffers are something else before the first step than after it
                new = [parameter for parameter in subgroup.parameters if not self.optimizer.state[parameter]]
                _initialise(self.optimizer, {**subgroup.options, "params": new})
        return begin_updates(self.optimizer, found)

    def _renew(self, parameters: Iterable[Parameter]) -> None:
        """Give parameters storage of their own, where what they have is kept."""
        for parameter in parameters:
            if parameter in self._kept:
                parameter.data = parameter.detach().clone()

    def _sync_counters(self) -> None:
        for update in self._updates or ():
            update.sync_counters()

    def step_closure(self, closure: Callable[[], Tensor]) -> None:
        """`optimizer.step(closure)`: the closure zeroes the gradients, computes the objective and its gradients."""
        self.steps += 1
        self._renew(self._parameters.values())
        self.optimizer.step(closure)  # type: ignore[arg-type]  # torch says float and takes a tensor

    def set_option(self, group: int, name: str, value: Value | tuple[Value, ...]) -> None:
        """Change a hyperparameter of one group from the next step on."""
        options = self.optimizer.param_groups[group]
        if bool(options[name]) != bool(value):  # it may decide who updates, or that the first step makes buffers
            self._sync_counters()
            self._updates = None
        options[name] = value

    def state(self, name: str) -> Mapping[str, StateValue]:
        """What the optimizer keeps for a parameter, under torch's names; empty before it is first used.

        These are the optimizer's own tensors, and the next step writes them.
        """
        self._sync_counters()
        kept: Mapping[str, StateValue] = self.optimizer.state.get(self._parameters[name], {})
        return kept

    def load_state(self, state: Mapping[str, Mapping[str, Any]], steps: int) -> None:
        """Put back what `state` gave for each parameter, and the count of steps. Tensors are taken over, not copied."""
        self._updates = None
        self.optimizer.state.clear()
        for name, entries in state.items():
            if entries:
                self.optimizer.state[self._parameters[name]] = dict(entries)
        self.steps = steps

    def advance(self, state: Mapping[str, Mapping[str, Tensor]], steps: int) -> None:
        """Take over what some parameters' state has become in so many further steps, taken elsewhere."""
        self._sync_counters()
        self._updates = None
        for name, entries in state.items():
            kept = self.optimizer.state[self._parameters[name]]
            kept.update(entries)
            if STEP in kept:
                kept[STEP] = kept[STEP] + steps
        self.steps += steps

    def prepare(self, name: str, entries: Iterable[str]) -> None:
        """Make a parameter's state before its first step: as torch does in it, and zeros for what is missing then."""
        parameter = self._parameters[name]
        _lazily_initialised(self.optimizer, parameter)
        state = self.optimizer.state[parameter]
        for entry in entries:
            if not isinstance(state.get(entry), Tensor):
                state[entry] = torch.zeros_like(parameter, requires_grad=False)

    def group(self, number: int) -> Mapping[str, Any]:
        """The options of a group, as torch has completed them, and `params`."""
        found: Mapping[str, Any] = self.optimizer.param_groups[number]
        return found


def build(
    plan: OptimizerPlan,
    parameters: Mapping[str, Parameter],
    schedule: Callable[[Scheduled], int | float | bool],
    initial: Callable[[InitialState], Tensor | int | float | bool],
) -> Stepper:
    """The optimizer that a plan describes.

    Args:
        plan: as `plan_optimizers` made it.
        parameters: at least those that the plan holds, on their device.
        schedule: the value of an expression of `t` at t = 1.
        initial: the value of an entry of the initial state: a number, or a tensor that broadcasts to the entry.
    """
    held = {name: parameters[name] for name in plan.parameters}
    groups = [([held[name] for name in group.parameters], _values(group.options, schedule)) for group in plan.groups]
    optimizer = construct(plan.class_name, _values(plan.options, schedule), groups)
    for name, entries in plan.initial_state.items():
        start_state(optimizer, held[name], {key: initial(entry) for key, entry in entries.items()})
    return Stepper(optimizer, held)


def construct(
    class_name: str, options: Mapping[str, Any], groups: Sequence[tuple[Sequence[Tensor], Mapping[str, Any]]]
) -> Optimizer:
    """A `torch.optim` class with its arguments, over groups of parameters with theirs."""
    make: Callable[..., Optimizer] = optimizer_class(class_name)
    if len(groups) == 1:
        parameters, own = groups[0]
        return make(parameters, **{**options, **own})
    return make([{"params": parameters, **own} for parameters, own in groups], **options)


def _values(
    options: Mapping[str, Option], schedule: Callable[[Scheduled], int | float | bool]
) -> dict[str, Value | tuple[Value, ...]]:
    return {name: resolve(option, schedule) for name, option in options.items()}


def start_state(optimizer: Optimizer, parameter: Tensor, entries: Mapping[str, Tensor | int | float | bool]) -> None:
    """Start some entries of a parameter's state from given values, and the rest as torch does.

    An entry that torch makes only in its first step (the momentum buffer of SGD) is made like the parameter.
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
    """Let torch make a parameter's state as in a first step, without taking one."""
    group = next(group for group in optimizer.param_groups if any(held is parameter for held in group["params"]))
    if optimizer.state[parameter]:
        return
    gradient, parameter.grad = parameter.grad, torch.zeros_like(parameter)
    try:
        _initialise(optimizer, {**group, "params": [parameter]})
    finally:
        parameter.grad = gradient


def _initialise(optimizer: Optimizer, group: Mapping[str, Any]) -> None:
    """Let torch make the state of parameters that have gradients, where it does so before it uses it."""
    initialise = getattr(optimizer, "_init_group", None)
    if initialise is not None:
        initialise(group, *([] for _ in range(len(inspect.signature(initialise).parameters) - 1)))
