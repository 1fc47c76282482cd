"""The named values of a config: the ones that each step computes, and those that other expressions can read."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor, fx

from runner.errors import did_you_mean, listing
from runner.faults import ConfigPath, Faults, KeyPath
from runner.language.dtypes import dtype_name
from runner.language.graph.computation import (
    Computation,
    computed_with,
    differentiable_inputs,
    extract,
    given,
    inputs_of,
    loggable,
)
from runner.language.graph.lowered import Lowered
from runner.language.lowering.lower import check_one_value, input_alone, lower_expression, uses_grad
from runner.language.lowering.scope import Environment, Scope
from runner.language.text.arithmetic import Scalar
from runner.language.text.faults import LanguageError
from runner.optim import OptimizerPlan
from runner.plan.data.batch_choice import MOST_VARIANTS, Choice, Supply
from runner.plan.program.instructions import Evaluation
from runner.plan.program.whole_expression import WholeExpression
from runner.plan.rows.columns import Column
from runner.plan.tensors.examples import Shapes, Warned
from runner.plan.tensors.tensors import TensorPlan


@dataclass(slots=True)
class Values:
    """Everything that the expressions of a program can refer to."""

    faults: Faults
    lowered: Lowered
    tensors: Mapping[str, TensorPlan]
    examples: Mapping[str, Tensor]
    environment: Environment
    optimizers: Mapping[str, OptimizerPlan]
    declared_optimizers: frozenset[str]  # including those with problems
    shapes: Shapes
    supply: Supply
    expression: WholeExpression
    columns: list[Column] = field(default_factory=list)
    varying: set[str] = field(default_factory=set)  # named values whose shape varies from batch to batch
    results: dict[str, Tensor] = field(
        default_factory=dict
    )  # an example of each result of `evaluate`, by name: "test.loss"
    measured: dict[str, list[ConfigPath]] = field(default_factory=dict)  # each of them → the steps that measure it
    demanded: set[str] = field(default_factory=set)  # named values that `assign`, `expect`, `when` or `gradient` read
    read: set[str] = field(default_factory=set)  # tensors that any expression of the program reads or writes
    _evaluations: dict[tuple[object, ...], Evaluation] = field(default_factory=dict)
    _lowered: dict[tuple[object, ...], Lowered | None] = field(default_factory=dict)
    _scopes: dict[tuple[int, int], Scope] = field(default_factory=dict)
    _reaching: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _others: list[Lowered] = field(default_factory=list)  # expressions of `assign`, `expect` and `when`
    _inputs: fx.Graph = field(default_factory=fx.Graph)  # of those that only name an input
    _given: dict[tuple[str, int, bool], Computation] = field(default_factory=dict)

    @property
    def trainable(self) -> tuple[str, ...]:
        return tuple(
            name for name, tensor in self.tensors.items() if tensor.role == "parameter" and tensor.requires_grad
        )

    def objective(self, name: str | None, path: ConfigPath) -> str | None:
        """The name of a step's objective, by default the expression's result; None after reporting a problem."""
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
        """The trainable parameters that an objective depends on, in the order of the file."""
        if objective not in self._reaching:
            inputs = set(differentiable_inputs(self.lowered, objective))
            self._reaching[objective] = tuple(name for name in self.trainable if name in inputs)
        return self._reaching[objective]

    def metrics(self, computed: Collection[str]) -> list[str]:
        """The metrics that a step can supply: those that only read named values it computes."""
        supplied = set(computed)
        return [name for name in self.lowered.metrics if supplied.issuperset(computed_with(self.lowered, [name]))]

    def note_lowered(self, lowered: Lowered) -> None:
        """Record a further expression, whose example tensors are freed after planning."""
        self._others.append(lowered)

    def wanted(self, objective: str) -> list[str]:
        """The names to compute for an objective: its named intermediates, metrics, and values that later steps read."""
        wanted = computed_with(self.lowered, [objective])
        wanted += [name for name in computed_with(self.lowered, sorted(self.demanded)) if name not in wanted]
        return wanted + self.metrics(wanted)

    def evaluation(self, objective: str, preferred: Sequence[str] = (), *, parts: bool = False) -> Evaluation:
        """The computation for an objective, with batches from the `preferred` sources first.

        Args:
            parts: whether to compute the sums of declared ratios too: `loss.sum` and `loss.over`.
        """
        wanted = self.wanted(objective)
        if parts:
            wanted += [part for part in self.lowered.parts if part.rpartition(".")[0] in wanted]
        choice = self.supply.choose(preferred)
        key = (objective, tuple(choice.values()), *wanted)
        if key not in self._evaluations:
            computation, batches, variants = self.computations(wanted, choice, objective=objective)
            positions = {
                column.name: position for position, column in enumerate(self.columns) if column.role == "value"
            }
            columns = tuple((output, positions[name]) for output, name in enumerate(wanted) if name in positions)
            kept = tuple((output, name) for output, name in enumerate(wanted) if name in self.demanded)
            evaluation = Evaluation(computation, wanted.index(objective), columns, kept, batches, variants)
            self._evaluations[key] = evaluation
        return self._evaluations[key]

    # batches: an expression is lowered once for every combination of batch lengths of a step

    def computations(
        self,
        wanted: Sequence[str],
        choice: Choice,
        *,
        objective: str | None = None,
        training: bool = True,
        whole: bool = False,
    ) -> tuple[Computation, tuple[tuple[str, str], ...], tuple[tuple[tuple[int, ...], Computation], ...]]:
        """The computation of some values, its batch columns with their sources, and a variant for each length.

        Args:
            choice: the source of each batch column.
            objective: computed first, so that the random draws of other values do not affect it.
            whole: whether a pass includes the last batch that `drop_last` would drop.
        """
        first = extract(self.lowered, wanted, first=objective)
        self.read.update(first.inputs)
        read = [name for name in first.inputs if name in choice]
        if not read and training:
            return first, (), ()
        self.supply.note(choice, read)
        sources = list(dict.fromkeys(choice[name] for name in read))
        variants: list[tuple[tuple[int, ...], Computation]] = []
        for lengths in self.lengths(sources, whole):
            lowered = self.lowered_for(choice, lengths, training)
            if lowered is not None:
                variants.append((tuple(lengths.values()), extract(lowered, wanted, first=objective)))
        if not variants:  # the problem was already reported
            return first, (), ()
        batches = tuple((name, choice[name]) for name in read)
        found = merged([computation for _, computation in variants])
        return found, batches, tuple(variants) if len(variants) > 1 else ()

    def reads(self, wanted: Iterable[str]) -> list[str]:
        """The batch columns that some values depend on."""
        return [name for name in inputs_of(self.lowered, wanted) if name in self.supply.columns]

    def lengths(self, sources: Sequence[str], whole: bool) -> list[dict[str, int]]:
        """The combinations of batch lengths of some sources; reports a problem if there are too many."""
        found = list(self.supply.combinations(sources, whole))
        if len(found) > MOST_VARIANTS:
            message = f"the batches of {len(sources)} sources have {len(found)} combinations of lengths"
            self.faults.add(("data",), message, "write `drop_last: true` for some of them", key=True)
            return found[:1]
        return found

    def lowered_for(self, choice: Choice, lengths: Mapping[str, int], training: bool) -> Lowered | None:
        """The expression lowered for batches of these lengths; None after its problem was reported."""
        key = (training, *self.supply.signature(choice, lengths))
        if key == (True, *self.supply.signature(self.supply.choose(), {})):
            return self.lowered
        if key not in self._lowered:
            known = list(self.shapes.warned)
            try:
                self._lowered[key] = self.expression.lower(self.supply.examples(choice, lengths), training)
                self._place_warnings(known, lengths, training)
            except LanguageError as error:
                self.shapes.retry(error)
                self._say_when(error, lengths, training)
                self.faults.language(("expression",), error)
                self._lowered[key] = None
        return self._lowered[key]

    def _place_warnings(self, known: Sequence[Warned], lengths: Mapping[str, int], training: bool) -> None:
        """Say of torch's new warnings which batches they are about; those at a known place are left out."""
        places = [_place_of(each) for each in known]
        new = [each for each in self.shapes.warned[len(known) :] if _place_of(each) not in places]
        self.shapes.warned[len(known) :] = new
        for _, _, error in new:
            short = self._say_when(error, lengths, training)
            if short and not training:
                error.hint = f"choose a `batch_size` for `{short[0]}` without a shorter last batch, or leave it out"

    def _say_when(self, error: LanguageError, lengths: Mapping[str, int], training: bool) -> list[str]:
        """Add the batches to the message of an error; returns the sources of those that are shorter last ones."""
        error.message = f"{error.message}, {_circumstances(lengths, training)}"
        short = [name for name, length in lengths.items() if length < self.supply.sources[name].batch_size]
        if short and training:
            error.hint = f"write `drop_last: true` for `{short[0]}`, which leaves its last batch out"
        return short

    def other_lowered(self) -> Iterator[Lowered]:
        """The expression lowered for all further batch lengths, and the expressions of steps."""
        yield from (lowered for lowered in self._lowered.values() if lowered is not None)
        yield from self._others
        yield Lowered(self._inputs, {}, "", False, False)

    def find_varying(self, preferred: Sequence[str], names: Sequence[str]) -> None:
        """Find the values whose shape varies over the batches of a step with these sources."""
        choice = self.supply.choose(preferred)
        read = [name for name in inputs_of(self.lowered, names) if name in choice]
        sources = list(dict.fromkeys(choice[name] for name in read))
        for lengths in self.lengths(sources, whole=False):
            lowered = self.lowered_for(choice, lengths, training=True)
            if lowered is None:
                continue
            for name in names:
                expected, found = _example(self.lowered[name]), _example(lowered[name])
                if not isinstance(expected, Tensor) or not isinstance(found, Tensor):
                    continue
                if found.shape != expected.shape:
                    self.varying.add(name)
                if found.dtype != expected.dtype:
                    message = f"`{name}` is {dtype_name(expected.dtype)}, and with batches of {listing(sources, 3)} "
                    hint = "give the columns of both sources one dtype: `dtype: {…}`"
                    self.faults.add(("data",), f"{message}{dtype_name(found.dtype)}", hint, key=True)

    def parameters(self, patterns: Sequence[str] | None, path: ConfigPath) -> tuple[str, ...]:
        """The trainable parameters that match names or globs; all of them for None."""
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

    # expressions over the state of a run: `assign`, `expect`, `when`

    def scope(self) -> Scope:
        """The scope of `assign`, `expect` and `when`; the same one until a step adds a result or a varying shape."""
        known = len(self.results), len(self.varying)
        if known not in self._scopes:
            self._scopes[known] = self._scope()
        return self._scopes[known]

    def _scope(self) -> Scope:
        tensors = dict(self.examples)
        fixed: dict[str, object] = {}
        running: dict[str, Scalar] = {"iteration": 1}
        for name, value in self.lowered.values.items():
            example = _example(value)
            if isinstance(example, Tensor):
                tensors[name] = example
            elif isinstance(value, fx.Node) and isinstance(example, (bool, int, float)):
                running[name] = example
            elif not isinstance(value, fx.Node):
                fixed[name] = value
        roles = {name: tensor.role for name, tensor in self.tensors.items()}
        return self.environment.scope(
            tensors,
            roles=roles,
            running=running,
            fixed=fixed,
            fields=self._fields(),
            varying=frozenset(self.varying),
            elsewhere=self._elsewhere(),
            writable=False,
        )

    def _elsewhere(self) -> dict[str, str]:
        """Names that only the expression and its metrics can read, each with what it is, for error messages."""
        found = dict.fromkeys(self.supply.sources, "a data source with no such result")
        for result in self.results:
            found[result.partition(".")[0]] = f"a data source with the results {listing(sorted(self.results), 6)}"
        found |= dict.fromkeys(self.supply.columns, "a batch column")
        return found | dict.fromkeys(self.lowered.metrics, "a metric")

    def _fields(self) -> dict[str, Tensor | Scalar]:
        fields: dict[str, Tensor | Scalar] = dict(self.results)
        fields |= {f"{name}.grad": self.examples[name] for name in self.trainable}
        for optimizer in self.optimizers.values():
            for name, entries in optimizer.state.items():
                for entry in entries:
                    fields[f"{name}.{entry.name}"] = self.examples[name].new_zeros(entry.shape, dtype=entry.dtype)
        return fields

    def compile(self, text: str, path: ConfigPath, *, key: bool = False) -> Computation | None:
        """The computation of one expression over the state of the run; None after reporting a problem."""
        scope, origin = self.scope(), KeyPath(path) if key else path
        try:
            alone = input_alone(text, scope)
            if alone is None:
                lowered = lower_expression(text, scope, self.shapes.inference(uses_grad(text, scope), origin))
                check_one_value(lowered.values["value"])
                computation = extract(lowered, ["value"], origin)
                self._others.append(lowered)
            else:
                computation = replace(self._alone(*alone, alone[0] in scope.varying), origin=origin)
        except LanguageError as error:
            self.shapes.retry(error)
            self.faults.language(path, error, key=key)
            return None
        self.note_reads(computation.inputs)
        return computation

    def _alone(self, name: str, example: Tensor | Scalar, varies: bool) -> Computation:
        """The computation of an input alone, made once; there is nothing to run, or to warn of."""
        key = name, id(example), varies
        if key not in self._given:
            self._given[key] = given(name, example, self._inputs, varies=varies)
        return self._given[key]

    def note_reads(self, inputs: Iterable[str]) -> None:
        """Record what an expression reads: named values must be computed, and tensors are in use."""
        for name in inputs:
            owner = name.partition(".")[0]
            self.read.add(owner)
            if name in self.lowered.values:
                self.demanded.add(name)
                self.read.update(inputs_of(self.lowered, [name]))


def _example(value: object) -> object:
    return value.meta["example"] if isinstance(value, fx.Node) else value


def merged(computations: Sequence[Computation]) -> Computation:
    """The first of several computations, with output shapes and aliases that are valid for all."""
    first = computations[0]
    outputs = []
    for output, *others in zip(*(computation.outputs for computation in computations), strict=True):
        shape = output.shape if all(other.shape == output.shape for other in others) else None
        outputs.append(replace(output, shape=shape, aliases=any(found.aliases for found in (output, *others))))
    return replace(first, outputs=tuple(outputs))


def _place_of(warned: Warned) -> tuple[object, ...]:
    path, text, error = warned
    return path, text, error.place, error.origin


def _circumstances(lengths: Mapping[str, int], training: bool) -> str:
    batches = " and ".join(f"{length} of `{source}`" for source, length in lengths.items())
    return f"with a batch of {batches}" + ("" if training else " in `evaluate`")
