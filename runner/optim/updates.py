"""The updates of SGD, Adam and AdamW for many small tensors at once, in the bits of `torch.optim`'s own loop.

`torch.optim` updates one parameter after another on the CPU, and spends most of a small step in Python. The functions
here do the same operations in the same order for each parameter, through `torch._foreach_*`, and give new weights as
new tensors. Where an update has many operations, the parameters of a group are joined into one tensor for it: each
element takes the same operations wherever it lies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import SGD, Adam, AdamW, Optimizer

MOST_BYTES = 1 << 20
"""Bytes of a group's parameters up to which they are updated together; larger ones stay in the cache one by one."""

ALIGNMENT = 64
"""Bytes at whose multiples tensors begin, joined or not: what torch computes may depend on it in the last place."""

Tensors = tuple[Tensor, ...] | list[Tensor]
State = dict[str, Tensors]
"""What an optimizer keeps for its parameters, by torch's names, laid out as they are."""


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


@dataclass(frozen=True, slots=True)
class Update:
    """How the optimizers of one class update a group."""

    update: Callable[[Mapping[str, Any], Tensors, Tensors, State, int], Tensors]
    needs: Callable[[Mapping[str, Any]], tuple[str, ...]]  # the tensors that it keeps for each parameter
    joins: bool  # whether it has so many operations that joining the parameters for it is worth its price


_ADAM = Update(_adam, lambda options: ("exp_avg", "exp_avg_sq"), joins=True)
_UPDATES: Mapping[type[Optimizer], Update] = {
    SGD: Update(_sgd, lambda options: ("momentum_buffer",) if options["momentum"] != 0 else (), joins=False),
    Adam: _ADAM,
    AdamW: _ADAM,
}

_TORCH_ALONE = ("amsgrad", "foreach", "fused", "capturable", "differentiable")
"""Options that leave the update to torch where they are set."""


class Apart:
    """The tensors of a group one by one."""

    __slots__ = ()
    stays = False

    def join(self, tensors: Sequence[Tensor]) -> Tensors:
        return list(tensors)

    gather = join

    def split(self, joined: Tensors) -> Tensors:
        return joined


class Joined:
    """The tensors of a group, contiguous and of one dtype, as one.

    They lie one after another, each aligned as a tensor of its own would be, and between them what stays finite. Where
    they may be written, they `stay` in the memory where they are: taking them apart costs as much as a whole operation.
    """

    __slots__ = ("_gathered", "_parts", "_places")
    stays = True

    def __init__(self, like: Sequence[Tensor]) -> None:
        self._places: list[tuple[Sequence[int], Sequence[int], int]] = []  # shape, strides, offset
        end = 0
        for tensor in like:
            self._places.append((tensor.shape, tensor.stride(), end))
            end += tensor.numel() + -tensor.numel() % (ALIGNMENT // tensor.itemsize)
        self._gathered = [like[0].new_ones(end)]
        self._parts = self.split(self._gathered)

    def join(self, tensors: Sequence[Tensor]) -> Tensors:
        """The tensors as one."""
        return [self.gather(tensors)[0].clone()]

    def gather(self, tensors: Sequence[Tensor]) -> Tensors:
        """The same in memory that the next call writes again."""
        torch._foreach_copy_(self._parts, list(tensors))
        return self._gathered

    def split(self, joined: Tensors) -> Tensors:
        """The tensors that lie in one."""
        whole = joined[0]
        return [whole.as_strided(shape, strides, offset) for shape, strides, offset in self._places]


class GroupUpdate:
    """The update of one parameter group, as long as all its parameters have gradients.

    `t` counts the steps taken. torch counts them in a tensor for each parameter; these are brought up to date by
    `settle`, not in every step.
    """

    __slots__ = (
        "_before",
        "_counters",
        "_layout",
        "_options",
        "_parameters",
        "_pointers",
        "_state",
        "_update",
        "_weights",
        "settled",
        "t",
    )

    def __init__(
        self, options: Mapping[str, Any], update: Update, states: Sequence[dict[str, Tensor]], counters: list[Tensor]
    ) -> None:
        self._options = options
        self._parameters: list[Parameter] = options["params"]
        self._update = update.update
        self._layout = Joined(self._parameters) if update.joins and _joinable(self._parameters) else Apart()
        self._state: State = {}
        for name in update.needs(options):
            joined = self._state[name] = self._layout.join([state[name] for state in states])
            for state, part in zip(states, self._layout.split(joined), strict=True):
                state[name] = part
        self._counters = counters
        self._weights: Tensors = ()  # as they are updated; empty before the first step
        self._pointers: list[int] = []  # of the parameters that they are
        self._before: Tensors = ()
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

    def step(self, gradients: Sequence[Tensor], preserves: bool, remembers: bool) -> None:
        """Give each parameter its next weight.

        Args:
            preserves: what shares the storage of a weight stays as it is.
            remembers: `before` will be asked for.
        """
        self.t += 1
        layout = self._layout
        if [parameter.data_ptr() for parameter in self._parameters] != self._pointers:  # new, or of somebody else
            self._weights = layout.join([parameter.detach() for parameter in self._parameters])
            if layout.stays and not preserves:
                self._put(layout.split(self._weights))
        weights = self._weights
        updated = self._update(self._options, weights, layout.gather(gradients), self._state, self.t)
        if layout.stays and not preserves:
            self._before = [weight.clone() for weight in weights] if remembers else ()
            torch._foreach_copy_(weights, updated)
        else:
            self._before = weights if remembers else ()
            self._weights = updated
            self._put(layout.split(updated))

    def _put(self, parts: Tensors) -> None:
        for parameter, part in zip(self._parameters, parts, strict=True):
            parameter.data = part
        self._pointers = [part.data_ptr() for part in parts]

    def before(self) -> dict[Parameter, Tensor]:
        """What weights were before the last step, if that was here and `remembers`."""
        if not self._before:
            return {}
        return dict(zip(self._parameters, self._layout.split(self._before), strict=True))

    def forget(self) -> None:
        """Let go of what weights were."""
        self._before = ()

    def weights(self) -> Tensors:
        """The weights after its last step, as few tensors as hold them; parameters before the first."""
        return self._weights or list(self._parameters)

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


def joins(optimizer: Optimizer) -> bool:
    """Whether groups of an optimizer that are updated as wholes are joined for it."""
    kind = _kind(optimizer)
    return kind is not None and _UPDATES[kind].joins


def group_updates(optimizer: Optimizer) -> list[GroupUpdate] | None:
    """The updates of an optimizer's groups from its state on; None before torch's own first steps have made it all."""
    kind = _kind(optimizer)
    assert kind is not None
    update = _UPDATES[kind]
    found = []
    for group in optimizer.param_groups:
        states = [optimizer.state.get(parameter, {}) for parameter in group["params"]]
        if not all(isinstance(state.get(name), Tensor) for state in states for name in update.needs(group)):
            return None
        counters = [state["step"] for state in states if "step" in state]
        if any(counter != counters[0] for counter in counters):
            return None
        found.append(GroupUpdate(group, update, states, counters))
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


def _joinable(parameters: Sequence[Parameter]) -> bool:
    first = parameters[0]
    return len(parameters) > 1 and all(
        parameter.dtype == first.dtype and parameter.is_contiguous() for parameter in parameters
    )
