"""The step kinds: each binds its instruction once to a function that runs it and returns the values of its row.

Modules that few configs need are imported on use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from runner.engine.binding import Binding
from runner.engine.faults import does_not_hold
from runner.engine.session import Session
from runner.engine.steps import clipping
from runner.engine.steps.assigning import assign
from runner.engine.steps.autograd import Differentiate
from runner.engine.steps.expectations import mismatch
from runner.engine.steps.following import keep_best, marking, reduce_on_plateau
from runner.engine.steps.optimizer_step import take_steps
from runner.engine.steps.scaling import Scaled, finish, scale_into_row
from runner.engine.steps.step_code import Loops, Run, StepCode
from runner.engine.watch.checks import Check
from runner.optim import AnyStepper
from runner.plan.program.instructions import (
    Argument,
    Assign,
    Backward,
    Checkpoint,
    Clip,
    ClipGradients,
    Evaluate,
    Expect,
    Expectation,
    Forward,
    KeepBest,
    Next,
    Plateau,
    Step,
    Train,
    ZeroGrad,
)
from runner.plan.rows.layout import Held

Share = tuple[float, float]


def bind(session: Session, argument: Argument, loops: Loops, position: int = -1) -> Run:
    """Bind an instruction to the tensors of a run; returns a function that runs the step.

    Args:
        position: the position of the instruction in the program, where the state of a following step is.
    """
    follow = _FOLLOWERS.get(type(argument))
    if follow is not None:
        return follow(session, argument, position)
    return _BINDERS[type(argument)](session, argument, loops)


def _forward(session: Session, argument: Forward, loops: Loops) -> Run:
    binding = session.binding
    step = StepCode(binding, loops)
    results = step.results(binding.evaluate(argument.evaluation, loops), argument.evaluation)
    step.look(session.watch.computed(binding, argument.evaluation, loops), results)
    step.keep_results(argument.evaluation, results)
    return step.function()


def _backward(session: Session, argument: Backward, loops: Loops) -> Run:
    binding = session.binding
    evaluation = argument.evaluation
    step = StepCode(binding, loops)
    results = step.evaluate(evaluation)
    value = results[evaluation.objective]
    step.renew_gradients(argument.parameters)
    inputs = binding.trained(argument.inputs)
    cotangent: list[Tensor] = []
    later_draws = int(argument.gradient is not None and argument.gradient.random)
    look = session.watch.computed(
        binding, evaluation, loops, argument.parameters, cotangent=cotangent, later_draws=later_draws
    )
    if argument.gradient is None:
        step.call(Differentiate(inputs), "differentiate", value)
        step.look(look, results)
        step.keep_results(evaluation, results)
    else:
        gradient = binding.call(argument.gradient, loops)
        aliases = argument.gradient.outputs[
            0
        ].aliases  # it may be a parameter, and would become the gradient of another

        def backward(value: Tensor) -> None:
            given = gradient()[0]
            cotangent[:] = [_as_gradient(given.clone() if aliases and isinstance(given, Tensor) else given, value)]
            value.backward(cotangent[0], inputs=inputs)  # type: ignore[no-untyped-call]

        step.assign("objective", value)
        step.keep_results(evaluation, results)  # the gradient may read what this step has just computed
        step.call(backward, "backward", "objective")
        step.look(look, results)
    _measure(session, step, argument.parameters)
    step.keep_gradients(argument.parameters)
    return step.function()


def _measure(
    session: Session, step: StepCode, parameters: Sequence[str], when: Callable[[], bool] | None = None
) -> None:
    """Add the measurements of the health rules about gradients, made only `when` a condition holds."""
    binding = session.binding
    for measure in session.health.gradients(binding.parameters(parameters)):
        step.call(measure if when is None else _guarded(measure, when), "measure")


def _guarded(function: Callable[[], object], when: Callable[[], bool]) -> Callable[[], object]:
    return lambda: function() if when() else None


def _as_gradient(gradient: Any, value: Tensor) -> Tensor:
    if not isinstance(gradient, Tensor):
        gradient = torch.full(
            (), gradient, dtype=value.dtype, device=value.device
        )  # made on the device, not copied to it
    expanded: Tensor = gradient.to(value.dtype).expand(value.shape)
    return expanded


def _step(session: Session, argument: Step, loops: Loops) -> Run:
    binding = session.binding
    if argument.closure is not None:
        from runner.engine.steps.lbfgs import step_by_closure

        return step_by_closure(session, argument, argument.closure, loops)
    step = StepCode(binding, loops)
    if binding.rewrites_gradients:
        step.renew_gradients(argument.parameters)
    take_steps(session, step, argument.optimizers, session.watch.updated(binding, argument.optimizers))
    if binding.rewrites_gradients:
        step.keep_gradients(argument.parameters)
    return step.function()


def _checkpoint(session: Session, argument: Checkpoint, loops: Loops) -> Run:
    def run() -> None:
        if session.watch.sound():
            session.checkpoint(argument.tag)

    return run


def _zero_grad(session: Session, argument: ZeroGrad, loops: Loops) -> Run:
    binding = session.binding
    step = StepCode(binding, loops)
    parameters = binding.parameters(argument.parameters)
    if argument.set_to_none:
        step.remove_gradients(parameters)
    else:
        step.call(lambda: _zero(parameters), "zero")
    step.keep_gradients(parameters)
    return step.function()


def _zero(parameters: Mapping[str, Parameter]) -> None:
    for parameter in parameters.values():
        if parameter.grad is not None:
            parameter.grad = torch.zeros_like(parameter.grad)


def train(
    session: Session,
    argument: Train,
    loops: Loops,
    compute: Callable[[Differentiate], Callable[[], tuple[Any, ...]]] | None = None,
) -> Run:
    """Bind a `train` step.

    Args:
        compute: makes the function that evaluates a single batch and differentiates; by default it is code of the step.
    """
    binding = session.binding
    if argument.closure:
        from runner.engine.steps.lbfgs import train_by_closure

        return train_by_closure(session, argument, loops)
    evaluation, parameters = argument.evaluation, binding.parameters(argument.parameters)
    scaling = binding.plan.loss_scaling
    scaled = None if scaling is None else Scaled(session, argument, scaling)
    differentiate = Differentiate(binding.trained(argument.inputs)) if scaled is None else scaled.differentiate
    step = StepCode(binding, loops)
    for source in argument.draws:
        step.call(binding.state.batches[source].next, f"next_{source}")
    step.remove_gradients(parameters)
    look_after: Check | None = None
    remembering: Sequence[AnyStepper] = ()
    if scaled is None:
        look, look_after, remembering = session.watch.trained(binding, argument, loops)
    else:  # gradients need not be finite
        scale_into_row(session, step, scaled)
        look = session.watch.computed(binding, evaluation, loops)
    if argument.accumulate > 1:
        results = step.results(_accumulated(binding, argument, differentiate, look, loops), evaluation)
    elif compute is not None and isinstance(differentiate, Differentiate):
        results = step.results(compute(differentiate), evaluation)
        step.look(look, results)
    else:
        results = step.evaluate(evaluation)
        step.call(differentiate, "differentiate", results[evaluation.objective])
        step.look(look, results)
    if scaled is not None:
        step.call(scaled.unscale, "unscale")
    for number, clip in enumerate(argument.clips):
        step.clip(_clip(session, clip, watched=scaled is None), clip.column, number)
    _measure(session, step, argument.parameters, None if scaled is None else scaled.finite)
    step.own_results(evaluation, results)
    if scaled is None:
        take_steps(session, step, argument.optimizers, look_after, results)
    else:
        finish(session, step, argument, scaled, results)
    for stepper in remembering:
        step.call(stepper.forget, "forget")
    step.keep_gradients(parameters)
    step.keep_results(evaluation, results)
    return step.function()


def _drawing(binding: Binding, sources: Sequence[str]) -> Callable[[], None]:
    """A function that draws the next batch of some sources."""
    draws = [binding.state.batches[source].next for source in sources]

    def draw() -> None:
        for take in draws:
            take()

    return draw


def _accumulated(
    binding: Binding, argument: Train, differentiate: Callable[[Tensor, Share], None], look: Check | None, loops: Loops
) -> Callable[[], tuple[Any, ...]]:
    """A function that accumulates the gradients of all micro-batches, and returns their combined results."""
    from runner.engine.steps.micro_batches import scaled, together, weighing, without_last

    call = binding.evaluate(argument.evaluation, loops, detached=False)
    draw_again = _drawing(binding, argument.draws_again)
    objective = argument.evaluation.objective
    assert argument.accumulation is not None
    parts = argument.accumulation.parts
    weigh = weighing(argument, binding.state.batches, binding.reading(loops))
    ratio = argument.accumulation.ratio

    def compute() -> tuple[Any, ...]:
        shares = weigh()
        micro: list[tuple[Any, ...]] = []
        for number, share in enumerate(shares.objective):
            if number:
                draw_again()
                micro[-1] = without_last(parts, micro[-1])
            results = call()
            if ratio is not None:  # a ratio of one micro-batch without samples that count is not a number
                part = scaled(results[ratio[0]], share)
                results, share = (*results[:objective], part, *results[objective + 1 :]), _ALONE
            differentiate(results[objective], share)
            if look is not None:
                look(results)
            micro.append(tuple(value.detach() if isinstance(value, Tensor) else value for value in results))
        return together(parts, micro, shares)

    return compute


_ALONE = (1, 1)


def clipping_of(binding: Binding, clip: Clip) -> Callable[[], Tensor | None]:
    """A function that clips gradients and returns their norm, if it computes one."""
    parameters = list(binding.parameters(clip.parameters).values())
    if clip.value is not None:
        value = clip.value
        return lambda: clipping.by_value(parameters, value)
    assert clip.max_norm is not None
    max_norm, norm_type = clip.max_norm, clip.norm_type
    return lambda: clipping.by_norm(parameters, max_norm, norm_type)


def _clip(session: Session, clip: Clip, *, watched: bool = True) -> Callable[[], Tensor | None]:
    """A function that clips gradients, checks their norm, and returns it in the dtype of its column."""
    binding = session.binding
    clipped: Callable[[], Any] = clipping_of(binding, clip)
    if clip.value is None and watched:
        clipped = session.watch.clipped(clipped)
    if clip.column is None:
        return clipped
    dtype = binding.plan.columns[clip.column].dtype
    return lambda: clipped().to(dtype)


def _clip_gradients(session: Session, argument: ClipGradients, loops: Loops) -> Run:
    binding = session.binding
    step = StepCode(binding, loops)
    parameters = binding.parameters(argument.clip.parameters)
    step.renew_gradients(parameters)
    step.clip(_clip(session, argument.clip), argument.clip.column)
    step.keep_gradients(parameters)
    return step.function()


def _expect(session: Session, argument: Expect, loops: Loops) -> Run:
    binding = session.binding
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


def _next(session: Session, argument: Next, loops: Loops) -> Run:
    binding = session.binding
    return _drawing(binding, argument.sources)


def _evaluate(session: Session, argument: Evaluate, loops: Loops) -> Run:
    """Compute each value over all samples of a source; only these values remain."""
    binding = session.binding
    from runner.engine.steps.evaluating import whole_pass

    whole = whole_pass(binding, argument, loops)
    look = session.watch.evaluated(binding, argument, loops)
    values = binding.state.values
    mark = marking(binding.state, (result.name for result in argument.results))
    logged = [
        (place, result.column, binding.defined(result.name) if result.partial else _same)
        for place, result in enumerate(argument.results)
        if result.column is not None
    ]

    def run() -> Held:
        means = whole()
        mark()
        if look is not None:
            look(means)
        row = list(binding.latest)
        for result, mean in zip(argument.results, means, strict=True):
            values[result.name] = mean
        for place, column, defined in logged:
            row[column] = defined(means[place])
        return tuple(row)

    return run


def _same(value: Tensor) -> Tensor | None:
    return value


_FOLLOWERS: Mapping[type[Argument], Callable[[Session, Any, int], Run]] = {
    KeepBest: keep_best,
    Plateau: reduce_on_plateau,
}
_BINDERS: Mapping[type[Argument], Callable[[Session, Any, Loops], Run]] = {
    Checkpoint: _checkpoint,
    Forward: _forward,
    Backward: _backward,
    Step: _step,
    ZeroGrad: _zero_grad,
    Train: train,
    ClipGradients: _clip_gradients,
    Assign: assign,
    Expect: _expect,
    Next: _next,
    Evaluate: _evaluate,
}
