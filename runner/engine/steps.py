"""The step kinds at work: each binds its instruction once to a function that does it and gives its row's values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from runner.engine import clipping
from runner.engine.autograd import Differentiate
from runner.engine.binding import Binding, Values
from runner.engine.evaluating import whole_pass
from runner.engine.expectations import mismatch
from runner.engine.faults import does_not_hold
from runner.optim import Stepper
from runner.plan.instructions import (
    Argument,
    Assign,
    Backward,
    Checkpoint,
    Clip,
    ClipGradients,
    Evaluate,
    Evaluation,
    Expect,
    Expectation,
    Forward,
    Next,
    Step,
    Train,
    ZeroGrad,
)

Run = Callable[[], Values | None]
"""One step: does it, and gives the values of its row, where it logs one."""

Loops = Sequence[int]


def bind(binding: Binding, argument: Argument, loops: Loops) -> Run:
    """The step that an instruction describes, over the tensors of a run."""
    return _BINDERS[type(argument)](binding, argument, loops)


def _forward(binding: Binding, argument: Forward, loops: Loops) -> Run:
    evaluation = argument.evaluation
    call, keep = binding.evaluate(evaluation, loops), binding.keep(evaluation)
    return lambda: keep(call())


def _backward(binding: Binding, argument: Backward, loops: Loops) -> Run:
    evaluation = argument.evaluation
    call, keep = binding.evaluate(evaluation, loops, detached=False), binding.keep(evaluation)
    objective = evaluation.objective
    differentiate = Differentiate(_inputs(binding, argument.inputs))
    gradient = None if argument.gradient is None else binding.call(argument.gradient, loops)
    captured = binding.parameters(argument.parameters)

    def run() -> Values:
        results = call()
        value = results[objective]
        if gradient is None:
            differentiate(value)
        else:
            keep(results)  # it may read what this step has just computed
            value.backward(_as_gradient(gradient()[0], value), inputs=differentiate.inputs)
        binding.capture_gradients(captured)
        return keep(results)

    return run


def _inputs(binding: Binding, names: Sequence[str] | None) -> list[Tensor] | None:
    return None if names is None else [binding.state.parameters[name] for name in names]


def _as_gradient(gradient: Any, value: Tensor) -> Tensor:
    if not isinstance(gradient, Tensor):
        gradient = torch.tensor(gradient, dtype=value.dtype, device=value.device)
    expanded: Tensor = gradient.to(value.dtype).expand(value.shape)
    return expanded


def _step(binding: Binding, argument: Step, loops: Loops) -> Run:
    if argument.closure is not None:
        return _step_by_closure(binding, argument, argument.closure, loops)
    steps = [_stepping(binding, name) for name in argument.optimizers]
    captured = binding.parameters(argument.parameters)

    def run() -> Values:
        for take in steps:
            take()
        binding.capture_weights(captured)
        if binding.rewrites_gradients:
            binding.capture_gradients(captured)
        binding.capture_state()
        return binding.latest.copy()

    return run


def _step_by_closure(binding: Binding, argument: Step, evaluation: Evaluation, loops: Loops) -> Run:
    """The steps of several optimizers, of which L-BFGS evaluates the objective again: each row holds the first time."""
    reached = binding.plan.objectives[evaluation.computation.outputs[evaluation.objective].name]
    captured = binding.parameters(argument.parameters)
    keep = binding.keep(evaluation)
    seen: list[tuple[Any, ...]] = []

    def first(results: tuple[Any, ...]) -> None:
        if not seen:
            seen.append(results)
            binding.capture_gradients(captured)

    steps = []
    for name in argument.optimizers:
        plan = binding.plan.optimizers[name]
        inputs = [parameter for parameter in plan.parameters if parameter in reached]
        closure = _closure(binding, name, evaluation, loops, plan.parameters, inputs, first)
        steps.append(_stepping(binding, name, closure))

    def run() -> Values:
        seen.clear()
        for take in steps:
            take()
        binding.capture_weights(captured)
        binding.capture_state()
        row = keep(seen[0])
        binding.capture_gradients(captured)
        return row

    return run


def _stepping(binding: Binding, name: str, closure: Callable[[], Tensor] | None = None) -> Callable[[], None]:
    """One optimizer's step, with its hyperparameters for the next `t`."""
    stepper, schedules = binding.state.steppers[name], binding.state.schedules[name]
    take = stepper.step
    if not isinstance(stepper, Stepper):  # a rule, which has no closure and no hyperparameters
        return take
    if closure is not None and binding.plan.optimizers[name].needs_closure:

        def take() -> None:
            stepper.step_closure(closure)

    if not schedules:
        return take

    def scheduled() -> None:
        t = stepper.steps + 1
        for schedule in schedules:
            stepper.set_option(schedule.group, schedule.option, schedule.value(t))
        take()

    return scheduled


def _closure(
    binding: Binding,
    name: str,
    evaluation: Evaluation,
    loops: Loops,
    zeroed: Sequence[str],
    inputs: Sequence[str] | None,
    first: Callable[[tuple[Any, ...]], None],
) -> Callable[[], Tensor]:
    """What L-BFGS evaluates again and again within a step: the same batch, the same random numbers.

    The gradients of `zeroed` are removed, those of `inputs`, or all, computed. `first` is given the results of a
    step's first evaluation.
    """
    state, objective = binding.state, evaluation.objective
    stepper = state.steppers[name]
    parameters = list(binding.parameters(zeroed).values())
    differentiate = Differentiate(_inputs(binding, inputs))
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


def _checkpoint(binding: Binding, argument: Checkpoint, loops: Loops) -> Run:
    def run() -> None:
        binding.checkpoint(argument.tag)

    return run


def _zero_grad(binding: Binding, argument: ZeroGrad, loops: Loops) -> Run:
    captured = binding.parameters(argument.parameters)
    to_none = argument.set_to_none

    def run() -> Values:
        for parameter in captured.values():
            if to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.detach_().zero_()
        binding.capture_gradients(captured)
        return binding.latest.copy()

    return run


def _train(binding: Binding, argument: Train, loops: Loops) -> Run:
    if argument.closure:
        return _train_by_closure(binding, argument, loops)
    evaluation = argument.evaluation
    call, keep = binding.evaluate(evaluation, loops, detached=False), binding.keep(evaluation)
    objective = evaluation.objective
    captured = binding.parameters(argument.parameters)
    zeroed = list(captured.values())
    differentiate = Differentiate(_inputs(binding, argument.inputs), argument.accumulate)
    if argument.accumulate > 1:
        draw_again = _drawing(binding, argument.draws_again)
        compute = _accumulated(call, differentiate, objective, argument.accumulate, draw_again)
    else:

        def compute() -> tuple[Any, ...]:
            results = call()
            differentiate(results[objective])
            return results

    clips = [_clip(binding, clip) for clip in argument.clips]
    steps = [_stepping(binding, name) for name in argument.optimizers]
    held = [name for optimizer in argument.optimizers for name in binding.plan.optimizers[optimizer].parameters]
    stepped = binding.parameters(held)
    capture_weights, capture_gradients, capture_state = (
        binding.capture_weights,
        binding.capture_gradients if not binding.fresh else binding.keep_gradients,
        binding.capture_state,
    )

    def run() -> Values:
        for parameter in zeroed:
            parameter.grad = None
        results = compute()
        norms = [clip() for clip in clips]
        for take in steps:
            take()
        capture_weights(stepped)
        capture_gradients(captured)
        capture_state()
        row = keep(results)
        for norm in norms:
            if norm is not None:
                row[norm[0]] = norm[1]
        return row

    return _after_drawing(binding, argument.draws, run)


def _drawing(binding: Binding, sources: Sequence[str]) -> Callable[[], None]:
    """Draws the next batch of some sources."""
    draws = [binding.state.batches[source].next for source in sources]

    def draw() -> None:
        for take in draws:
            take()

    return draw


def _after_drawing(binding: Binding, sources: Sequence[str], run: Run) -> Run:
    """A step that draws batches first; one that draws none is left as it is."""
    if not sources:
        return run
    draw = _drawing(binding, sources)

    def drawn() -> Values | None:
        draw()
        return run()

    return drawn


def _accumulated(
    call: Callable[[], tuple[Any, ...]],
    differentiate: Differentiate,
    objective: int,
    times: int,
    draw_again: Callable[[], None],
) -> Callable[[], tuple[Any, ...]]:
    """Gradients of several evaluations, a share of each; the results are the last one's, with the mean objective."""

    def compute() -> tuple[Any, ...]:
        results = call()
        differentiate(results[objective])
        total = results[objective].detach()
        for _ in range(times - 1):
            draw_again()
            results = call()
            differentiate(results[objective])
            total = total + results[objective].detach()
        return (*results[:objective], total / times, *results[objective + 1 :])

    return compute


def _train_by_closure(binding: Binding, argument: Train, loops: Loops) -> Run:
    """L-BFGS: the row holds the first evaluation of its step, and the weights after it."""
    name = argument.optimizers[0]
    keep = binding.keep(argument.evaluation)
    captured = binding.parameters(argument.parameters)
    seen: list[tuple[Any, ...]] = []

    def first(results: tuple[Any, ...]) -> None:
        seen[:] = [results]
        binding.capture_gradients(captured)

    closure = _closure(binding, name, argument.evaluation, loops, argument.parameters, argument.inputs, first)
    take = _stepping(binding, name, closure)

    def run() -> Values:
        take()
        binding.capture_weights(captured)
        binding.capture_state()
        row = keep(seen[0])
        binding.capture_gradients(captured)  # for the rows to come: those of its last evaluation
        return row

    return _after_drawing(binding, argument.draws, run)


def _clip(binding: Binding, clip: Clip) -> Callable[[], tuple[int, Tensor] | None]:
    """Clipping as a function: the column and the value of the norm, where one is logged."""
    parameters = list(binding.parameters(clip.parameters).values())
    if clip.value is not None:
        value = clip.value
        return lambda: clipping.by_value(parameters, value)
    assert clip.max_norm is not None
    max_norm, norm_type, column = clip.max_norm, clip.norm_type, clip.column
    dtype = None if column is None else binding.plan.columns[column].dtype

    def by_norm() -> tuple[int, Tensor] | None:
        norm = clipping.by_norm(parameters, max_norm, norm_type)
        return None if column is None else (column, norm.to(dtype))

    return by_norm


def _clip_gradients(binding: Binding, argument: ClipGradients, loops: Loops) -> Run:
    apply = _clip(binding, argument.clip)
    captured = binding.parameters(argument.clip.parameters)

    def run() -> Values:
        norm = apply()
        binding.capture_gradients(captured)
        row = binding.latest.copy()
        if norm is not None:
            row[norm[0]] = norm[1]
        return row

    return run


def _assign(binding: Binding, argument: Assign, loops: Loops) -> Run:
    calls = [binding.call(computation, loops) for computation in argument.computations]
    weights = binding.parameters([target for target in argument.targets if not target.endswith(".grad")])
    of_gradients = [target.removesuffix(".grad") for target in argument.targets if target.endswith(".grad")]
    gradients = binding.parameters(of_gradients)

    def run() -> Values:
        results = [call()[0] for call in calls]
        results = [result.clone() if isinstance(result, Tensor) else result for result in results]
        for target, result in zip(argument.targets, results, strict=True):
            _write(binding, target, result)
        binding.capture_weights(weights)
        binding.capture_gradients(gradients)
        return binding.latest.copy()

    return run


def _write(binding: Binding, target: str, result: Any) -> None:
    parameter = binding.state.parameters[target.removesuffix(".grad")]
    if not isinstance(result, Tensor):
        result = torch.tensor(result, dtype=parameter.dtype, device=parameter.device)
    with torch.no_grad():
        if target.endswith(".grad"):
            gradient = torch.empty_like(parameter)
            gradient.copy_(result)
            parameter.grad = gradient
        else:
            parameter.copy_(result)


def _expect(binding: Binding, argument: Expect, loops: Loops) -> Run:
    checks = [_expectation(binding, entry, loops) for entry in argument.expectations]

    def run() -> None:
        failures = [failure for failure in (check() for check in checks) if failure is not None]
        if failures:
            raise does_not_hold(binding.plan, binding.state, failures)

    return run


def _expectation(binding: Binding, entry: Expectation, loops: Loops) -> Callable[[], tuple[Expectation, str] | None]:
    gradient_of = None if entry.field is None else binding.state.parameters.get(entry.field.removesuffix(".grad"))
    if entry.actual is None:

        def absent() -> tuple[Expectation, str] | None:
            if gradient_of is None or gradient_of.grad is None:
                return None
            return entry, f"expected no gradient, and `{entry.field}` exists"

        return absent
    actual = binding.call(entry.actual, loops, observes=True)
    expected = None if entry.expected is None else binding.call(entry.expected, loops, observes=True)

    def holds() -> tuple[Expectation, str] | None:
        if gradient_of is not None and gradient_of.grad is None:
            return entry, "there is no gradient"
        value = entry.value if expected is None else expected()[0]
        difference = mismatch(actual()[0], value, entry.rtol, entry.atol)
        return None if difference is None else (entry, str(difference))

    return holds


def _next(binding: Binding, argument: Next, loops: Loops) -> Run:
    return _drawing(binding, argument.sources)


def _evaluate(binding: Binding, argument: Evaluate, loops: Loops) -> Run:
    """The mean of each value over all samples of a source; nothing but these values is left behind."""
    whole = whole_pass(binding, argument, loops)
    values = binding.state.values

    def run() -> Values:
        means = whole()
        row = binding.latest.copy()
        for result, mean in zip(argument.results, means, strict=True):
            values[result.name] = mean
            if result.column is not None:
                row[result.column] = mean
        return row

    return run


_BINDERS: Mapping[type[Argument], Callable[[Binding, Any, Loops], Run]] = {
    Checkpoint: _checkpoint,
    Forward: _forward,
    Backward: _backward,
    Step: _step,
    ZeroGrad: _zero_grad,
    Train: _train,
    ClipGradients: _clip_gradients,
    Assign: _assign,
    Expect: _expect,
    Next: _next,
    Evaluate: _evaluate,
}
