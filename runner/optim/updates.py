"""Updates of SGD, Adam and AdamW for all parameters of a group, bit for bit as `torch.optim`'s own loop.

On the CPU, `torch.optim` updates one parameter after another. It spends most of a small step in Python, and most of a
large one waiting for memory. The functions here do the same operations in the same order for each element. They write
new tensors for all parameters at once, one tensor that joins all parameters, or one piece of a parameter at a time.
Each method continues from torch's state, and keeps the state as `torch.optim` would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import SGD, Adam, AdamW, Optimizer

MOST_BYTES = 1 << 20
"""Bytes of a group up to which its parameters are updated together; larger groups use the cache better one by one."""

SMALL_BYTES = 1 << 16
"""Bytes of a parameter up to which it is updated together with others even in a large group."""

ADAM = ("exp_avg", "exp_avg_sq")
"""The state entries of Adam for a parameter, besides the step count."""

_SUPPORTED = frozenset(
    {"params", "lr", "maximize", "weight_decay"}
    | {"momentum", "dampening", "nesterov"}  # of SGD
    | {"betas", "eps", "decoupled_weight_decay"}  # of Adam
)
"""The options that the functions here read; if any other option is set, torch does the update."""

ALIGNMENT = 64
"""Alignment in bytes of tensors and of parts of a joined tensor: torch's results may depend on it in the last place."""

PIECE = 1 << 16
"""Elements of a piece for each thread: few enough that the piece, its state and intermediates stay in the cache."""

Key = TypeVar("Key")
Tensors = tuple[Tensor, ...] | list[Tensor]
Options = Mapping[str, Any]
Replace = Callable[[Options, Tensors, Tensors, Sequence[Tensors], bool], Tensors]
"""Maps `(options, weights, gradients, entries, out_of_place)` to the next weights, which are new tensors or written in
place; writes the state `entries` in place."""

Write = Callable[[Options, Tensor, Tensor, Sequence[Tensor], int, bool], Tensor]
"""As `Replace` for one tensor, with a flag for whether the new weights are a new tensor, or written in place."""


def sgd(
    options: Options, weights: Tensors, gradients: Tensors, entries: Sequence[Tensors], out_of_place: bool
) -> Tensors:
    """The next weights as in the documentation of `torch.optim.SGD`; `entries` are the momentum buffers, if any."""
    if options["maximize"]:
        gradients = torch._foreach_neg(gradients)
    if options["weight_decay"] != 0:
        gradients = torch._foreach_add(gradients, weights, alpha=options["weight_decay"])
    momentum = options["momentum"]
    if momentum != 0:
        (buffers,) = entries
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, gradients, alpha=1 - options["dampening"])
        gradients = torch._foreach_add(gradients, buffers, alpha=momentum) if options["nesterov"] else buffers
    if not out_of_place:
        torch._foreach_add_(weights, gradients, alpha=-options["lr"])
        return weights
    updated: Tensors = torch._foreach_add(weights, gradients, alpha=-options["lr"])
    return updated


def adam(
    options: Options, weight: Tensor, gradient: Tensor, entries: Sequence[Tensor], t: int, out_of_place: bool
) -> Tensor:
    """The new weight as in the documentation of `torch.optim.Adam` and `AdamW`, without `amsgrad`.

    Args:
        out_of_place: whether the result is a new tensor; otherwise `weight` is written in place.
    """
    lr, (beta1, beta2), decay = options["lr"], options["betas"], options["weight_decay"]
    average, square = entries
    if options["maximize"]:
        gradient = -gradient
    if decay != 0:
        if options["decoupled_weight_decay"]:
            weight = weight.mul(1 - lr * decay) if out_of_place else weight.mul_(1 - lr * decay)
        else:
            gradient = gradient.add(weight, alpha=decay)
    average.lerp_(gradient, 1 - beta1)
    square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    denominator = square.sqrt().div_((1 - beta2**t) ** 0.5).add_(options["eps"])
    rate = -(lr / (1 - beta1**t))
    if out_of_place:
        return torch.addcdiv(weight, average, denominator, value=rate)
    return weight.addcdiv_(average, denominator, value=rate)


class Method(Protocol):
    """A method of updating some parameters of a group."""

    def step(self, gradients: list[Tensor], t: int, *, remembers: bool, sums: bool) -> None:
        """Set each parameter to its next weight.

        Args:
            t: the number of the step, from 1.
            remembers: whether `before` will be called.
            sums: whether `total` will be called.
        """
        ...

    def total(self) -> float:
        """The sum of the weights after a step, and of any padding between them; finite only if all weights are."""
        ...

    def before(self) -> Sequence[Tensor]:
        """The weight of each parameter before the last step; empty before the first."""
        ...

    def forget(self) -> None:
        """Release the weights from before the last step."""
        ...


@dataclass(frozen=True, slots=True)
class Subgroup:
    """Parameters of a group that are updated by one method, with the group's options."""

    method: type[Method]
    options: Options
    parameters: list[Parameter]
    preserved: bool  # whether steps must allocate new storage, because other tensors may share that of the weights


class Replacing:
    """Updates all parameters at once, each a tensor of its own: a new one, or in place if steps may write there."""

    __slots__ = ("_before", "_entries", "_options", "_parameters", "_preserved", "_replace", "_weights")

    def __init__(self, replace: Replace, subgroup: Subgroup, entries: Sequence[Tensors]) -> None:
        self._replace = replace
        self._options = subgroup.options
        self._parameters = subgroup.parameters
        self._preserved = subgroup.preserved
        self._entries = entries
        self._weights: Tensors = ()
        self._before: Tensors = ()

    def step(self, gradients: list[Tensor], t: int, *, remembers: bool, sums: bool) -> None:
        if not self._preserved:
            self._before = [parameter.detach().clone() for parameter in self._parameters] if remembers else ()
            with torch.no_grad():
                self._replace(self._options, self._parameters, gradients, self._entries, False)  # type: ignore[arg-type]
            return
        parameters, weights = self._parameters, self._weights
        for parameter, weight in zip(parameters, weights, strict=False):
            if weight.data_ptr() != parameter.data_ptr():  # other code has replaced the weight
                weights = ()
                break
        if not weights:
            weights = [parameter.detach() for parameter in parameters]
        self._before = weights if remembers else ()
        self._weights = updated = self._replace(self._options, weights, gradients, self._entries, True)
        for parameter, weight in zip(parameters, updated, strict=True):
            parameter.data = weight

    def total(self) -> float:
        return total(self._parameters)

    def before(self) -> Sequence[Tensor]:
        return self._before

    def forget(self) -> None:
        self._before = ()


class Joined:
    """Updates contiguous parameters of one dtype as one joined tensor.

    The parameters follow each other in it, each aligned as a separate tensor would be. If steps may write in place,
    the parameters stay parts of it: splitting it costs as much as a whole operation.
    """

    __slots__ = (
        "_before",
        "_entries",
        "_gathered",
        "_options",
        "_parameters",
        "_parts",
        "_places",
        "_pointers",
        "_preserved",
        "_weights",
        "_write",
    )

    def __init__(
        self, write: Write, subgroup: Subgroup, states: Sequence[dict[str, Tensor]], names: Sequence[str]
    ) -> None:
        self._write = write
        self._options = subgroup.options
        self._parameters = subgroup.parameters
        self._preserved = subgroup.preserved
        self._places: list[tuple[Sequence[int], Sequence[int], int]] = []  # shape, strides, offset
        end = 0
        for parameter in self._parameters:
            self._places.append((parameter.shape, parameter.stride(), end))
            end += parameter.numel() + -parameter.numel() % (ALIGNMENT // parameter.itemsize)
        self._gathered: Tensor = self._parameters[0].new_ones(end)  # the padding between the parameters stays finite
        self._parts = self._split(self._gathered)
        self._entries: list[Tensor] = []
        for name in names:
            joined = self._gather([state[name] for state in states]).clone()
            self._entries.append(joined)
            for state, part in zip(states, self._split(joined), strict=True):
                state[name] = part
        self._weights: Tensor | None = None
        self._pointers: list[int] = []  # data pointers of the parameters in `_weights`
        self._before: Tensor | None = None

    def step(self, gradients: list[Tensor], t: int, *, remembers: bool, sums: bool) -> None:
        weights = self._weights
        if weights is None or [parameter.data_ptr() for parameter in self._parameters] != self._pointers:
            weights = self._gather([parameter.detach() for parameter in self._parameters]).clone()
            self._put(weights)
        before = weights if self._preserved or not remembers else weights.clone()
        self._before = before if remembers else None
        after = self._write(self._options, weights, self._gather(gradients), self._entries, t, self._preserved)
        if self._preserved:
            self._put(after)

    def total(self) -> float:
        return total(self._parameters if self._weights is None else [self._weights])

    def before(self) -> Sequence[Tensor]:
        return [] if self._before is None else self._split(self._before)

    def forget(self) -> None:
        self._before = None

    def _gather(self, tensors: list[Tensor]) -> Tensor:
        """The tensors as one joined tensor, whose memory the next call overwrites."""
        torch._foreach_copy_(self._parts, tensors)
        return self._gathered

    def _split(self, joined: Tensor) -> list[Tensor]:
        return [joined.as_strided(shape, strides, offset) for shape, strides, offset in self._places]

    def _put(self, weights: Tensor) -> None:
        """Make the parameters parts of a joined tensor."""
        self._weights = weights
        parts = self._split(weights)
        for parameter, part in zip(self._parameters, parts, strict=True):
            parameter.data = part
        self._pointers = [part.data_ptr() for part in parts]


class Pieces:
    """Updates large contiguous parameters piece by piece: all operations on one piece, then on the next."""

    __slots__ = ("_before", "_entries", "_options", "_parameters", "_preserved", "_size", "_total", "_write")

    def __init__(
        self, write: Write, subgroup: Subgroup, states: Sequence[dict[str, Tensor]], names: Sequence[str]
    ) -> None:
        self._write = write
        self._options = subgroup.options
        self._parameters = subgroup.parameters
        self._preserved = subgroup.preserved
        self._total = 0.0
        self._size = PIECE * torch.get_num_threads()
        self._entries = [list(zip(*[self._pieces(state[name]) for name in names], strict=True)) for state in states]
        self._before: list[Tensor] = []

    def step(self, gradients: list[Tensor], t: int, *, remembers: bool, sums: bool) -> None:
        parameters = self._parameters
        weights = [parameter.detach() for parameter in parameters]
        before, after = weights, weights
        if self._preserved:
            after = [weight.clone() for weight in weights]
            for parameter, weight in zip(parameters, after, strict=True):
                parameter.data = weight
        elif remembers:
            before = [weight.clone() for weight in weights]
        self._before = before if remembers else []
        write, options, found = self._write, self._options, 0.0
        for weight, gradient, entries in zip(after, gradients, self._entries, strict=True):
            for piece, gradient_piece, entry_pieces in zip(
                self._pieces(weight), self._pieces(gradient), entries, strict=True
            ):
                write(options, piece, gradient_piece, entry_pieces, t, False)
                if sums:
                    found += piece.sum().item()
        self._total = found

    def total(self) -> float:
        return self._total

    def before(self) -> Sequence[Tensor]:
        return self._before

    def forget(self) -> None:
        self._before = []

    def _pieces(self, tensor: Tensor) -> tuple[Tensor, ...]:
        return torch.split(tensor.reshape(-1), self._size)


class Update:
    """The update of some parameters of a group, while all of them have gradients.

    `t` counts the finished steps. torch counts them in a tensor for each parameter; `sync_counters` updates these
    tensors, rather than every step.
    """

    __slots__ = ("_counters", "_parameters", "method", "synced", "t")

    def __init__(self, parameters: list[Parameter], method: Method, counters: list[Tensor]) -> None:
        self.method = method
        self._parameters = parameters
        self._counters = counters
        self.t = self.synced = int(counters[0]) if counters else 0

    def gradients(self) -> list[Tensor] | None:
        """The gradients of the parameters; None if one has no gradient."""
        found = []
        for parameter in self._parameters:
            gradient = parameter.grad
            if gradient is None:
                return None
            found.append(gradient)
        return found

    def step(self, gradients: list[Tensor], *, remembers: bool, sums: bool) -> None:
        """Set each parameter to its next weight; see `Method.step`."""
        self.t += 1
        self.method.step(gradients, self.t, remembers=remembers, sums=sums)

    def before(self) -> dict[Parameter, Tensor]:
        """The weights before the last step, if this update took and remembered it."""
        return dict(zip(self._parameters, self.method.before(), strict=False))

    def sync_counters(self) -> None:
        """Update torch's own step counts."""
        if self._counters and self.t > self.synced:
            torch._foreach_add_(self._counters, self.t - self.synced)
        self.synced = self.t


def total(tensors: Iterable[Tensor]) -> float:
    """The sum of all elements: finite only if all of them are, though it may overflow even then."""
    return sum(tensor.detach().sum().item() for tensor in tensors)


def subgroups(optimizer: Optimizer, preserved: Set[Parameter] = frozenset()) -> list[Subgroup] | None:
    """The parameters of an optimizer by update method; None if torch itself has to update some of them.

    That is so for other classes than SGD, Adam and AdamW, and for options that select another implementation. It is
    so for parameters that are sparse, complex, in half precision or not on the CPU. Under Adam it is so for
    parameters that are not contiguous, and under SGD for groups of several parameters and more than `MOST_BYTES`.

    Args:
        preserved: parameters whose replaced weights stay in use. They are not joined with the others, because a
            reference to a part of a joined tensor keeps the whole tensor in memory.
    """
    kind, found = _kind(optimizer), []
    for group in optimizer.param_groups:
        in_group = None if kind is None else _subgroups(kind, group, preserved)
        if in_group is None:
            return None
        found += in_group
    return found


def begin_updates(optimizer: Optimizer, subgroups: Sequence[Subgroup]) -> list[Update] | None:
    """The updates of an optimizer's parameters, starting from its current state.

    None if torch's own step has to make some of the state first, or if the step counts of the parameters differ.
    """
    found = []
    for subgroup in subgroups:
        states = [optimizer.state.get(parameter, {}) for parameter in subgroup.parameters]
        momentum = subgroup.method is Replacing and subgroup.options["momentum"] != 0
        names = ("momentum_buffer",) if momentum else () if subgroup.method is Replacing else ADAM
        if not all(isinstance(state.get(name), Tensor) for state in states for name in names):
            return None
        counters = [state["step"] for state in states if "step" in state]
        if any(counter != counters[0] for counter in counters) or any(not float(t).is_integer() for t in counters[:1]):
            return None
        if subgroup.method is Replacing:
            made: Method = Replacing(sgd, subgroup, [[state[name] for state in states] for name in names])
        else:
            made = (Joined if subgroup.method is Joined else Pieces)(adam, subgroup, states, names)
        found.append(Update(subgroup.parameters, made, counters))
    return found


def _kind(optimizer: Optimizer) -> type[Optimizer] | None:
    """SGD, Adam or AdamW, if it is the optimizer's class or the direct base of that; else None."""
    return next((kind for kind in type(optimizer).__mro__[:2] if kind in (SGD, Adam, AdamW)), None)


def _subgroups(kind: type[Optimizer], group: Options, preserved: Set[Parameter]) -> list[Subgroup] | None:
    parameters: list[Parameter] = group["params"]
    if not is_plain(group):
        return None
    fit = sum(parameter.nbytes for parameter in parameters) <= MOST_BYTES
    if kind is SGD:
        if not fit:
            return [Subgroup(Replacing, group, parameters, preserved=True)] if len(parameters) == 1 else None
        both = _divided(parameters, preserved.__contains__)
        return [Subgroup(Replacing, group, alike, is_preserved) for is_preserved, alike in both.items()]
    if not all(parameter.is_contiguous() for parameter in parameters):
        return None
    small = [parameter for parameter in parameters if fit or parameter.nbytes <= SMALL_BYTES]
    found = [
        Subgroup(Joined, group, alike, is_preserved)
        for (is_preserved, _), alike in _divided(
            small, lambda parameter: (parameter in preserved, parameter.dtype)
        ).items()
        if len(alike) > 1 and sum(parameter.nbytes for parameter in alike) <= MOST_BYTES
    ]
    joined = {parameter for subgroup in found for parameter in subgroup.parameters}
    separate = _divided((parameter for parameter in parameters if parameter not in joined), preserved.__contains__)
    return [*found, *(Subgroup(Pieces, group, alike, is_preserved) for is_preserved, alike in separate.items())]


def is_plain(group: Options) -> bool:
    """Whether torch updates a group of SGD, Adam or AdamW by the equations of their documentation, on the CPU."""
    options_fit = not any(value for option, value in group.items() if option not in _SUPPORTED)
    return options_fit and all(map(_is_plain, group["params"]))


def _divided(parameters: Iterable[Parameter], key: Callable[[Parameter], Key]) -> dict[Key, list[Parameter]]:
    found: dict[Key, list[Parameter]] = {}
    for parameter in parameters:
        found.setdefault(key(parameter), []).append(parameter)
    return found


def _is_plain(parameter: Parameter) -> bool:
    """Whether all of torch's loops round a parameter alike; in half precision they do not."""
    return (
        parameter.device.type == "cpu"
        and parameter.dtype in (torch.float32, torch.float64)
        and parameter.layout == torch.strided
    )
