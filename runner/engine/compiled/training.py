"""One training step as a pure function of tensors: forward, gradients, clipping, update."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from runner.engine.compiled.differentiated import Differentiated
from runner.engine.compiled.updates import Update
from runner.engine.steps.micro_batches import Shares, together
from runner.plan.program.instructions import Clip, Part

Tensors = list[Tensor]


@dataclass(frozen=True, slots=True)
class UpdateGroup:
    """The parameters of one update, and the positions of its numbers among those of an iteration."""

    update: Update
    parameters: tuple[str, ...]
    entries: tuple[tuple[str, ...], ...]  # of each parameter, without the step count
    steps: tuple[int, ...]  # the index of the number that is each parameter's step count; empty for a rule
    numbers: slice

    @property
    def kept(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Pairs of a parameter and its entries."""
        return tuple(zip(self.parameters, self.entries, strict=True))


@dataclass(frozen=True, slots=True)
class Batch:
    """One evaluation of a step: its function, and the sources of its inputs."""

    differentiated: Differentiated
    sources: tuple[tuple[str, int], ...]  # of each input: "weight", "fixed" or "each", and its index there
    numbers: slice


@dataclass(frozen=True, slots=True)
class Micro:
    """How to combine the results of micro-batches into those of the step."""

    parts: tuple[Part, ...]  # aligned with the results
    shares: Shares  # of the micro-batches


@dataclass(frozen=True, slots=True)
class Training:
    """The parts of a step.

    The `carry` of a step is its input to the next one: weights and state, then tensors that only the last row needs.
    """

    batches: tuple[Batch, ...]  # one, or one for each micro-batch
    objective: int  # the index among the results of a batch
    clips: tuple[Clip, ...]
    update_groups: tuple[UpdateGroup, ...]
    stepped: tuple[str, ...]  # the parameters that change, in the order of the carry
    outputs: tuple[Output, ...]  # of every iteration
    finals: tuple[Output, ...]  # of the last iteration
    watched: tuple[Output, ...]  # if any: the last output of an iteration is whether all are finite
    micro: Micro | None = None  # None: there is only one batch

    @property
    def states(self) -> tuple[tuple[str, str], ...]:
        """The (parameter, entry) pairs of the state in the carry."""
        return tuple((name, entry) for group in self.update_groups for name, entries in group.kept for entry in entries)


@dataclass(frozen=True, slots=True)
class Output:
    """A tensor that a step returns."""

    kind: str  # "result", "gradient", "unclipped" (a gradient before clipping), "weight", "state", "norm"
    place: int  # the index of a result or norm
    name: str = ""  # the parameter
    entry: str = ""
    dtype: torch.dtype | None = None  # None: unchanged


Step = Callable[[Tensors, Tensors, Tensors], tuple[Tensors, Tensors]]
"""Maps `(carry, each, fixed)` to the next carry and the outputs of this iteration. `each[0]` contains the numbers."""


def step_function(training: Training, finite: Callable[[Tensors], Tensor] | None = None) -> Step:
    """Returns the step as a pure function: it modifies no argument, and its results share no memory with them.

    Args:
        finite: whether every element of some tensors is finite: bool `()`; by default, from their maximum magnitude.
    """
    finite = finite or _are_finite
    count, states = len(training.stepped), training.states
    lengths = len(states)

    def step(carry: Tensors, each: Tensors, fixed: Tensors) -> tuple[Tensors, Tensors]:
        weights = dict(zip(training.stepped, carry, strict=False))
        state = dict(zip(states, carry[count : count + lengths], strict=True))
        numbers = [each[0][place] for place in range(each[0].shape[0])]
        results, gradients = _gradients(training, carry, each, fixed, numbers)
        unclipped = dict(gradients)
        norms = [_clip(gradients, clip) for clip in training.clips]
        for group in training.update_groups:
            new, entries = group.update(
                [weights[name] for name in group.parameters],
                [gradients[name] for name in group.parameters],
                [
                    {entry: state[name, entry] for entry in own}
                    for name, own in zip(group.parameters, group.entries, strict=True)
                ],
                [numbers[place] for place in group.steps],
                numbers[group.numbers],
            )
            for name, weight, kept in zip(group.parameters, new, entries, strict=True):
                weights[name] = weight
                state.update(((name, entry), value) for entry, value in kept.items())
        carried = [*[weights[name] for name in training.stepped], *[state[key] for key in states]]

        by_name = {"gradient": gradients, "unclipped": unclipped, "weight": weights}

        def found(output: Output) -> Tensor:
            if output.kind == "result":
                return results[output.place]
            if output.kind == "norm":
                return norms[output.place]
            if output.kind == "state":
                return state[output.name, output.entry]
            return by_name[output.kind][output.name]

        def own(output: Output) -> Tensor:
            tensor = found(output)
            tensor = tensor if output.dtype is None else tensor.to(output.dtype)
            return tensor.clone(memory_format=torch.contiguous_format)

        outputs = [own(output) for output in training.outputs]
        if training.watched:
            outputs.append(finite([found(output) for output in training.watched]))
        return carried + [own(output) for output in training.finals], outputs

    return step


def _are_finite(tensors: Tensors) -> Tensor:
    """Whether every element is finite: bool `()`. Checks the maximum magnitude, which is finite if all elements are."""
    real = [torch.view_as_real(tensor) if tensor.is_complex() else tensor for tensor in tensors]
    found = [torch.isfinite(tensor.abs().amax()) for tensor in real]
    return functools.reduce(torch.logical_and, found)


def _gradients(
    training: Training, carry: Tensors, each: Tensors, fixed: Tensors, numbers: Tensors
) -> tuple[Tensors, dict[str, Tensor]]:
    """Returns the results and gradients over all evaluations of the step."""
    gradients: dict[str, Tensor] = {}
    results: Tensors = []
    each_of: list[Tensors] = []
    for batch in training.batches:
        taken = {"weight": carry, "each": each, "fixed": fixed}
        inputs = [taken[source][place] for source, place in batch.sources]
        found = batch.differentiated.function(*inputs, *numbers[batch.numbers])
        results = list(found[: batch.differentiated.results])
        for name, gradient in zip(batch.differentiated.reached, found[len(results) :], strict=True):
            gradients[name] = gradients[name] + gradient if name in gradients else gradient
        each_of.append(results)
    if training.micro is not None:
        results = list(together(training.micro.parts, each_of, training.micro.shares))
    return results, gradients


def _clip(gradients: dict[str, Tensor], clip: Clip) -> Tensor:
    """Replaces gradients with clipped ones, and returns the norm before; a dummy zero when clipping by value.

    The arithmetic is that of `torch.nn.utils.clip_grad_norm_` and `clip_grad_value_`, out of place.
    """
    names = [name for name in clip.parameters if name in gradients]
    if clip.value is not None:
        for name in names:
            gradients[name] = gradients[name].clamp(-clip.value, clip.value)
        return torch.zeros(())
    assert clip.max_norm is not None
    norm = get_total_norm([gradients[name] for name in names], clip.norm_type, foreach=False)
    scale = torch.clamp(clip.max_norm / (norm + 1e-6), max=1.0)
    for name in names:
        gradients[name] = gradients[name] * scale.to(gradients[name].dtype)
    return norm
