"""The objectives of a run as functions of its weights, for checking derivatives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from runner.engine.binding import Binding
from runner.engine.faults import FAULTS, run_fault
from runner.engine.state import State
from runner.language.graph.computation import Computation, inputs_of
from runner.plan.plan import Plan
from runner.plan.program.instructions import Action, Backward, Evaluation, Step, Train


@dataclass(frozen=True, slots=True)
class Objective:
    """An objective that a step differentiates."""

    name: str
    sources: tuple[str, ...]  # the data sources whose first batches it uses
    parameters: tuple[str, ...]  # the trainable parameters that its derivative reaches
    cut: tuple[str, ...]  # the trainable parameters that it reads, but its derivative does not reach
    computation: Computation
    value: Callable[[], Tensor]
    """Returns the objective at the current weights, one element; every call draws the same random numbers."""


def objectives(plan: Plan, state: State) -> list[Objective]:
    """The objectives that the `backward`, `train` and `step` steps of a program differentiate, each once.

    If `backward` has a `gradient`, its objective here is the sum of objective times gradient: one element with the
    same derivative.

    Args:
        state: the state that `initial_state` returns. Its weights do not change, but its first batches are drawn.
    """
    binding = Binding(plan, state)
    found: dict[tuple[object, ...], Objective] = {}
    for position, action in enumerate(plan.program):
        if isinstance(action, Action):
            for evaluation, gradient in _differentiated(action):
                name = evaluation.computation.outputs[evaluation.objective].name
                key = (name, evaluation.batches, None if gradient is None else gradient.origin)
                if key not in found:
                    found[key] = _objective(binding, position, name, evaluation, gradient)
    return list(found.values())


def _differentiated(action: Action) -> Iterator[tuple[Evaluation, Computation | None]]:
    match action.argument:
        case Backward(evaluation, gradient):
            yield evaluation, gradient
        case Train(evaluation) | Step(closure=Evaluation() as evaluation):
            yield evaluation, None


def _objective(
    binding: Binding, position: int, name: str, evaluation: Evaluation, gradient: Computation | None
) -> Objective:
    plan, state = binding.plan, binding.state
    call = binding.evaluate(evaluation, (), detached=False)
    given = None if gradient is None else binding.call(gradient, ())
    mode = torch.enable_grad if evaluation.computation.gradients else nullcontext
    weight: list[Tensor] = []  # the `gradient` at the first call

    def value() -> Tensor:
        state.evaluations = 0
        try:
            with mode():
                results = call()
                found: Tensor = results[evaluation.objective]
                if given is None:
                    return found.reshape(())
                if not weight:  # the `gradient` may read values computed just now
                    state.values.update({kept: _detached(results[output]) for output, kept in evaluation.kept})
                    weight.append(_as_tensor(given()[0], found))
                product = (found * weight[0].conj()).sum()
                return product.real if product.is_complex() else product
        except FAULTS as error:
            raise run_fault(plan, state, position, error) from error

    reached = plan.objectives[name]
    read = inputs_of(plan.lowered, [name])
    cut = tuple(parameter for parameter in plan.trainable if parameter in read and parameter not in reached)
    return Objective(name, evaluation.sources, reached, cut, evaluation.computation, value)


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def _as_tensor(gradient: Any, value: Tensor) -> Tensor:
    return gradient if isinstance(gradient, Tensor) else torch.tensor(gradient, dtype=value.dtype, device=value.device)
