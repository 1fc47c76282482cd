"""Plans each step kind: converts its argument in the config to the argument of an instruction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from runner.config import models
from runner.errors import did_you_mean
from runner.faults import ConfigPath
from runner.language.graph.computation import undefined_at_times
from runner.plan.program.demand import evaluated
from runner.plan.program.instructions import (
    Argument,
    Backward,
    Clip,
    ClipGradients,
    Evaluate,
    Forward,
    Next,
    Result,
    Step,
    Train,
    ZeroGrad,
)
from runner.plan.program.measured_steps import checkpoint, plateau
from runner.plan.program.state_steps import assign, expect
from runner.plan.program.step_context import StepContext
from runner.plan.scalars import integer

MOST_MICRO_BATCHES = 1_000_000


def _forward(context: StepContext, step: models.Step, argument: models.Forward) -> Forward | None:
    path = (*step.path, "forward")
    objective = context.values.objective(argument.objective, (*path, "objective"))
    if objective is None:
        return None
    context.objectives[objective] = context.values.reaching(objective)
    evaluation = context.values.evaluation(objective, context.batches(argument.data, (*path, "data")))
    context.check_named(argument.data, evaluation, (*path, "data"))
    return Forward(evaluation)


def _backward(context: StepContext, step: models.Step, argument: models.Backward) -> Backward | None:
    path = (*step.path, "backward")
    objective = context.differentiable(argument.objective, (*path, "objective"), gradient=argument.gradient is not None)
    inputs = None
    if argument.parameters is not None:
        inputs = context.values.parameters(argument.parameters, (*path, "parameters"))
    if objective is None:
        return None
    context.objective = objective
    context.partial = None
    if argument.gradient is not None:
        context.partial = (*path, "gradient"), None
    elif inputs is not None:
        context.partial = (*path, "parameters"), inputs
    context.preferred = context.batches(argument.data, (*path, "data"))
    reached = context.values.reaching(objective)
    gradient = None
    if argument.gradient is not None:
        gradient = context.gradient(argument.gradient, objective, (*path, "gradient"))
    evaluation = context.values.evaluation(objective, context.preferred)
    context.check_named(argument.data, evaluation, (*path, "data"))
    return Backward(evaluation, gradient, inputs if inputs is not None else reached, inputs)


def _step(context: StepContext, step: models.Step, argument: models.OptimizerStep) -> Step | None:
    optimizers = context.optimizers(argument.optimizers, (*step.path, "step"))
    closure = None
    if any(context.values.optimizers[name].needs_closure for name in optimizers):
        objective = context.objective or context.differentiable(None, step.path)
        if objective is not None:
            context.check_closure(optimizers)
            context.differentiates(objective, optimizers, context.optimized(optimizers), step.path)
            closure = context.values.evaluation(objective, context.preferred or context.batches(None, step.path))
    return Step(optimizers, context.optimized(optimizers), closure) if optimizers else None


def _zero_grad(context: StepContext, step: models.Step, argument: models.ZeroGrad) -> ZeroGrad:
    stepped = context.stepped
    if argument.optimizers is None:
        parameters = context.values.trainable
    else:
        parameters = context.optimized(context.optimizers(argument.optimizers, (*step.path, "zero_grad")))
    context.stepped = stepped
    return ZeroGrad(parameters, argument.set_to_none)


def _train(context: StepContext, step: models.Step, argument: models.Train) -> Train | None:
    path = (*step.path, "train")
    optimizers = context.optimizers(argument.optimizers, (*path, "optimizer"))
    objective = context.differentiable(argument.objective, (*path, "objective"))
    optimized = context.optimized(optimizers)
    clips = _clips(context, argument, path, optimized)
    if objective is None or not optimizers:
        return None
    context.objective, context.partial = objective, None
    accumulate = _accumulate(context, argument, path)
    closure = any(context.values.optimizers[name].needs_closure for name in optimizers)
    if closure:
        _check_closure(context, path, clips=bool(clips), others=len(optimizers) > 1, accumulates=accumulate != 1)
    if accumulate is not None and accumulate > MOST_MICRO_BATCHES:
        return None
    inputs = None
    parameters = context.values.trainable
    if argument.optimizers is not None:
        parameters = optimized
        inputs = context.differentiates(objective, optimizers, optimized, path)
    context.preferred = context.batches(argument.data, (*path, "data"))
    evaluation = context.values.evaluation(objective, context.preferred, parts=(accumulate or 1) > 1)
    context.check_named(argument.data, evaluation, (*path, "data"))
    made = Train(evaluation, optimizers, parameters, inputs, clips, closure, accumulate or 1)
    if made.accumulate > 1:
        from runner.plan.program.pools import accumulation

        choice = context.values.supply.choose(context.preferred)
        found = accumulation(context.values, evaluation, choice, objective, (*path, "accumulate"))
        made = replace(made, accumulation=found)
    if argument.keeps_batch:
        return made
    enclosing = context.loops.sources
    again = evaluation.sources if made.accumulate > 1 else ()
    for source in again:
        if source in enclosing:
            context.loops.draw_more(source, made.accumulate - 1, step, (*path, "accumulate"), accumulates=True)
    draws = tuple(source for source in evaluation.sources if source not in enclosing)
    return replace(made, draws=draws, draws_again=again)


def _clips(
    context: StepContext, argument: models.Train, path: ConfigPath, optimized: tuple[str, ...]
) -> tuple[Clip, ...]:
    """How a `train` step clips the gradients of the parameters that its optimizers have."""
    clips: list[Clip] = []
    if argument.clip_grad_norm is not None:
        clips.append(context.norm_clip(argument.clip_grad_norm, (*path, "clip_grad_norm"), optimized))
    if argument.clip_grad_value is not None:
        clips.append(context.value_clip(argument.clip_grad_value, (*path, "clip_grad_value"), optimized))
    return tuple(clips)


def _accumulate(context: StepContext, argument: models.Train, path: ConfigPath) -> int | None:
    """The micro-batches of a `train` step, which may be too many; None or too many after a fault."""
    path, faults = (*path, "accumulate"), context.values.faults
    accumulate = integer(argument.accumulate, path, context.values.environment.scalars, faults, least=1)
    if accumulate is not None and accumulate > MOST_MICRO_BATCHES:
        faults.add(
            path,
            f"`accumulate` is {accumulate:,}, and at most {MOST_MICRO_BATCHES:,}: a step keeps the values of each",
            "use fewer micro-batches, and larger ones",
        )
    return accumulate


def _check_closure(context: StepContext, path: ConfigPath, *, clips: bool, others: bool, accumulates: bool) -> None:
    """Report what `lbfgs` cannot do, because it evaluates the objective several times in a step."""
    faults = context.values.faults
    if clips:
        message = "`lbfgs` re-evaluates within its step, and cannot clip"
        faults.add(path, message, "remove the clipping, or use another optimizer")
    if others:
        faults.add(path, "`lbfgs` cannot share a step with other optimizers", "name it: `train: {optimizer: …}`")
    if accumulates:
        message = "`lbfgs` re-evaluates within its step, and cannot accumulate"
        faults.add((*path, "accumulate"), message, "remove `accumulate`, or use another optimizer", key=True)


def _clip_grad_norm(context: StepContext, step: models.Step, argument: models.ClipGradNorm) -> ClipGradients:
    clip = context.norm_clip(argument, (*step.path, "clip_grad_norm"), context.values.trainable)
    context.check_clips_last(clip.parameters, step.path)
    return ClipGradients(clip)


def _clip_grad_value(context: StepContext, step: models.Step, argument: models.ClipGradValue) -> ClipGradients:
    clip = context.value_clip(argument.clip_value, (*step.path, "clip_grad_value"), context.values.trainable)
    context.check_clips_last(clip.parameters, step.path)
    return ClipGradients(clip)


def _next(context: StepContext, step: models.Step, argument: models.Next) -> Next:
    path = (*step.path, "next")
    found = [context.source(name, path) for name in argument.data]
    sources = tuple(name for name in found if name is not None)
    for source in sources:
        context.values.supply.drawn.add(source)
        context.loops.draw_more(source, 1, step, path)
    return Next(sources)


def _evaluate(context: StepContext, step: models.Step, argument: models.Evaluate) -> Evaluate | None:
    path = (*step.path, "evaluate")
    values = context.values
    at = (*path, "data")
    name, objective = context.source(argument.data, at), values.objective(None, path)
    if name is None or objective is None:
        return None
    for place, metric in enumerate(argument.metrics or ()):
        if metric not in values.lowered.metrics:
            known = list(values.lowered.metrics)
            hint = did_you_mean(metric, known, f"metrics are {', '.join(known)}" if known else "declare some")
            values.faults.add((*path, "metrics", place), f"there is no metric `{metric}`", hint)
            return None
    values.supply.drawn.add(name)
    wanted = evaluated(values, argument)
    read, source = values.reads(wanted), values.supply.sources[name]
    missing = [column for column in read if column not in source]
    if missing or not read:
        said = f"it has no column `{missing[0]}`" if missing else f"`{objective}` reads no column of it"
        values.faults.add(at, f"`{name}` cannot be evaluated: {said}", "name another source")
        return None
    choice = values.supply.choose([name])
    from runner.plan.program.pools import pool  # imported only if needed

    pooled = pool(values, source, wanted, choice, path)
    results: list[Result] = []
    positions = {column.name: position for position, column in enumerate(values.columns)}
    at_times = undefined_at_times(values.lowered)
    for value in wanted:
        found = pooled.places[value]
        column = f"{name}.{value}"
        if found.inferred.shape is None or column not in values.results:
            if found.inferred.shape is None:
                message = f"`{value}` has a different shape in every batch, and no mean over them"
                values.faults.add(path, message, "reduce it with `.mean()`", key=True)
            if column not in values.results:  # the problem was already reported
                return None
        example = values.results[column]
        if found.whole is not None and found.inferred.shape != example.shape:
            shapes = f"{found.inferred.shape} over all samples, and {tuple(example.shape)} in a batch"
            message = f"`{value}` has the shape {shapes}"
            values.faults.add(("metrics", value), message, "reduce it: `.mean()` or `.max()`", key=True)
        partial = value in at_times
        results.append(
            Result(
                found.inferred,
                column,
                example.dtype,
                positions.get(column),
                found.output,
                found.derived,
                found.whole,
                partial,
            )
        )
    context.objectives.setdefault(objective, values.reaching(objective))
    return Evaluate(name, pooled.evaluation, tuple(results), pooled.parts, pooled.derived, pooled.wholes, pooled.bytes)


PLANNERS: Mapping[str, Callable[[StepContext, models.Step, Any], Argument | None]] = {
    "checkpoint": lambda context, step, argument: checkpoint(context.values, step, argument),
    "reduce_lr_on_plateau": lambda context, step, argument: plateau(context.values, step, argument),
    "forward": _forward,
    "backward": _backward,
    "step": _step,
    "zero_grad": _zero_grad,
    "train": _train,
    "clip_grad_norm": _clip_grad_norm,
    "clip_grad_value": _clip_grad_value,
    "assign": lambda context, step, argument: assign(context.values, step, argument),
    "expect": lambda context, step, argument: expect(context.values, step, argument),
    "next": _next,
    "evaluate": _evaluate,
}
"""The planner of each kind; it returns None after reporting a problem."""
