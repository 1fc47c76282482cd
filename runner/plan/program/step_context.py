"""The context for planning one step: the values of expressions, the enclosing loops, and earlier steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from runner.config import models
from runner.errors import did_you_mean
from runner.faults import ConfigPath
from runner.language.dtypes import dtype_name
from runner.language.graph.computation import Computation
from runner.language.text.faults import LanguageError
from runner.language.text.literals import expression_text
from runner.optim.plans import broadcasts
from runner.plan.program.expressions import Values
from runner.plan.program.instructions import (
    Clip,
    Evaluation,
    When,
)
from runner.plan.program.loops import Loops
from runner.plan.program.state_steps import check_cast
from runner.plan.scalars import integer, number


@dataclass(slots=True)
class StepContext:
    """The state of planning so far; `values.faults` collects problems."""

    values: Values
    loops: Loops = field(init=False)
    objective: str | None = None  # the objective of the last `backward` or `train`
    preferred: tuple[str, ...] = ()  # its preferred sources
    partial: tuple[ConfigPath, tuple[str, ...] | None] | None = None  # its `parameters`, or None for its `gradient`
    objectives: dict[str, tuple[str, ...]] = field(default_factory=dict)  # objective → parameters it depends on
    stepped: bool = False  # whether any step uses the optimizers

    def __post_init__(self) -> None:
        self.loops = Loops(self.values.faults)

    def every(self, step: models.Step) -> int | None:
        if step.every is None:
            return None
        path = (*step.path, "every")
        if not self.loops.enclosing:
            self.values.faults.add(
                path,
                "`every` outside a loop",
                "put the step inside a `repeat` or `for_each`, or remove `every`",
                key=True,
            )
        return integer(step.every, path, self.values.environment.scalars, self.values.faults, 1)

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

    def source(self, name: str | None, path: ConfigPath) -> str | None:
        """The data source that a step names, or the first one; None after reporting that there is none."""
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
        """The preferred sources of a step: the source it names, then those of its loops."""
        named = None if name is None else self.source(name, path)
        return (*(() if named is None else (named,)), *self.loops.sources)

    def check_named(self, name: str | None, evaluation: Evaluation, path: ConfigPath) -> None:
        """Report a step that names a source but reads none of its columns."""
        if name in self.values.supply.sources and name not in evaluation.sources and not self.values.faults.problems:
            objective = evaluation.computation.outputs[evaluation.objective].name
            message = f"`{objective}` reads no column of `{name}`"
            self.values.faults.add(path, message, "name another source, or remove `data`")

    def gradient(self, value: Any, objective: str, path: ConfigPath) -> Computation | None:
        """The computation of the `gradient` of a backward step; None after reporting a problem."""
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
        """The objective of a step that differentiates it; None after reporting a problem."""
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
        """The optimizers that a step names, or all of them."""
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

    def optimized(self, optimizers: tuple[str, ...]) -> tuple[str, ...]:
        optimized = {name for optimizer in optimizers for name in self.values.optimizers[optimizer].parameters}
        return tuple(name for name in self.values.trainable if name in optimized)

    def differentiates(
        self, objective: str, optimizers: tuple[str, ...], optimized: tuple[str, ...], path: ConfigPath
    ) -> tuple[str, ...]:
        """The optimizers' parameters that an objective depends on; reports a problem if there are none."""
        inputs = tuple(name for name in self.values.reaching(objective) if name in optimized)
        if not inputs and optimizers:
            names = ", ".join(f"`{name}`" for name in optimizers)
            message = f"the objective `{objective}` does not depend on the parameters of {names}"
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

    def value_clip(self, value: Any, path: ConfigPath, parameters: tuple[str, ...]) -> Clip:
        dtypes = {name: self.values.tensors[name].dtype for name in parameters}
        name = next((name for name, dtype in dtypes.items() if dtype.is_complex), None)
        if name is not None:
            message = f"`clip_grad_value` clamps real numbers, and `{name}` is {dtype_name(dtypes[name])}"
            self.values.faults.add(path, message, "use `clip_grad_norm`", key=True)
        return Clip(parameters, value=self.positive(value, path))

    def check_clips_last(self, parameters: tuple[str, ...], path: ConfigPath) -> None:
        """Warn of a clipping step without effect, because L-BFGS computes all these gradients again."""
        clipped = {*parameters}
        optimizers = [each for each in self.values.optimizers.values() if not clipped.isdisjoint(each.parameters)]
        if optimizers and all(each.needs_closure for each in optimizers):
            message = "`lbfgs` computes its gradients again within its step, and this clipping has no effect on it"
            self.values.faults.warn(path, message, "remove it, or use another optimizer")

    def check_closure(self, optimizers: tuple[str, ...]) -> None:
        """Report a `backward` whose gradients an L-BFGS step cannot compute again."""
        if self.partial is None:
            return
        path, inputs = self.partial
        if inputs is None:
            message = "`lbfgs` computes its gradients again within its step, without this `gradient`"
            hint = "multiply the objective by it, or use another optimizer"
            self.values.faults.add(path, message, hint, key=True)
            return
        for name in optimizers:
            optimizer = self.values.optimizers[name]
            reaching = self.values.reaching(self.objective or "")
            more = [each for each in optimizer.parameters if each in reaching and each not in inputs]
            if optimizer.needs_closure and more:
                message = f"`lbfgs` computes its gradients again within its step, and `{more[0]}` is among them"
                hint = f"add `{more[0]}` here, or give the optimizer these `parameters` only"
                self.values.faults.add(path, message, hint, key=True)

    def positive(self, value: Any, path: ConfigPath) -> float:
        found = number(value, path, self.values.environment.scalars, self.values.faults)
        if found is not None and not found > 0:
            self.values.faults.add(path, f"expected a number above 0, found {found!r}", "write a positive number")
        return float(found) if found is not None else 1.0

    def norm_column(self) -> int | None:
        return next((i for i, column in enumerate(self.values.columns) if column.role == "norm"), None)
