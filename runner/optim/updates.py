"""The updates of SGD, Adam and AdamW for many small tensors at once, in the bits of `torch.optim`'s own loop.

`torch.optim` updates one parameter after another on the CPU, and spends most of a small step in Python. The functions
here do the same operations in the same order for each parameter, through `torch._foreach_*`; new weights are new
tensors, so that whoever holds the old ones may keep them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import SGD, Adam, AdamW, Optimizer

MOST_BYTES = 1 << 20
"""Bytes of a group's parameters up to which they are updated together; larger ones stay in the cache one by one."""

Tensors = tuple[Tensor, ...] | list[Tensor]
State = dict[str, list[Tensor]]
"""What an optimizer keeps, by torch's names, a tensor for each parameter."""


def _sgd(options: Mapping[str, Any], weights: Tensors, gradients: Tensors, state: State, t: int) -> Tensors:
    """`torch.optim.SGD`, as its documentation gives it; the momentum buffers exist already."""
    if options["maximize"]:
        gradients = torch._foreach_neg(gradients)
    if options["weight_decay"] != 0:
        gradients = torch._foreach_add(gradients, weights, alpha=options["weight_decay"])
    momentum = options["momentum"]
    if momentum != 0:
        buffers = state["momentum_buffer"]
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, gradients, alpha=1 - options["dampening"])
        gradients = torch._foreach_add(gradients, buffers, alpha=momentum) if options["nesterov"] else buffers
    updated: Tensors = torch._foreach_add(weights, gradients, alpha=-options["lr"])
    return updated


def _adam(options: Mapping[str, Any], weights: Tensors, gradients: Tensors, state: State, t: int) -> Tensors:
    """`torch.optim.Adam` and `AdamW` without `amsgrad`, as their documentation gives them."""
    lr, (beta1, beta2), decay = options["lr"], options["betas"], options["weight_decay"]
    averages, squares = state["exp_avg"], state["exp_avg_sq"]
    if options["maximize"]:
        gradients = torch._foreach_neg(gradients)
    if decay != 0:
        if options["decoupled_weight_decay"]:
            weights = torch._foreach_mul(weights, 1 - lr * decay)
        else:
            gradients = torch._foreach_add(gradients, weights, alpha=decay)
    torch._foreach_lerp_(averages, gradients, 1 - beta1)
    torch._foreach_mul_(squares, beta2)
    torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
    denominators = torch._foreach_sqrt(squares)
    torch._foreach_div_(denominators, (1 - beta2**t) ** 0.5)
    torch._foreach_add_(denominators, options["eps"])
    updated: Tensors = torch._foreach_addcdiv(weights, averages, denominators, -(lr / (1 - beta1**t)))
    return updated


_UPDATES: Mapping[type[Optimizer], tuple[Callable[..., Tensors], Callable[[Mapping[str, Any]], tuple[str, ...]]]] = {
    SGD: (_sgd, lambda options: ("momentum_buffer",) if options["momentum"] != 0 else ()),
    Adam: (_adam, lambda options: ("exp_avg", "exp_avg_sq")),
    AdamW: (_adam, lambda options: ("exp_avg", "exp_avg_sq")),
}
"""The update of each class, and the tensors that it needs for every parameter."""

_TORCH_ALONE = ("amsgrad", "foreach", "fused", "capturable", "differentiable")
"""Options that leave the update to torch where they are set."""


class GroupUpdate:
    """The update of one parameter group, as long as all its parameters have gradients.

    `t` counts the steps taken. torch counts them in a tensor for each parameter; these are brought up to date by
    `settle`, not in every step.
    """

    __slots__ = ("_counters", "_options", "_parameters", "_state", "_update", "_weights", "settled", "t")

    def __init__(
        self, options: Mapping[str, Any], update: Callable[..., Tensors], state: State, counters: list[Tensor]
    ) -> None:
        self._options = options
        self._parameters: list[Parameter] = options["params"]
        self._update = update
        self._state = state
        self._counters = counters
        self._weights: Tensors = ()
        self.t = self.settled = int(counters[0]) if counters else 0

    def gradients(self) -> list[Tensor] | None:
        """The gradients of its parameters; None where one has none."""
        found = []
        for parameter in self._parameters:
            gradient = parameter.grad
            if gradient is None:
                return None
            found.append(gradient)
        return found

    def step(self, gradients: Tensors) -> None:
        """Give each parameter its next weight, a new tensor."""
        self.t += 1
        parameters, weights = self._parameters, self._weights
        for parameter, weight in zip(parameters, weights, strict=False):
            if weight.data_ptr() != parameter.data_ptr():  # somebody else gave it another weight
                weights = ()
                break
        if not weights:
            weights = [parameter.detach() for parameter in parameters]
        self._weights = weights = self._update(self._options, weights, gradients, self._state, self.t)
        for parameter, weight in zip(parameters, weights, strict=True):
            parameter.data = weight

    def settle(self) -> None:
        """Bring torch's own counts of steps up to date."""
        if self._counters and self.t > self.settled:
            torch._foreach_add_(self._counters, self.t - self.settled)
        self.settled = self.t


def updates_together(optimizer: Optimizer) -> bool:
    """Whether an optimizer is one whose groups can be updated as wholes: its class, options and parameters allow it.

    They do not for parameters of half precision, complex, sparse, or many and large, on other devices than the CPU,
    and for options that ask for another implementation.
    """
    return _kind(optimizer) is not None and all(
        not any(group.get(option) for option in _TORCH_ALONE)
        and all(map(_is_plain, group["params"]))
        and (len(group["params"]) == 1 or sum(parameter.nbytes for parameter in group["params"]) <= MOST_BYTES)
        for group in optimizer.param_groups
    )


def group_updates(optimizer: Optimizer) -> list[GroupUpdate] | None:
    """The updates of an optimizer's groups from its state on; None before torch's own first steps have made it all."""
    kind = _kind(optimizer)
    assert kind is not None
    update, needed = _UPDATES[kind]
    found = []
    for group in optimizer.param_groups:
        states = [optimizer.state.get(parameter, {}) for parameter in group["params"]]
        names = needed(group)
        if not all(isinstance(state.get(name), Tensor) for state in states for name in names):
            return None
        counters = [state["step"] for state in states if "step" in state]
        if any(counter != counters[0] for counter in counters):
            return None
        found.append(GroupUpdate(group, update, {name: [s[name] for s in states] for name in names}, counters))
    return found


def _kind(optimizer: Optimizer) -> type[Optimizer] | None:
    """The class of torch that an optimizer is, or is a plain wrapping of."""
    return next((kind for kind in type(optimizer).__mro__[:2] if kind in _UPDATES), None)


def _is_plain(parameter: Parameter) -> bool:
    """Whether `torch._foreach_*` rounds as torch's own loop does; in half precision it does not."""
    return (
        parameter.device.type == "cpu"
        and parameter.dtype in (torch.float32, torch.float64)
        and parameter.layout == torch.strided
    )
