"""The steps of a config as a flat program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from runner.config import models
from runner.errors import did_you_mean
from runner.language.computation import Computation
from runner.language.faults import LanguageError
from runner.optim.plans import broadcasts
from runner.plan.dtypes import dtype_name
from runner.plan.faults import ConfigPath
from runner.plan.instructions import (
    Action,
    Again,
    Argument,
    Backward,
    Checkpoint,
    Clip,
    ClipGradients,
    Enter,
    Evaluate,
    Evaluation,
    Forward,
    Instruction,
    Leave,
    Next,
    Result,
    Step,
    Train,
    When,
    ZeroGrad,
)
from runner.plan.loops import Loop, Loops
from runner.plan.outlook import evaluated
from runner.plan.scalars import integer, number
from runner.plan.state_steps import assign, check_cast, expect
from runner.plan.values import Values
from runner.plan.written import expression_text

_WITHOUT_ROW = {"expect", "checkpoint", "next"}

MOST_MICRO_BATCHES = 1_000_000


@dataclass(slots=True)
class ProgramPlanner:
    """Plans steps one by one; faults are collected in `values.faults`."""

    values: Values
    instructions: list[Instruction] = field(default_factory=list)
    loops: Loops = field(init=False)
    objective: str | None = None  # of the last `backward` above
    preferred: tuple[str, ...] = ()  # its sources
    objectives: dict[str, tuple[str, ...]] = field(default_factory=dict)  # with the parameters that reach them
    stepped: bool = False

    def __post_init__(self) -> None:
        self.loops = Loops(self.values.faults)

    def plan(self, steps: tuple[models.Step, ...]) -> tuple[Instruction, ...]:
        """The whole program of a config."""
        self.block(steps, "")
        return tuple(self.instructions)

    def block(self, steps: tuple[models.Step, ...], prefix: str) -> None:
        for position, step in enumerate(steps, 1):
            path = f"{prefix}{position}." if len(steps) > 1 else prefix
            if step.kind == "repeat":
                self.repeat(step, path)
            elif step.kind == "for_each":
                self.for_each(step, path)
            elif step.kind == "stop":
                self.stop(step)
            else:
                self.action(step, path)

    def repeat(self, step: models.Step, path: str) -> None:
        argument = step.argument
        assert isinstance(argument, models.Repeat)
        where = (*step.path, "repeat", "times")
        times = integer(argument.times, where, self.values.scalars, self.values.faults, 0)
        around, every, when = self.loops.numbers, self.every(step), self.when(step)
        loop = self.loops.new(step, times=times or 0)
        enter = len(self.instructions)
        head = Enter(loop.number, times or 0, -1, around, every, when, step.path)
        self.loop(head, loop, argument.steps, f"{path}repeat[{{{loop.number}}}].")
        self.instructions.append(Again(loop.number, times or 0, enter + 1))
        self.close(enter, head, loop)

    def for_each(self, step: models.Step, path: str) -> None:
        argument = step.argument
        assert isinstance(argument, models.ForEach)
        where = (*step.path, "for_each")
        name = self.source(argument.data, (*where, "data"))
        epochs = integer(argument.epochs, (*where, "epochs"), self.values.scalars, self.values.faults, 0)
        around, every, when = self.loops.numbers, self.every(step), self.when(step)
        if name in self.loops.sources:
            message = f"this loop over `{name}` stands inside another loop over it"
            self.values.faults.add((*where, "data"), message, "declare the source twice, under two names")
        loop = self.loops.new(step, source=name)
        enter = len(self.instructions)
        head = Enter(loop.number, 0, -1, around, every, when, step.path)
        self.loop(head, loop, argument.steps, f"{path}for_each[{{{loop.number}}}].")
        if name is None:
            return
        self.values.supply.drawn.add(name)
        length = self.loops.pass_length(self.values.supply.sources[name], loop)
        head = replace(head, times=length * (epochs or 0), source=name, pass_length=length)
        self.instructions.append(Again(loop.number, head.times, enter + 1, name, length))
        self.close(enter, head, loop)

    def loop(self, head: Enter, loop: Loop, steps: tuple[models.Step, ...], prefix: str) -> None:
        self.instructions.append(head)
        with self.loops.within(loop):
            self.block(steps, prefix)

    def close(self, enter: int, head: Enter, loop: Loop) -> None:
        """The loop that ends here: whatever leaves it goes on behind it."""
        after = len(self.instructions)
        self.instructions[enter] = replace(head, exit=after)
        for position in loop.leaves:
            leave = self.instructions[position]
            assert isinstance(leave, Leave)
            self.instructions[position] = replace(leave, exit=after)

    def stop(self, step: models.Step) -> None:
        if not self.loops.around:
            self.values.faults.add(
                step.path, "`stop` stands outside a loop", "put it inside a `repeat` or `for_each`, or remove it"
            )
            return
        self.loops.around[-1].leaves.append(len(self.instructions))
        self.instructions.append(Leave(-1, self.loops.numbers, self.every(step), self.when(step), step.path))

    def action(self, step: models.Step, path: str) -> None:
        plan: Callable[[ProgramPlanner, models.Step, Any], Argument | None] = _PLANNERS[step.kind]
        argument = plan(self, step, step.argument)
        every, when = self.every(step), self.when(step)
        if argument is not None:
            rows = step.kind not in _WITHOUT_ROW
            action = Action(step.kind, path + step.kind, self.loops.numbers, argument, every, when, rows, step.path)
            self.instructions.append(action)

    # what may stand beside a step

    def every(self, step: models.Step) -> int | None:
        if step.every is None:
            return None
        path = (*step.path, "every")
        if not self.loops.around:
            self.values.faults.add(
                path,
                "`every` stands outside a loop",
                "put the step inside a `repeat` or `for_each`, or remove `every`",
                key=True,
            )
        return integer(step.every, path, self.values.scalars, self.values.faults, 1)

    def when(self, step: models.Step) -> When | None:
        if step.when is None:
            return None
        path = (*step.path, "when")
        computation = self.values.compile(str(step.when), path)
        if computation is None:
            return None
        shape = computation.outputs[0].shape
        if shape is not None and any(size != 1 for size in shape):
            self.values.faults.add(
                path,
                f"this condition has shape {shape}",
                "a condition is one value: reduce it with `.all()` or `.any()`",
            )
        return When(computation, path)

    # data

    def source(self, name: str | None, path: ConfigPath) -> str | None:
        """A data source that a step names, or the first one; a fault, and None, where there is none."""
        sources = self.values.supply.sources
        if name is None and sources:
            return next(iter(sources))
        if name in sources:
            return name
        declare = "declare it: `data: {train: {file: …, columns: …}}`"
        if name is None:
            self.values.faults.add(path, "there is no data source", declare)
        else:
            hint = did_you_mean(name, sources, f"sources are {', '.join(sources)}" if sources else declare)
            self.values.faults.add(path, f"there is no data source `{name}`", hint)
        return None

    def batches(self, name: str | None, path: ConfigPath) -> tuple[str, ...]:
        """Whose batches a step takes, before the first declared source's: the one it names, those of its loops."""
        named = None if name is None else self.source(name, path)
        return (*(() if named is None else (named,)), *self.loops.sources)

    def check_named(self, name: str | None, evaluation: Evaluation, path: ConfigPath) -> None:
        """A fault where a step names a source of which nothing is read."""
        if name in self.values.supply.sources and name not in evaluation.sources and not self.values.faults.problems:
            objective = evaluation.computation.outputs[evaluation.objective].name
            message = f"`{objective}` reads no column of `{name}`"
            self.values.faults.add(path, message, "name another source, or take `data` out")

    def next(self, step: models.Step, argument: models.Next) -> Next:
        path = (*step.path, "next")
        found = [self.source(name, path) for name in argument.data]
        sources = tuple(name for name in found if name is not None)
        for source in sources:
            self.values.supply.drawn.add(source)
            self.loops.draw_more(source, 1, step, path)
        return Next(sources)

    def evaluate(self, step: models.Step, argument: models.Evaluate) -> Evaluate | None:
        path = (*step.path, "evaluate")
        values = self.values
        at = (*path, "data")
        name, objective = self.source(argument.data, at), values.objective(None, path)
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
        from runner.plan.pools import pool  # for the steps that need it alone

        pooled = pool(values, source, wanted, choice, path)
        computation = pooled.evaluation.computation
        results: list[Result] = []
        positions = {column.name: position for position, column in enumerate(values.columns)}
        derived = {place: output for output, place in enumerate(pooled.places)}
        for position, (value, output) in enumerate(zip(wanted, computation.outputs, strict=False)):
            if output.shape is None:
                message = f"`{value}` has another shape with every batch, and has no mean over them"
                values.faults.add(path, message, "reduce it with `.mean()`", key=True)
            column = f"{name}.{value}"
            if column not in values.results:  # whose fault has been told
                return None
            dtype = values.results[column].dtype
            results.append(Result(position, column, dtype, positions.get(column), derived.get(position)))
        self.objectives.setdefault(objective, values.reaching(objective))
        return Evaluate(name, pooled.evaluation, tuple(results), pooled.parts, pooled.derived)

    # the step kinds

    def forward(self, step: models.Step, argument: models.Forward) -> Forward | None:
        path = (*step.path, "forward")
        objective = self.values.objective(argument.objective, (*path, "objective"))
        if objective is None:
            return None
        self.objectives[objective] = self.values.reaching(objective)
        evaluation = self.values.evaluation(objective, self.batches(argument.data, (*path, "data")))
        self.check_named(argument.data, evaluation, (*path, "data"))
        return Forward(evaluation)

    def backward(self, step: models.Step, argument: models.Backward) -> Backward | None:
        path = (*step.path, "backward")
        objective = self.differentiable(
            argument.objective, (*path, "objective"), gradient=argument.gradient is not None
        )
        inputs = None
        if argument.parameters is not None:
            inputs = self.values.parameters(argument.parameters, (*path, "parameters"))
        if objective is None:
            return None
        self.objective = objective
        self.preferred = self.batches(argument.data, (*path, "data"))
        reached = self.values.reaching(objective)
        gradient = None
        if argument.gradient is not None:
            gradient = self.gradient(argument.gradient, objective, (*path, "gradient"))
        evaluation = self.values.evaluation(objective, self.preferred)
        self.check_named(argument.data, evaluation, (*path, "data"))
        return Backward(evaluation, gradient, inputs if inputs is not None else reached, inputs)

    def gradient(self, value: Any, objective: str, path: ConfigPath) -> Computation | None:
        """The `gradient` of a backward step as a computation."""
        computation = self.values.compile(expression_text(value), path)
        if computation is None:
            return None
        shape, wanted = computation.outputs[0].shape, tuple(self.values.example(objective).shape)
        if shape is not None and not broadcasts(shape, wanted):
            self.values.faults.add(
                path,
                f"this gradient has shape {shape}, the objective `{objective}` has {wanted}",
                "give it the objective's shape",
            )
        check_cast(self.values, computation, self.values.example(objective).dtype, f"the objective `{objective}`", path)
        return computation

    def differentiable(self, name: str | None, path: ConfigPath, gradient: bool = False) -> str | None:
        """The objective of a step that differentiates it."""
        values = self.values
        objective = values.objective(name, path)
        if objective is None:
            return None
        example = values.example(objective)
        shape = tuple(example.shape)
        if not (example.is_floating_point() or (example.is_complex() and gradient)):
            hint = "only floating-point values have derivatives"
            if example.is_complex():
                hint = "make it real: `.abs()`, `.real`, or write `backward: {gradient: …}`"
            self.fault_of_value(objective, f"the objective `{objective}` is {dtype_name(example.dtype)}", hint)
            return None
        if example.numel() != 1 and not gradient:
            message = f"the objective `{objective}` has shape {shape}, and `backward` needs one element"
            self.fault_of_value(
                objective, message, "reduce it with `.sum()` or `.mean()`, or write `backward: {gradient: …}`"
            )
            return None
        if not values.reaching(objective):
            self.fault_of_value(
                objective,
                f"no trainable parameter reaches the objective `{objective}`",
                "compute it from a parameter, not through `.detach()`, comparisons or integers",
            )
            return None
        self.objectives[objective] = values.reaching(objective)
        return objective

    def fault_of_value(self, name: str, message: str, hint: str) -> None:
        node = self.values.lowered.values[name]
        place = node.meta.get("place")
        error = LanguageError(message, hint, origin=node.meta.get("origin"))
        if place is not None:
            error.place = place
        self.values.faults.language(("expression",), error)

    def optimizers(self, names: tuple[str, ...] | None, path: ConfigPath) -> tuple[str, ...]:
        """The optimizers that a step is about: all of them where none is named."""
        self.stepped = True
        known = self.values.optimizers
        if names is None:
            if not self.values.declared_optimizers:
                self.values.faults.add(path, "there is no optimizer", "declare one: `optimizer: {sgd: {lr: 0.1}}`")
            return tuple(known)
        for name in names:
            if name not in known and name not in self.values.declared_optimizers:
                hint = did_you_mean(
                    name, known, f"optimizers are {', '.join(known)}" if known else "declare it under `optimizers:`"
                )
                self.values.faults.add(path, f"there is no optimizer `{name}`", hint)
        return tuple(name for name in names if name in known)

    def held(self, optimizers: tuple[str, ...]) -> tuple[str, ...]:
        held = {name for optimizer in optimizers for name in self.values.optimizers[optimizer].parameters}
        return tuple(name for name in self.values.trainable if name in held)

    def step(self, step: models.Step, argument: models.OptimizerStep) -> Step | None:
        optimizers = self.optimizers(argument.optimizers, (*step.path, "step"))
        closure = None
        if any(self.values.optimizers[name].needs_closure for name in optimizers):
            objective = self.objective or self.differentiable(None, step.path)
            if objective is not None:
                self.differentiates(objective, optimizers, self.held(optimizers), step.path)
                closure = self.values.evaluation(objective, self.preferred or self.batches(None, step.path))
        return Step(optimizers, self.held(optimizers), closure) if optimizers else None

    def checkpoint(self, step: models.Step, argument: models.Checkpoint) -> Checkpoint:
        return Checkpoint(argument.tag)

    def zero_grad(self, step: models.Step, argument: models.ZeroGrad) -> ZeroGrad:
        stepped = self.stepped
        if argument.optimizers is None:
            parameters = self.values.trainable
        else:
            parameters = self.held(self.optimizers(argument.optimizers, (*step.path, "zero_grad")))
        self.stepped = stepped
        return ZeroGrad(parameters, argument.set_to_none)

    def train(self, step: models.Step, argument: models.Train) -> Train | None:
        path = (*step.path, "train")
        optimizers = self.optimizers(argument.optimizers, (*path, "optimizer"))
        objective = self.differentiable(argument.objective, (*path, "objective"))
        clips: list[Clip] = []
        held = self.held(optimizers)
        if argument.clip_grad_norm is not None:
            clips.append(self.norm_clip(argument.clip_grad_norm, (*path, "clip_grad_norm"), held))
        if argument.clip_grad_value is not None:
            value = self.positive(argument.clip_grad_value, (*path, "clip_grad_value"))
            clips.append(Clip(held, value=value))
        if objective is None or not optimizers:
            return None
        self.objective = objective
        closure = any(self.values.optimizers[name].needs_closure for name in optimizers)
        if closure and clips:
            self.values.faults.add(
                path,
                "`lbfgs` re-evaluates within its step, and cannot clip",
                "remove the clipping, or use another optimizer",
            )
        if closure and len(optimizers) > 1:
            self.values.faults.add(path, "`lbfgs` trains alone", "name it: `train: {optimizer: …}`")
        accumulate = integer(
            argument.accumulate, (*path, "accumulate"), self.values.scalars, self.values.faults, least=1
        )
        if accumulate is not None and accumulate > MOST_MICRO_BATCHES:
            self.values.faults.add(
                (*path, "accumulate"),
                f"`accumulate` is {accumulate:,}, and at most {MOST_MICRO_BATCHES:,}: a step keeps the values of each",
                "use fewer micro-batches, and larger ones",
            )
            return None
        if closure and accumulate != 1:
            self.values.faults.add(
                (*path, "accumulate"),
                "`lbfgs` re-evaluates within its step, and cannot accumulate",
                "remove `accumulate`, or use another optimizer",
                key=True,
            )
        inputs = None
        parameters = self.values.trainable
        if argument.optimizers is not None:
            parameters = held
            inputs = self.differentiates(objective, optimizers, held, path)
        self.preferred = self.batches(argument.data, (*path, "data"))
        evaluation = self.values.evaluation(objective, self.preferred)
        self.check_named(argument.data, evaluation, (*path, "data"))
        made = Train(evaluation, optimizers, parameters, inputs, tuple(clips), closure, accumulate or 1)
        if made.accumulate > 1:
            from runner.plan.pools import accumulation

            choice = self.values.supply.choose(self.preferred)
            found = accumulation(self.values, evaluation, choice, objective, (*path, "accumulate"))
            made = replace(made, accumulation=found)
        if argument.keeps_batch:
            return made
        around = self.loops.sources
        again = evaluation.sources if made.accumulate > 1 else ()
        for source in again:
            if source in around:
                self.loops.draw_more(source, made.accumulate - 1, step, (*path, "accumulate"))
        draws = tuple(source for source in evaluation.sources if source not in around)
        return replace(made, draws=draws, draws_again=again)

    def differentiates(
        self, objective: str, optimizers: tuple[str, ...], held: tuple[str, ...], path: ConfigPath
    ) -> tuple[str, ...]:
        """What of the parameters that some optimizers hold an objective depends on; a fault where it is nothing."""
        inputs = tuple(name for name in self.values.reaching(objective) if name in held)
        if not inputs and optimizers:
            names = ", ".join(f"`{name}`" for name in optimizers)
            message = f"the objective `{objective}` does not depend on what {names} holds"
            self.values.faults.add(path, message, "name another objective or optimizer")
        return inputs

    def norm_clip(self, clip: Any, path: ConfigPath, parameters: tuple[str, ...]) -> Clip:
        if isinstance(clip, models.ClipGradNorm):
            if clip.parameters is not None:
                parameters = self.values.parameters(clip.parameters, (*path, "parameters"))
            max_norm = self.positive(clip.max_norm, (*path, "max_norm"))
            norm_type = self.positive(clip.norm_type, (*path, "norm_type"))
        else:
            max_norm, norm_type = self.positive(clip, path), 2.0
        return Clip(parameters, max_norm=max_norm, norm_type=norm_type, column=self.norm_column())

    def positive(self, value: Any, path: ConfigPath) -> float:
        found = number(value, path, self.values.scalars, self.values.faults)
        if found is not None and not found > 0:
            self.values.faults.add(path, f"expected a number above 0, found {found!r}", "write a positive number")
        return float(found) if found is not None else 1.0

    def norm_column(self) -> int | None:
        return next((i for i, column in enumerate(self.values.columns) if column.role == "norm"), None)

    def clip_grad_norm(self, step: models.Step, argument: models.ClipGradNorm) -> ClipGradients:
        return ClipGradients(self.norm_clip(argument, (*step.path, "clip_grad_norm"), self.values.trainable))

    def clip_grad_value(self, step: models.Step, argument: models.ClipGradValue) -> ClipGradients:
        value = self.positive(argument.clip_value, (*step.path, "clip_grad_value"))
        return ClipGradients(Clip(self.values.trainable, value=value))


_PLANNERS: Mapping[str, Callable[..., Any]] = {
    "checkpoint": ProgramPlanner.checkpoint,
    "forward": ProgramPlanner.forward,
    "backward": ProgramPlanner.backward,
    "step": ProgramPlanner.step,
    "zero_grad": ProgramPlanner.zero_grad,
    "train": ProgramPlanner.train,
    "clip_grad_norm": ProgramPlanner.clip_grad_norm,
    "clip_grad_value": ProgramPlanner.clip_grad_value,
    "assign": lambda planner, step, argument: assign(planner.values, step, argument),
    "expect": lambda planner, step, argument: expect(planner.values, step, argument),
    "next": ProgramPlanner.next,
    "evaluate": ProgramPlanner.evaluate,
}
