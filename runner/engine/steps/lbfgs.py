"""Steps of L-BFGS, which evaluates the objective several times: the row has the first evaluation of its step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from runner.engine.binding import Binding
from runner.engine.session import Session
from runner.engine.steps.autograd import Differentiate
from runner.engine.steps.optimizer_step import measured, owned, stepping
from runner.engine.steps.step_code import Loops, Run, StepCode
from runner.plan.program.instructions import Evaluation, Step, Train
from runner.plan.rows.layout import Held


def step_by_closure(session: Session, argument: Step, evaluation: Evaluation, loops: Loops) -> Run:
    """Binds a `step` of L-BFGS, and of any other optimizers: the row has the first evaluation."""
    binding = session.binding
    reached = binding.plan.objectives[evaluation.computation.outputs[evaluation.objective].name]
    captured = binding.parameters(argument.parameters)
    seen: list[tuple[Any, ...]] = []
    observe = _observing(session, evaluation, argument.parameters, loops)

    def first(results: tuple[Any, ...]) -> None:
        if not seen:
            seen.append(owned(evaluation, results))
            observe(results)

    takes = []
    for name in argument.optimizers:
        plan = binding.plan.optimizers[name]
        inputs = [parameter for parameter in plan.parameters if parameter in reached]
        closure = _closure(binding, name, evaluation, loops, plan.parameters, inputs, first)
        takes.append(stepping(binding, name, closure))
    step = StepCode(binding, loops)
    step.call(seen.clear, "clear")
    _take_by_closure(session, step, takes, argument, lambda: seen[0], evaluation)
    return _then_capturing(binding, step.function(), captured)


def train_by_closure(session: Session, argument: Train, loops: Loops) -> Run:
    """Binds a `train` step with L-BFGS: the row has the first evaluation, and the weights after the step."""
    binding = session.binding
    name, evaluation = argument.optimizers[0], argument.evaluation
    seen: list[tuple[Any, ...]] = []
    observe = _observing(session, evaluation, argument.parameters, loops)

    def first(results: tuple[Any, ...]) -> None:
        seen[:] = [owned(evaluation, results)]
        observe(results)

    closure = _closure(binding, name, evaluation, loops, argument.parameters, argument.inputs, first)
    step = StepCode(binding, loops)
    for source in argument.draws:
        step.call(binding.state.batches[source].next, f"next_{source}")
    _take_by_closure(session, step, [stepping(binding, name, closure)], argument, lambda: seen[0], evaluation)
    return _then_capturing(binding, step.function(), binding.parameters(argument.parameters))


def _observing(
    session: Session, evaluation: Evaluation, parameters: Sequence[str], loops: Loops
) -> Callable[[tuple[Any, ...]], None]:
    """A function that checks the results of a step's first evaluation, and puts its gradients into the row."""
    binding = session.binding
    captured = binding.parameters(parameters)
    look = session.watch.computed(binding, evaluation, loops, parameters)
    measures = session.health.gradients(captured)

    def observe(results: tuple[Any, ...]) -> None:
        if look is not None:
            look(results)
        for measure in measures:
            measure()
        binding.capture_gradients(captured)

    return observe


def _take_by_closure(
    session: Session,
    step: StepCode,
    takes: Sequence[Callable[[], None]],
    argument: Step | Train,
    first: Callable[[], tuple[Any, ...]],
    evaluation: Evaluation,
) -> None:
    """Add optimizer steps to the code of a step, then a check, and the weights, state and results for its row."""
    binding = session.binding
    for take in measured(session, takes, argument.optimizers):
        step.call(take, "update")
    step.look(session.watch.updated(binding, argument.optimizers, argument.parameters))
    step.keep_weights(argument.parameters)
    step.keep_state()
    step.keep_results(evaluation, step.results(first, evaluation))


def _then_capturing(binding: Binding, run: Run, parameters: Mapping[str, Parameter]) -> Run:
    """Wraps a step: its own row has the gradients of the first evaluation, later rows those of the last."""

    def step() -> Held | None:
        row = run()
        binding.capture_gradients(parameters)
        return row

    return step


def _closure(
    binding: Binding,
    name: str,
    evaluation: Evaluation,
    loops: Loops,
    zeroed: Sequence[str],
    inputs: Sequence[str] | None,
    first: Callable[[tuple[Any, ...]], None],
) -> Callable[[], Tensor]:
    """The closure of an optimizer. Within a step, each call uses the same batch and the same random numbers.

    It removes the gradients of `zeroed`, computes those of `inputs` (None: of all parameters), and returns the
    objective. It calls `first` with the results of the first evaluation of each step.
    """
    state, objective = binding.state, evaluation.objective
    stepper = state.steppers[name]
    parameters = list(binding.parameters(zeroed).values())
    differentiate = Differentiate(binding.trained(inputs))
    call = binding.evaluate(evaluation, loops, detached=False)
    step = draws = -1

    def evaluate() -> Tensor:
        nonlocal step, draws
        again = step == stepper.steps
        if not again:
            step, draws = stepper.steps, state.evaluations
        state.evaluations = draws
        with torch.enable_grad():
            for parameter in parameters:
                parameter.grad = None
            results = call()
            differentiate(results[objective])
        if not again:
            first(results)
        value: Tensor = results[objective]
        return value

    return evaluate
