"""The quick look in every step: whether the tensors that it computed or changed are finite."""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from runner.language.computation import Output

Results = Sequence[Any]
Named = list[tuple[str, Tensor]]


@dataclass(frozen=True, slots=True)
class Target:
    """What is looked at together, in the order in which it is told."""

    outputs: tuple[tuple[str, int], ...] = ()  # of a computation: name, position
    gradients: Mapping[str, Parameter] = field(default_factory=dict)  # by the parameter's name
    weights: Mapping[str, Parameter] = field(default_factory=dict)

    def named(self, results: Results) -> Named:
        """Each tensor that is there, with the name that a person knows it by."""
        found = [(name, results[position]) for name, position in self.outputs]
        for name, parameter in self.gradients.items():
            if parameter.grad is not None:
                found.append((f"{name}.grad", parameter.grad))
        found += self.weights.items()
        return [(name, tensor.detach()) for name, tensor in found]


def looks_finite(target: Target, outputs: Sequence[Output]) -> Callable[[Results], bool]:
    """Whether all that a target means is finite, bound to its tensors: it runs in every step.

    Elements are summed and norms taken, so it may say no of finite ones that overflow; whoever asks looks again then.
    """
    small = [position for _, position in target.outputs if _is_one(outputs[position])]
    large = [position for _, position in target.outputs if not _is_one(outputs[position])]
    small_of = [parameter for parameter in target.gradients.values() if parameter.numel() == 1]
    large_of = [parameter for parameter in target.gradients.values() if parameter.numel() != 1]
    weights_finite = _weights_are_finite(list(target.weights.values())) if target.weights else None

    def ones(results: Results) -> bool:
        found = [results[position].item() for position in small]
        for parameter in small_of:
            gradient = parameter.grad
            if gradient is not None:
                found.append(gradient.item())
        return cmath.isfinite(sum(found))

    def all_of(results: Results) -> bool:
        found = [_measurable(results[position]) for position in large]
        found += [_measurable(gradient) for parameter in large_of if (gradient := parameter.grad) is not None]
        return ones(results) and norms_are_finite(found)

    finite = all_of if large or large_of else ones
    if weights_finite is None:
        return finite
    if not (target.outputs or target.gradients):
        return lambda results: weights_finite()
    return lambda results: finite(results) and weights_finite()


def _weights_are_finite(weights: Sequence[Parameter]) -> Callable[[], bool]:
    """The quick look at weights."""
    reads = [weight.item for weight in weights if weight.numel() == 1]
    large = [weight for weight in weights if weight.numel() != 1]
    if not large:
        return lambda: cmath.isfinite(sum([read() for read in reads]))
    return lambda: cmath.isfinite(sum([read() for read in reads])) and norms_are_finite(list(map(_measurable, large)))


def norms_are_finite(tensors: list[Tensor]) -> bool:
    """Whether the norms of floating or complex tensors are finite; those of finite ones may overflow."""
    return not tensors or cmath.isfinite(sum([norm.item() for norm in torch._foreach_norm(tensors)]))


def has_elements(output: Output) -> bool:
    """Whether an output can be non-finite: no integer, boolean or Python number."""
    return not output.scalar and (output.dtype.is_floating_point or output.dtype.is_complex)


def _is_one(output: Output) -> bool:
    return output.shape is not None and math.prod(output.shape) == 1


def _measurable(tensor: Tensor) -> Tensor:
    """A tensor that torch can take the norm of, without its history."""
    return tensor.detach() if tensor.dtype.itemsize > 1 else tensor.detach().float()


def finite_on_device(tensors: Sequence[Tensor]) -> Tensor:
    """Whether each of some tensors with elements is finite: bool `(len(tensors),)`, without waiting for the device."""
    norms = torch._foreach_norm(list(map(_real, tensors)), math.inf)  # of which that of finite elements is finite
    return torch.stack([torch.isfinite(norm) for norm in norms])


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else _measurable(tensor)
