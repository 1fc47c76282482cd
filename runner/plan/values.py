"""The named values of a config: what of the expression each step computes, and what other expressions may read."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx

from runner.errors import did_you_mean
from runner.language.computation import (
    Computation,
    computed_with,
    differentiable_inputs,
    extract,
    inputs_of,
    loggable,
)
from runner.language.faults import LanguageError
from runner.language.inference import Inference
from runner.language.lowering import Lowered, lower_expression, uses_grad
from runner.language.scalars import Scalar
from runner.language.scope import Function, Scope
from runner.optim import OptimizerPlan
from runner.plan.columns import Column
from runner.plan.faults import ConfigPath, Faults, KeyPath
from runner.plan.instructions import Evaluation
from runner.plan.tensors import TensorPlan

NewInference = Callable[[bool], Inference]
"""Makes an inference over the plan's examples; with True, one that records gradients."""


@dataclass(slots=True)
class Values:
    """Everything that the expressions of a program can be about."""

    faults: Faults
    lowered: Lowered
    tensors: Mapping[str, TensorPlan]
    examples: Mapping[str, Tensor]
    scalars: Mapping[str, Scalar]
    tables: Mapping[str, tuple[Scalar, ...]]
    functions: Mapping[str, Function]
    dtype: torch.dtype
    device: str
    optimizers: Mapping[str, OptimizerPlan]
    declared_optimizers: frozenset[str]  # those with faults included
    infer: NewInference
    infer_again: Callable[[LanguageError], None]  # leaves this plan for another where the fault is one of inference
    columns: list[Column] = field(default_factory=list)
    demanded: set[str] = field(default_factory=set)  # named values that `assign`, `expect`, `when` or `gradient` reads
    read: set[str] = field(default_factory=set)  # tensors that any expression of the program reads or writes
    _evaluations: dict[tuple[str, ...], Evaluation] = field(default_factory=dict)

    @property
    def trainable(self) -> tuple[str, ...]:
        return tuple(
            name for name, tensor in self.tensors.items() if tensor.role == "parameter" and tensor.requires_grad
        )

    def default_objective(self) -> str:
        return self.lowered.result

    def objective(self, name: str | None, path: ConfigPath) -> str | None:
        """The named value that a step is about; a fault, and None, where there is none of that name."""
        name = name or self.lowered.result
        value = self.lowered.values.get(name)
        if value is None:
            known = [key for key, node in self.lowered.values.items() if loggable(node)]
            otherwise = f"named values are {', '.join(known)}" if known else None
            self.faults.add(
                path, f"`{name}` is not a named value of `expression`", did_you_mean(name, known, otherwise)
            )
            return None
        if not isinstance(value, fx.Node) or not isinstance(value.meta["example"], Tensor):
            self.faults.add(path, f"the objective `{name}` is not a tensor", "an objective is computed from parameters")
            return None
        return name

    def example(self, name: str) -> Tensor:
        example = self.lowered.values[name].meta["example"]
        assert isinstance(example, Tensor)
        return example

    def reaching(self, objective: str) -> tuple[str, ...]:
        """The trainable parameters that the derivative of an objective flows to, in the order of the file."""
        inputs = set(differentiable_inputs(self.lowered, objective))
        return tuple(name for name in self.trainable if name in inputs)

    def metrics(self, computed: Collection[str]) -> list[str]:
        """The metrics that a step can supply: those that read no other named values than it computes."""
        supplied = set(computed)
        return [name for name in self.lowered.metrics if supplied.issuperset(computed_with(self.lowered, [name]))]

    def evaluation(self, objective: str) -> Evaluation:
        """The computation of an objective with all that is named on the way, its metrics, and what later steps read."""
        wanted = computed_with(self.lowered, [objective])
        wanted += [name for name in computed_with(self.lowered, sorted(self.demanded)) if name not in wanted]
        wanted += self.metrics(wanted)
        key = (objective, *wanted)
        if key not in self._evaluations:
            computation = extract(self.lowered, wanted)
            self.read.update(computation.inputs)
            positions = {
                column.name: position for position, column in enumerate(self.columns) if column.role == "value"
            }
            columns = tuple((output, positions[name]) for output, name in enumerate(wanted) if name in positions)
            kept = tuple((output, name) for output, name in enumerate(wanted) if name in self.demanded)
            self._evaluations[key] = Evaluation(computation, wanted.index(objective), columns, kept)
        return self._evaluations[key]

    def parameters(self, patterns: Sequence[str] | None, path: ConfigPath) -> tuple[str, ...]:
        """The trainable parameters that names or globs stand for; all of them for None."""
        if patterns is None:
            return self.trainable
        found: list[str] = []
        for number, pattern in enumerate(patterns):
            matching = [name for name in self.trainable if fnmatch.fnmatchcase(name, pattern)]
            if not matching:
                hint = did_you_mean(pattern, self.trainable, f"trainable parameters are {', '.join(self.trainable)}")
                self.faults.add((*path, number), f"`{pattern}` is not a trainable parameter", hint)
            found.extend(name for name in matching if name not in found)
        return tuple(found)

    # expressions about the state of a run: `assign`, `expect`, `when`

    def scope(self) -> Scope:
        """What `assign`, `expect` and `when` may read."""
        tensors = dict(self.examples)
        fixed: dict[str, object] = {}
        running: dict[str, Scalar] = {"iteration": 1}
        for name, value in self.lowered.values.items():
            example = value.meta["example"] if isinstance(value, fx.Node) else value
            if isinstance(example, Tensor):
                tensors[name] = example
            elif isinstance(value, fx.Node) and isinstance(example, (bool, int, float)):
                running[name] = example
            elif not isinstance(value, fx.Node):
                fixed[name] = value
        roles = {name: tensor.role for name, tensor in self.tensors.items()}
        return Scope(
            tensors=tensors,
            roles=roles,
            scalars=self.scalars,
            tables=self.tables,
            running=running,
            fixed=fixed,
            fields=self._fields(),
            functions=self.functions,
            dtype=self.dtype,
            device=self.device,
            writable=False,
        )

    def _fields(self) -> dict[str, Tensor | Scalar]:
        fields: dict[str, Tensor | Scalar] = {f"{name}.grad": self.examples[name] for name in self.trainable}
        for optimizer in self.optimizers.values():
            for name, entries in optimizer.state.items():
                for entry in entries:
                    fields[f"{name}.{entry.name}"] = self.examples[name].new_zeros(entry.shape, dtype=entry.dtype)
        return fields

    def compile(self, text: str, path: ConfigPath, *, key: bool = False) -> Computation | None:
        """One expression over the state of the run; a fault, and None, where it has one."""
        scope = self.scope()
        try:
            lowered = lower_expression(text, scope, self.infer(uses_grad(text, scope)))
            if not loggable(lowered.values["value"]) and not isinstance(lowered.values["value"], (bool, int, float)):
                raise LanguageError("this is neither a tensor nor a number", "write an expression with one value")
            computation = extract(lowered, ["value"], KeyPath(path) if key else path)
        except LanguageError as error:
            self.infer_again(error)
            self.faults.language(path, error, key=key)
            return None
        self.note_reads(computation.inputs)
        return computation

    def note_reads(self, inputs: Iterable[str]) -> None:
        """Remember what an expression reads: named values have to be computed, tensors are in use."""
        for name in inputs:
            owner = name.partition(".")[0]
            self.read.add(owner)
            if name in self.lowered.values:
                self.demanded.add(name)
                self.read.update(inputs_of(self.lowered, [name]))
