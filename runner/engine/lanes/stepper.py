"""The optimizers of lanes: SGD, Adam and AdamW with a learning rate for each lane, and `torch.optim`'s own classes."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from runner.engine.lanes.operations.tensor import LaneTensor, NotStackable
from runner.engine.lanes.updates import (
    ADAM,
    MOMENTUM,
    Rate,
    Update,
    adam,
    gives_bits,
    update_each,
    update_of,
    update_together,
)
from runner.engine.state import Schedule, State, at_step
from runner.optim import OptimizerPlan, elements
from runner.optim.updates import is_plain
from runner.plan.plan import Plan


class LaneStepper:
    """One optimizer of all lanes; it has the place of a `Stepper`.

    Args:
        optimizer: its class over the parameters.
        parameters: its parameters by name.
        schedules: the hyperparameters that depend on `t`, the same in each lane but for a rate that reads parameters.
        rates: the learning rate of each lane: float64 `(lanes,)`; None if they are all equal.
        exact: whether weights must have the bits of a run alone.
    """

    __slots__ = (
        "_counts",
        "_exact",
        "_kept",
        "_own",
        "_parameters",
        "_rates",
        "_schedules",
        "_together",
        "optimizer",
        "remembers",
        "steps",
        "sums",
    )

    def __init__(
        self,
        optimizer: Optimizer,
        parameters: Mapping[str, Parameter],
        schedules: Sequence[Schedule],
        rates: Tensor | None,
        exact: bool,
    ) -> None:
        self.optimizer = optimizer
        self.steps = 0
        self.remembers = self.sums = False
        self._exact = exact
        self._counts: dict[Any, float] = {}  # the steps of each parameter; torch's own counters are written on demand
        self._kept: set[Parameter] = set()
        self._together: dict[Hashable, bool] = {}  # whether that gives the bits of each lane alone
        self._own = rates is not None or _is_known(optimizer)
        self._parameters = dict(parameters)
        self._schedules = schedules
        self._rates = rates

    def keep(self, names: Iterable[str]) -> None:
        """Make later steps allocate new storage for these parameters: rows have the old one."""
        self._kept.update(self._parameters[name] for name in names)

    @property
    def rated(self) -> bool:
        """Whether its learning rate may differ between lanes."""
        return self._own

    @property
    def remembers_cheaply(self) -> bool:
        return False

    @property
    def sums_cheaply(self) -> bool:
        return False

    def before(self, name: str) -> Tensor:
        raise NotStackable("a step compares the weights before and after")

    def forget(self) -> None:
        """Do nothing: nothing is remembered."""

    def total(self) -> float:
        raise NotStackable("a step sums the weights")

    def holds(self, name: str) -> bool:
        """Whether this optimizer has the parameter."""
        return name in self._parameters

    def step(self) -> None:
        """Take a step in all lanes: parameters without a gradient do not change."""
        self.steps += 1
        for schedule in self._schedules:
            self.optimizer.param_groups[schedule.group][schedule.option] = schedule.value(self.steps)
        if self._own:
            self._update()
            return
        for parameter in self._parameters.values():
            if parameter.grad is not None and parameter in self._kept:
                parameter.lanes = parameter.lanes.clone()  # type: ignore[attr-defined]
        try:
            self.optimizer.step()
        except KeyError as error:  # a parameter's state lacks an entry, because an option was off before
            raise NotStackable(f"a scheduled option needs `{error.args[0]}`") from error

    def step_in_place(self) -> None:
        self.step()

    def update_in_place(self) -> None:
        raise NotStackable("a step is captured as a CUDA graph")

    def state(self, name: str) -> Mapping[str, Any]:
        """The state of a parameter under torch's names; empty before its first step."""
        parameter = self._parameters[name]
        found: Mapping[str, Any] = self.optimizer.state.get(parameter, {})
        if parameter in self._counts:
            found["step"].fill_(self._counts[parameter])
        return found

    def load_state(self, state: Mapping[str, Mapping[str, Any]], steps: int) -> None:
        """Restore what `state` returned for each parameter, and the step count. Tensors are used without a copy."""
        for name, entries in state.items():
            parameter = self._parameters[name]
            self.optimizer.state[parameter] = dict(entries)
            self._counts.pop(parameter, None)
        self.steps = steps

    def assign_state(self, name: str, entry: str, value: Tensor) -> None:
        """Replace an existing entry of a parameter's state. The tensor is used without a copy."""
        self.optimizer.state[self._parameters[name]][entry] = value

    def advance(self, state: Mapping[str, Mapping[str, Tensor]], steps: int) -> None:
        """Set the state of some parameters after `steps` further steps, which other code has computed."""
        for name, entries in state.items():
            parameter = self._parameters[name]
            self.optimizer.state[parameter].update(entries)
            self._counts.pop(parameter, None)
        self.steps += steps

    def _update(self) -> None:
        update = update_of(self.optimizer)
        with torch.no_grad():
            for group in self.optimizer.param_groups:
                rate = group["lr"] if self._rates is None else self._rates
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._update_one(update, group, parameter, rate)

    def _update_one(self, update: Update, options: Mapping[str, Any], parameter: Any, rate: Rate) -> None:
        weight = parameter.lanes.clone() if parameter in self._kept else parameter.lanes
        gradient = _lanes_of(parameter.grad)
        t, entries = self._entries(update, options, parameter)
        if not self._exact or self._fits(update, options, weight, gradient, entries, rate):
            update_together(update, options, weight, gradient, entries, t, rate)
        else:
            update_each(update, options, weight, gradient, entries, t, rate)
        parameter.lanes = weight

    def _entries(self, update: Update, options: Mapping[str, Any], parameter: Any) -> tuple[float, list[Tensor]]:
        """The number of the step and the state of a parameter, which its first step makes."""
        state = self.optimizer.state[parameter]
        names = ADAM if update is adam else MOMENTUM if options["momentum"] != 0 else ()
        t = 1.0
        if update is adam:
            counter = state.get("step")
            if counter is None:
                counter = state["step"] = torch.zeros((), dtype=torch.get_default_dtype())
            t = self._counts[parameter] = self._counts.get(parameter, float(counter)) + 1
        elif names and state.get(names[0]) is not None:
            t = 2.0  # any but the first
        found = []
        for name in names:
            if state.get(name) is None:
                state[name] = LaneTensor(torch.zeros_like(parameter.lanes))
            found.append(_lanes_of(state[name]))
        return t, found

    def _fits(
        self,
        update: Update,
        options: Mapping[str, Any],
        weight: Tensor,
        gradient: Tensor,
        entries: Sequence[Tensor],
        rate: Rate,
    ) -> bool:
        flags = [options[name] == 0 for name in ("weight_decay", "momentum") if name in options]
        key = (weight.shape, weight.stride(), gradient.stride(), weight.dtype, *flags)
        if key not in self._together:
            self._together[key] = gives_bits(update, options, weight, gradient, entries, rate)
        return self._together[key]


@dataclass(slots=True)
class _Number:
    """A parameter of one number, in the lane whose rate is computed."""

    value: float = 0.0

    def item(self) -> float:
        return self.value


def rate_of_each(plan: Plan, state: State, optimizer: OptimizerPlan, group: int, option: Any) -> Schedule:
    """A learning rate that reads parameters: float64 `(lanes,)` at each step.

    Raises:
        RunError: the expression has a fault; also when it is computed.
    """
    numbers = {name: _Number() for element in elements(option) for name in getattr(element, "reads", ())}
    one = at_step(plan, replace(state, parameters=cast(Any, numbers)), optimizer, "lr", option)

    def at(t: int) -> Tensor:
        columns = [_lanes_of(state.parameters[name]).reshape(-1).tolist() for name in numbers]
        known: dict[tuple[float, ...], float] = {}
        found = []
        for values in zip(*columns, strict=True):
            if values not in known:
                for number, value in zip(numbers.values(), values, strict=True):
                    number.value = value
                known[values] = one(t)
            found.append(known[values])
        return torch.tensor(found, dtype=torch.float64)

    return Schedule(group, "lr", at)


def _is_known(optimizer: Optimizer) -> bool:
    """Whether it is SGD, Adam or AdamW, with options that their updates read."""
    kinds = (torch.optim.SGD, torch.optim.Adam)  # AdamW is an Adam
    return isinstance(optimizer, kinds) and all(map(is_plain, optimizer.param_groups))


def _lanes_of(value: Tensor) -> Tensor:
    if isinstance(value, LaneTensor):
        return value.lanes
    raise NotStackable("the state of an optimizer that all runs share")
