"""A trained run as a function of tensors."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runner.config import Config
from runner.errors import ConfigError, Problem, RunError, UsageError, did_you_mean, listing
from runner.faults import Faults, PlacedFault, place
from runner.language.dtypes import DTYPES, dtype_name
from runner.language.graph.computation import Computation, extract, forget_examples, loggable
from runner.language.graph.draws import draws
from runner.language.graph.lowered import Lowered
from runner.language.inference.inference import Bounds, Inference
from runner.language.lowering.lower import Measured, lower_statements, uses_grad
from runner.language.lowering.scope import Environment, declare_functions
from runner.language.text.faults import LanguageError
from runner.plan.data.reading.source_tables import class_counts
from runner.plan.determinism import deterministic
from runner.plan.scalars import scalar_constants
from runner.plan.tensors.examples import infer_initial
from runner.plan.tensors.initial_values import InitialContext, initial_values, tables
from runner.plan.tensors.tensors import plan_tensors
from runner.record.apply.columns import ColumnOfRun, SourcesOfRun
from runner.record.apply.needed import Needed, named_values, needed, plain_metrics, tensors_behind

MOST_COMPILED = 16
"""How many functions a model keeps, one for each set of values and shapes of batches."""

Batch = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Compiled:
    """A function that computes some values of one shape of batches."""

    function: Callable[[Batch], tuple[Any, ...]]
    computation: Computation
    columns: tuple[str, ...]  # the columns that it reads


class Model:
    """A trained run: `model(x=tensor)` computes its named values, with `training` false and without gradients.

    Attributes:
        values: the names that it can compute, as the config's `expression` and `metrics` define them.
        columns: the batch columns by name, with the shape and dtype of one sample.
        parameters: the weights by name, on the model's device.
        device: the torch device.
    """

    __slots__ = (
        "_allowed",
        "_compiled",
        "_computable",
        "_config",
        "_environment",
        "_fitted",
        "_needed",
        "_sources",
        "_tensors",
        "columns",
        "device",
        "parameters",
        "values",
    )  # fmt: skip

    def __init__(
        self,
        config: Config,
        weights: Batch,
        *,
        sources: SourcesOfRun,
        fitted: Batch,
        device: str,
        allowed: Iterable[Path] = (),
    ) -> None:
        self.device = device
        self.values = named_values(config)
        self.columns: Mapping[str, ColumnOfRun] = sources.columns
        self.parameters = {name: value.to(device) for name, value in weights.items()}
        self._config = config
        self._sources = sources
        self._fitted = fitted
        self._allowed = tuple(allowed)
        self._environment = _environment(config, sources.sizes, device)
        self._tensors: dict[str, Tensor] = dict(self.parameters)
        self._computable: dict[frozenset[str], tuple[str, ...]] = {}  # the values that some columns suffice for
        self._needed: dict[tuple[str, ...], Needed] = {}
        self._compiled: OrderedDict[Hashable, Compiled] = OrderedDict()

    def __call__(self, **columns: Tensor) -> dict[str, Tensor]:
        """Compute every named value that needs no other columns than these.

        Args:
            columns: a batch of one length for each column, `(samples, *shape)`, in the dtype of the run.
        Returns:
            each value by name, on the model's device.
        Raises:
            UsageError: a name, shape or dtype is not that of the run.
            RunError: an operation fails.
        """
        batch = self._batch(columns)
        wanted = self._tensors_of(batch)
        return dict(zip(wanted, self.compute(wanted, batch), strict=True))

    def value(self, name: str, **columns: Tensor) -> Tensor:
        """Compute one named value. Takes, returns and raises as a call of the model."""
        self.check_values([name])
        batch = self._batch(columns)
        missing = sorted(self.columns_of([name]) - batch.keys())
        if missing:
            raise UsageError(Problem(f"`{name}` needs the column `{missing[0]}`", f"pass it: {missing[0]}=…"))
        return self.compute((name,), {column: batch[column] for column in self.columns_of([name])})[0]

    def check_values(self, names: Sequence[str]) -> None:
        """Raise UsageError unless the run has all these named values."""
        for name in names:
            if name not in self.values:
                hint = did_you_mean(name, self.values, f"named values are {listing(self.values)}")
                raise UsageError(Problem(f"the run has no named value `{name}`", hint))

    def columns_of(self, names: Iterable[str]) -> set[str]:
        """The batch columns that some named values need."""
        found = self._need(tuple(names)).names
        return {name for name in self._known_columns() if name in found}

    def compute(self, wanted: tuple[str, ...], batch: Batch) -> tuple[Tensor, ...]:
        """Compute named values of a batch whose columns are right.

        Raises:
            RunError: an operation fails.
        """
        compiled = self.compiled(wanted, batch)
        try:
            with deterministic(self.device):
                found = compiled.function(batch)
        except (RuntimeError, ValueError, IndexError, TypeError, ArithmeticError, MemoryError) as error:
            raise RunError(Problem(f"{listing(f'`{name}`' for name in wanted)}: {error}")) from error
        return tuple(value if isinstance(value, Tensor) else torch.tensor(value) for value in found)

    def compiled(self, wanted: tuple[str, ...], batch: Batch) -> Compiled:
        """The function for some values and the shapes of a batch; made on first use.

        Raises:
            ConfigError: the expression does not fit these shapes.
        """
        key = (wanted, tuple((name, tuple(value.shape), value.dtype) for name, value in sorted(batch.items())))
        found = self._compiled.get(key)
        if found is None:
            found = self._compiled[key] = self._compile(wanted, batch)
            if len(self._compiled) > MOST_COMPILED:
                self._compiled.popitem(last=False)
        else:
            self._compiled.move_to_end(key)
        return found

    def _compile(self, wanted: tuple[str, ...], batch: Batch) -> Compiled:
        tensors = self._tensors_for(wanted)
        lowered = self._lower(wanted, {**tensors, **batch})
        for name in wanted:
            if not _is_one_value(lowered[name]):
                raise UsageError(Problem(f"`{name}` is not a tensor", "name a value that is one tensor"))
        computation = extract(lowered, wanted)
        if "iteration" in computation.inputs:
            shown = listing(f"`{name}`" for name in wanted)
            message = f"{shown} depends on `iteration`, which counts the steps of a run"
            raise UsageError(Problem(message, "name a value that does not read it"))
        forget_examples(lowered)
        function, inputs = computation.function, computation.inputs
        mode = torch.enable_grad if computation.gradients else torch.no_grad
        fixed = {name: tensors[name] for name in inputs if name in tensors}

        def call(batch: Batch) -> tuple[Any, ...]:
            with mode():
                return function(None, *[fixed[name] if name in fixed else batch[name] for name in inputs])

        return Compiled(call, computation, tuple(name for name in inputs if name not in fixed))

    def _lower(self, wanted: tuple[str, ...], tensors: Batch) -> Lowered:
        config, need = self._config, self._need(wanted)
        constants = {name: tensors[name] for name in config.constants if name in tensors}
        scope = Environment(
            self._environment.scalars,
            tables(constants),
            self._environment.functions,
            self._environment.dtype,
            self.device,
        ).scope(tensors, running={"iteration": 1}, fixed={"training": False})
        texts = plain_metrics(config)
        metrics = [Measured(("metrics", name), {"": texts[name]}) for name in need.metrics]
        gradients = any(uses_grad(part, scope) for part in (need.text, *texts.values()))
        inference = Inference(Bounds(), gradients, self.device)
        text = need.text if need.text.strip() else "value = 0"
        try:
            with deterministic(self.device):
                lowered = lower_statements(text, scope, inference, metrics)
        except LanguageError as error:
            raise ConfigError(place(config.document, ("expression",), error)) from error
        for node in lowered.graph.nodes:
            node.meta["random"] = draws(node)  # `dropout(h, 0.1, training)` draws nothing here
        return lowered

    def _tensors_for(self, wanted: tuple[str, ...]) -> dict[str, Tensor]:
        """The weights and constants that some values need; a constant is computed once."""
        names = self._need(wanted).names
        config = self._config
        lost = [name for name in config.parameters if name in names and name not in self.parameters]
        if lost:
            raise UsageError(Problem(f"the weights of this run have no `{lost[0]}`", "name other weights with `at`"))
        constants = [name for name in tensors_behind(config, names) if name not in self.parameters]
        missing = [name for name in constants if name in names and name not in self._tensors]
        if missing:
            self._tensors |= {name: value.to(self.device) for name, value in self._constants(missing).items()}
        return {name: value for name, value in self._tensors.items() if name in names}

    def _constants(self, names: Sequence[str]) -> dict[str, Tensor]:
        config, environment = self._config, self._environment
        behind = tensors_behind(config, names)
        declared = {name: value for name, value in config.constants.items() if name in behind}
        parameters = {name: value for name, value in config.parameters.items() if name in behind}
        reduced = config.model_copy(update={"constants": declared, "parameters": parameters, "data": {}})
        context = InitialContext(config.seed, environment, Bounds(), fitted=self._fitted)
        faults = Faults(config.document)
        scalars = {**environment.scalars, **self._sources.sizes}
        infer = partial(infer_initial, context=context)
        plans = plan_tensors(reduced, scalars, environment.dtype, faults.problems, self._allowed, infer=infer)
        faults.stop()
        try:
            values = initial_values(plans, context, names)
        except PlacedFault as fault:
            raise RunError(fault.problem(config.document)) from fault
        return {name: values[name] for name in names}

    def _tensors_of(self, batch: Batch) -> tuple[str, ...]:
        """The named values that are tensors or numbers and need no columns but those of a batch."""
        given = frozenset(batch)
        if given not in self._computable:
            names = tuple(name for name in self.values if self.columns_of([name]) <= given)
            lowered = self._lower(names, {**self._tensors_for(names), **batch})
            self._computable[given] = tuple(name for name in names if _is_one_value(lowered[name]))
        return self._computable[given]

    def _need(self, wanted: tuple[str, ...]) -> Needed:
        if wanted not in self._needed:
            self._needed[wanted] = needed(self._config, wanted)
        return self._needed[wanted]

    def _known_columns(self) -> set[str]:
        declared = {name for source in self._config.data.values() for name in source.columns}
        return declared | set(self.columns)

    def _batch(self, columns: Batch) -> dict[str, Tensor]:
        """The columns of a call on the model's device, after checking them."""
        known = self._known_columns()
        lengths: dict[str, int] = {}
        for name, value in columns.items():
            if name not in known:
                hint = did_you_mean(name, known, f"columns are {listing(sorted(known))}")
                raise UsageError(Problem(f"the run has no column `{name}`", hint))
            if not isinstance(value, Tensor):
                raise UsageError(Problem(f"`{name}` is a {type(value).__name__}", "pass a torch tensor"))
            if value.is_meta:
                raise UsageError(Problem(f"`{name}` is on the meta device, without values", "pass a tensor of numbers"))
            described = self.columns.get(name)
            if value.dim() == 0 or (described is not None and tuple(value.shape[1:]) != described.shape):
                shape = described.shape if described is not None else ()
                expected = f"(samples, {', '.join(map(str, shape))})" if shape else "(samples,)"
                message = f"`{name}` has shape {tuple(value.shape)}, and the run's has {expected}"
                raise UsageError(Problem(message, "give the first dimension the samples of the batch"))
            if described is not None and value.dtype != described.dtype:
                message = f"`{name}` is {dtype_name(value.dtype)}, and the run's is {dtype_name(described.dtype)}"
                raise UsageError(Problem(message, f"convert it: {name}.to(torch.{dtype_name(described.dtype)})"))
            lengths[name] = len(value)
        if 0 in lengths.values():
            raise UsageError(Problem("the batch has no samples", "pass at least one"))
        if len(set(lengths.values())) > 1:
            shown = listing(f"`{name}` has {length}" for name, length in lengths.items())
            raise UsageError(Problem(f"the columns have different numbers of samples: {shown}", "pass equal lengths"))
        return {name: value.to(self.device) for name, value in columns.items()}

    def __repr__(self) -> str:
        return f"<Model of {self._config.name or 'a run'}: {', '.join(self.values)}>"


def _environment(config: Config, sizes: Mapping[str, tuple[int, ...]], device: str) -> Environment:
    faults = Faults(config.document)
    scalars = scalar_constants(config, faults, dict(class_counts(config.data)), sizes)
    faults.stop()
    functions, wrong = declare_functions(config.functions)
    for declaration, head, error in wrong:
        faults.language(("functions", declaration), error, key=head)
    faults.stop()
    return Environment(scalars, {}, functions, DTYPES[config.dtype], device)


def _is_one_value(value: Any) -> bool:
    return loggable(value) or isinstance(value, (bool, int, float))
