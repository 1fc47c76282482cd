"""The optimizers of lanes: `torch.optim`'s own classes over tensors of lanes, or a learning rate for each lane."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from runner.engine.lanes.choosing import Choosing
from runner.engine.lanes.tensor import LaneTensor, NotStackable
from runner.engine.state import Schedule

RATED = ("sgd", "adam", "adamw")
"""Optimizers whose learning rate may differ between lanes."""


class LaneStepper:
    """One optimizer of all lanes; it has the place of a `Stepper`.

    Args:
        optimizer: its class over the parameters.
        parameters: its parameters by name.
        schedules: the hyperparameters that depend on `t`, the same in each lane.
        rates: the learning rate of each lane: float64 `(lanes,)`; None if they are all equal.
    """

    __slots__ = ("_parameters", "_rates", "_schedules", "choosing", "optimizer", "remembers", "steps", "sums")

    def __init__(
        self,
        optimizer: Optimizer,
        parameters: Mapping[str, Parameter],
        schedules: Sequence[Schedule],
        rates: Tensor | None,
        choosing: Choosing,
    ) -> None:
        self.optimizer = optimizer
        self.steps = 0
        self.remembers = self.sums = False
        self.choosing = choosing
        self._parameters = dict(parameters)
        self._schedules = schedules
        self._rates = rates

    def keep(self, names: Iterable[str]) -> None:
        """Do nothing: each step allocates new storage for all parameters."""

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
        if self._rates is not None:
            self._step_by_rates(self._rates)
            return
        for parameter in self._parameters.values():
            if parameter.grad is not None:  # rows have the old memory
                parameter.lanes = parameter.lanes.clone()  # type: ignore[attr-defined]
        try:
            self.optimizer.step()
        except KeyError as error:  # a parameter's state lacks an entry, because an option was off before
            raise NotStackable(f"a scheduled option needs `{error.args[0]}`") from error

    def step_in_place(self) -> None:
        self.step()

    def update_in_place(self) -> None:
        raise NotStackable("a step is captured as a graph")

    def state(self, name: str) -> Mapping[str, Any]:
        """The state of a parameter under torch's names; empty before its first step."""
        found: Mapping[str, Any] = self.optimizer.state.get(self._parameters[name], {})
        return found

    def load_state(self, state: Mapping[str, Mapping[str, Any]], steps: int) -> None:
        raise NotStackable("a state is restored")

    def assign_state(self, name: str, entry: str, value: Tensor) -> None:
        """Replace an existing entry of a parameter's state. The tensor is used without a copy."""
        self.optimizer.state[self._parameters[name]][entry] = value

    def advance(self, state: Mapping[str, Mapping[str, Tensor]], steps: int) -> None:
        raise NotStackable("a region of steps is computed")

    def _step_by_rates(self, rates: Tensor) -> None:
        take = _sgd if isinstance(self.optimizer, torch.optim.SGD) else _adam
        with torch.no_grad():
            for group in self.optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        state = self.optimizer.state[parameter]
                        new = take(group, parameter.detach(), parameter.grad, state, rates, self.choosing)
                        parameter.lanes = new.lanes


def _sgd(
    group: Mapping[str, Any],
    weight: Tensor,
    gradient: Tensor,
    state: dict[str, Tensor],
    rates: Tensor,
    choosing: Choosing,
) -> Any:
    """The update in the documentation of `torch.optim.SGD`."""
    if group["maximize"]:
        gradient = -gradient
    if group["weight_decay"] != 0:
        gradient = gradient.add(weight, alpha=group["weight_decay"])
    momentum = group["momentum"]
    if momentum != 0:
        buffer = state.get("momentum_buffer")
        if buffer is None:
            buffer = gradient.clone()
        else:
            buffer = buffer.mul(momentum).add(gradient, alpha=1 - group["dampening"])
        state["momentum_buffer"] = buffer
        gradient = gradient.add(buffer, alpha=momentum) if group["nesterov"] else buffer
    return choosing.computed(_add_scaled, _add_scaled_together, (weight, gradient, LaneTensor(-rates)), {})


def _adam(
    group: Mapping[str, Any],
    weight: Tensor,
    gradient: Tensor,
    state: dict[str, Tensor],
    rates: Tensor,
    choosing: Choosing,
) -> Any:
    """The update in the documentation of `torch.optim.Adam` and `AdamW`, without `amsgrad`."""
    if not state:
        state["step"] = torch.zeros((), dtype=torch.get_default_dtype())
        state["exp_avg"] = torch.zeros_like(weight, memory_format=torch.preserve_format)
        state["exp_avg_sq"] = torch.zeros_like(weight, memory_format=torch.preserve_format)
    state["step"] = state["step"] + 1
    t, (beta1, beta2), decay = float(state["step"]), group["betas"], group["weight_decay"]
    if group["maximize"]:
        gradient = -gradient
    if decay != 0:
        if group["decoupled_weight_decay"]:
            kept = LaneTensor((1 - rates * decay).to(weight.dtype))
            weight = weight.mul(kept)
        else:
            gradient = gradient.add(weight, alpha=decay)
    state["exp_avg"] = average = state["exp_avg"].lerp(gradient, 1 - beta1)
    state["exp_avg_sq"] = square = state["exp_avg_sq"].mul(beta2).addcmul(gradient, gradient, value=1 - beta2)
    denominator = square.sqrt().div_((1 - beta2**t) ** 0.5).add_(group["eps"])
    rate = LaneTensor(-(rates / (1 - beta1**t)))
    return choosing.computed(_add_quotient, _add_quotient_together, (weight, average, denominator, rate), {})


def _add_scaled(first: Tensor, second: Tensor, factor: Tensor) -> Tensor:
    return torch.add(first, second, alpha=factor.item())


def _add_scaled_together(operation: Any, args: tuple[Any, ...], options: Mapping[str, Any]) -> LaneTensor:
    first, second, factor = (value.lanes if isinstance(value, LaneTensor) else value for value in args)
    return LaneTensor(torch.addcmul(first, second, _along(factor, first).expand_as(first)))


def _add_quotient(first: Tensor, above: Tensor, below: Tensor, factor: Tensor) -> Tensor:
    return torch.addcdiv(first, above, below, value=factor.item())


def _add_quotient_together(operation: Any, args: tuple[Any, ...], options: Mapping[str, Any]) -> LaneTensor:
    first, above, below, factor = (value.lanes if isinstance(value, LaneTensor) else value for value in args)
    return LaneTensor(torch.addcdiv(first, _along(factor, first) * above, below))


def _along(factor: Tensor, lanes: Tensor) -> Tensor:
    """A number of each lane `(lanes,)` in the dtype and rank of a tensor of lanes."""
    return factor.to(lanes.dtype).reshape(-1, *[1] * (lanes.dim() - 1))
