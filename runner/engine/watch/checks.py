"""A quick check in every step: are the tensors that it computed or changed finite?"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import Parameter

from runner.language.graph.computation import Output
from runner.optim import AnyStepper

if TYPE_CHECKING:
    from runner.engine.binding import Group

Results = Sequence[Any]
Named = list[tuple[str, Tensor]]


@dataclass(frozen=True, slots=True)
class Target:
    """The tensors of one check; a report is about the first one that is not finite."""

    outputs: tuple[tuple[str, int], ...] = ()  # of a computation: name, position
    gradients: Mapping[str, Parameter] = field(default_factory=dict)  # by the parameter's name
    weights: Mapping[str, Parameter] = field(default_factory=dict)
    summed: Sequence[AnyStepper] = ()  # optimizers whose weights are checked by their sum
    groups: Sequence[Group] = ()  # of weights that are checked by the sum of the copy for the row

    def named(self, results: Results) -> Named:
        """Each tensor that exists, with its name in the config."""
        found = [(name, results[position]) for name, position in self.outputs]
        for name, parameter in self.gradients.items():
            if parameter.grad is not None:
                found.append((f"{name}.grad", parameter.grad))
        found += self.weights.items()
        return [(name, tensor.detach()) for name, tensor in found]


Act = Callable[[Results], None]


@dataclass(frozen=True, slots=True, eq=False)
class Check:
    """Checks the results of a computation, if there is one, and the tensors that a step changed.

    It runs in every step. It sums elements and takes norms, so finite elements that overflow raise a false alarm.
    """

    results: tuple[int, ...]  # positions of results of one element
    weights: tuple[Parameter, ...]  # of one element
    groups: tuple[Group, ...]  # of weights
    more: Act | None  # checks everything else
    alarm: Act  # called if something is not finite

    def __call__(self, results: Results = ()) -> None:
        elements = [results[position].item() for position in self.results]
        elements += [weight.item() for weight in self.weights]
        elements += [group.take().sum().item() for group in self.groups]
        if not cmath.isfinite(sum(elements)):
            self.alarm(results)
        if self.more is not None:
            self.more(results)


def quick_look(target: Target, outputs: Sequence[Output], alarm: Act) -> Check:
    """Builds a check of a target, which calls `alarm` if something is not finite.

    Args:
        outputs: the outputs of the computation whose results are checked.
    """
    large = [position for _, position in target.outputs if not _is_one(outputs[position])]
    small_of = [parameter for parameter in target.gradients.values() if parameter.numel() == 1]
    large_of = [parameter for parameter in target.gradients.values() if parameter.numel() != 1]
    large_weights = [weight for weight in target.weights.values() if weight.numel() != 1]

    def elements(results: Results) -> None:
        present = [gradient for parameter in small_of if (gradient := parameter.grad) is not None]
        if not cmath.isfinite(sum([gradient.item() for gradient in present])):
            alarm(results)

    def norms(results: Results) -> None:
        found = [_measurable(results[position]) for position in large]
        found += [_measurable(gradient) for parameter in large_of if (gradient := parameter.grad) is not None]
        found += map(_measurable, large_weights)
        if found and not cmath.isfinite(sum([norm.item() for norm in torch._foreach_norm(found)])):
            alarm(results)

    def sums(results: Results) -> None:
        if not cmath.isfinite(sum([stepper.total() for stepper in target.summed])):
            alarm(results)

    looks = [
        *([elements] if small_of else []),
        *([norms] if large or large_of or large_weights else []),
        *([sums] if target.summed else []),
    ]

    def every(results: Results) -> None:
        for look in looks:
            look(results)

    return Check(
        results=tuple(position for _, position in target.outputs if _is_one(outputs[position])),
        weights=tuple(weight for weight in target.weights.values() if weight.numel() == 1),
        groups=tuple(target.groups),
        more=every if len(looks) > 1 else looks[0] if looks else None,
        alarm=alarm,
    )


def has_elements(output: Output) -> bool:
    """Whether an output can be non-finite: it is not an integer, a boolean or a Python number."""
    return not output.scalar and (output.dtype.is_floating_point or output.dtype.is_complex)


def _is_one(output: Output) -> bool:
    return output.shape is not None and math.prod(output.shape) == 1


def _measurable(tensor: Tensor) -> Tensor:
    """The tensor without its autograd history, in a form that torch can take the norm of."""
    return tensor.detach() if tensor.dtype.itemsize > 1 else tensor.detach().float()


def finite_on_device(tensors: Sequence[Tensor]) -> Tensor:
    """Whether each tensor is finite: bool `(len(tensors),)`, without waiting for the device. No tensor is empty."""
    norms = torch._foreach_norm(list(map(_real, tensors)), math.inf)  # finite exactly if all elements are
    return torch.stack([torch.isfinite(norm) for norm in norms])


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else _measurable(tensor)
