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
class Held:
    """The parameters of one update, and where its numbers stand among those of an iteration."""

    update: Update
    parameters: tuple[str, ...]
    entries: tuple[tuple[str, ...], ...]  # of each parameter, without the count of steps
    steps: tuple[int, ...]  # which number is the count of steps of each parameter; none for a rule
    numbers: slice

    @property
    def kept(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Each parameter with its entries."""
        return tuple(zip(self.parameters, self.entries, strict=True))


@dataclass(frozen=True, slots=True)
class Batch:
    """One evaluation of a step: what it computes, and where it takes its inputs from."""

    differentiated: Differentiated
    sources: tuple[tuple[str, int], ...]  # of each input: "weight", "fixed" or "each", and its place there
    numbers: slice


@dataclass(frozen=True, slots=True)
class Micro:
    """How the results of micro-batches become those of the step."""

    parts: tuple[Part, ...]  # aligned with the results
    shares: Shares  # of the micro-batches


@dataclass(frozen=True, slots=True)
class Training:
    """What a step is made of.

    `carry` of a step is what it hands to the next one: weights and state, then what only its last row needs.
    """

    batches: tuple[Batch, ...]  # one, or a micro-batch each
    objective: int  # which result of a batch
    clips: tuple[Clip, ...]
    holds: tuple[Held, ...]
    stepped: tuple[str, ...]  # the parameters that change, in the order of the carry
    outputs: tuple[Output, ...]  # of every iteration
    finals: tuple[Output, ...]  # of the last iteration
    watched: tuple[Output, ...]  # whether all of them are finite is the last output of every iteration; none: no output
    micro: Micro | None = None  # None: there is one batch

    @property
    def states(self) -> tuple[tuple[str, str], ...]:
        """(parameter, entry) of the state in the carry."""
        return tuple((name, entry) for held in self.holds for name, entries in held.kept for entry in entries)


@dataclass(frozen=True, slots=True)
class Output:
    """A tensor that a step gives."""

    kind: str  # "result", "gradient", "unclipped" (a gradient too), "weight", "state", "norm"
    place: int  # of a result or norm
    name: str = ""  # of a parameter
    entry: str = ""
    dtype: torch.dtype | None = None  # None: its own


Step = Callable[[Tensors, Tensors, Tensors], tuple[Tensors, Tensors]]
"""`(carry, each, fixed)` to the next carry and the outputs of this iteration; `each[0]` are the numbers."""


def step_function(training: Training) -> Step:
    """The step as a function that writes nothing it is given; every tensor it gives is its own."""
    count, states = len(training.stepped), training.states
    lengths = len(states)

    def step(carry: Tensors, each: Tensors, fixed: Tensors) -> tuple[Tensors, Tensors]:
        weights = dict(zip(training.stepped, carry, strict=False))
        state = dict(zip(states, carry[count : count + lengths], strict=True))
        numbers = [each[0][place] for place in range(each[0].shape[0])]
        results, gradients = _gradients(training, carry, each, fixed, numbers)
        unclipped = dict(gradients)
        norms = [_clip(gradients, clip) for clip in training.clips]
        for held in training.holds:
            new, entries = held.update(
                [weights[name] for name in held.parameters],
                [gradients[name] for name in held.parameters],
                [
                    {entry: state[name, entry] for entry in own}
                    for name, own in zip(held.parameters, held.entries, strict=True)
                ],
                [numbers[place] for place in held.steps],
                numbers[held.numbers],
            )
            for name, weight, kept in zip(held.parameters, new, entries, strict=True):
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
            outputs.append(_are_finite([found(output) for output in training.watched]))
        return carried + [own(output) for output in training.finals], outputs

    return step


def _are_finite(tensors: Tensors) -> Tensor:
    """Whether every element is: bool, without dimensions. The largest of finite elements is finite."""
    real = [torch.view_as_real(tensor) if tensor.is_complex() else tensor for tensor in tensors]
    found = [torch.isfinite(tensor.abs().amax()) for tensor in real]
    return functools.reduce(torch.logical_and, found)


def _gradients(
    training: Training, carry: Tensors, each: Tensors, fixed: Tensors, numbers: Tensors
) -> tuple[Tensors, dict[str, Tensor]]:
    """The results and the gradients of all evaluations together."""
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
    """Replace gradients by clipped ones; the norm before, or nothing of use where they are clipped by value.

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
