"""How `evaluate` makes the values of a whole source from those of its batches, and where that is not exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import fx

from runner.faults import ConfigPath, place
from runner.language.graph.computation import Computation, computed_from, extract_values
from runner.language.graph.lowered import Lowered
from runner.language.pooling.pooling import Constant, Derived, Mixed, Pooling, Rows, State, Term, operation, twins
from runner.language.text.faults import LanguageError
from runner.plan.data.batch_choice import Choice
from runner.plan.data.sources import SourcePlan
from runner.plan.program.expressions import Values, merged
from runner.plan.program.instructions import Accumulation, Classes, Evaluation, Part


@dataclass(frozen=True, slots=True)
class Pooled:
    """An evaluation whose outputs can be pooled over batches.

    Its first outputs are the values that are wanted; those of `derived` are the ones among them at `places`.
    """

    evaluation: Evaluation
    parts: tuple[Part, ...]
    derived: Computation | None = None
    places: tuple[int, ...] = ()


def pool(values: Values, source: SourcePlan, wanted: Sequence[str], choice: Choice, path: ConfigPath) -> Pooled:
    """The evaluation of some values over a whole source; a warning for each that depends on how it is batched."""
    computation, batches, variants = values.computations(wanted, choice, training=False, whole=True)
    plain = Evaluation(computation, 0, (), (), batches, variants)
    reference = _reference(values, [source.name], choice, False) if source.samples > source.batch_size else None
    if reference is None:
        return Pooled(plain, (Part("mean"),) * len(wanted))
    lowered, other = reference
    found = Outputs(lowered, wanted, [column.name for column in source.columns], other)
    for at, name in enumerate(wanted):
        blamed = found.blamed(at)
        if blamed is not None:
            _warn(values, source, name, blamed, path)
    if not found.extra:
        return Pooled(plain, tuple(found.parts), found.derived(), tuple(found.places))
    made: list[tuple[tuple[int, ...], Computation]] = []
    for lengths in values.lengths([source.name], True):
        again = values.lowered_for(choice, lengths, False)
        same = None if again is None else twins(list(lowered.graph.nodes), list(again.graph.nodes))
        if again is None or same is None:
            return Pooled(plain, (Part("mean"),) * len(wanted))
        names = [*wanted, *(f"part {number}" for number in range(len(found.extra)))]
        nodes = [*(again[name] for name in wanted), *(same[node] for node in found.extra)]
        made.append((tuple(lengths.values()), extract_values(again, names, nodes)))
    first = merged([computation for _, computation in made])
    evaluation = Evaluation(first, 0, (), (), batches, tuple(made) if len(made) > 1 else ())
    return Pooled(evaluation, tuple(found.parts), found.derived(), tuple(found.places))


class Outputs:
    """The outputs of a pooled evaluation: the values that are wanted, and behind them what these are made from.

    Args:
        columns: the batch columns that have an entry for each sample.
        other: the same expression for batches of another length, where numbers in it may depend on that.
    """

    def __init__(self, lowered: Lowered, wanted: Sequence[str], columns: Sequence[str], other: Lowered | None) -> None:
        nodes = self.nodes = list(lowered.graph.nodes)
        self._values = [lowered[name] for name in wanted]
        self._pooling = Pooling(nodes, columns, None if other is None else twins(nodes, list(other.graph.nodes)))
        self._names = wanted
        self._known: dict[fx.Node, int] = {}
        self.extra: list[fx.Node] = []
        self.states = [self._pooling.of(value) for value in self._values]
        self.parts = [Part("mean")] * len(wanted)
        self.places = [place for place, state in enumerate(self.states) if isinstance(state, Derived)]
        self._cuts = {
            node: self._output(node) for place in self.places for node in self._pooling.parts(self._values[place])
        }
        for node, output in self._cuts.items():
            self.parts[output] = self._part(self._pooling.of(node))
        for position, state in enumerate(self.states):
            self.parts[position] = Part("last") if isinstance(state, Derived) else self._part(state)

    def blamed(self, place: int) -> fx.Node | None:
        """The operation by which a value depends on how the samples are batched."""
        state, value = self.states[place], self._values[place]
        if isinstance(state, Mixed):
            return state.node
        return value if isinstance(state, Rows) and isinstance(value, fx.Node) else None

    def derived(self) -> Computation | None:
        """The values that are computed from pooled ones."""
        if not self.places:
            return None
        inputs = {node: str(output) for node, output in self._cuts.items()}
        return computed_from(inputs, [self._names[at] for at in self.places], [self._values[at] for at in self.places])

    def _output(self, node: fx.Node) -> int:
        """Where a node stands among the outputs."""
        if node not in self._known:
            self._known[node] = len(self.parts)
            self.extra.append(node)
            self.parts.append(Part("last"))
        return self._known[node]

    def _part(self, state: State) -> Part:
        if not isinstance(state, Term):
            return Part("mean")
        weights = state.weights
        if weights is None:
            return Part(state.pool)
        weight = None if weights.weight is None else self._output(weights.weight)
        return Part("weighted", (self._output(weights.target), weight, weights.ignore_index))


def _reference(
    values: Values, sources: Sequence[str], choice: Choice, training: bool
) -> tuple[Lowered, Lowered | None] | None:
    """The expression for batches of two lengths, the second where numbers in it may depend on that; None: unknown."""
    found = [(lengths, values.lowered_for(choice, lengths, training)) for lengths in values.lengths(sources, True)]
    first, lowered = found[0]
    if any(other is None for _, other in found) or lowered is None:
        return None
    long = min(first.values()) > 1
    shorter = [other for lengths, other in found if all(lengths[name] < first[name] for name in sources)]
    if long and (shorter or not values.expression.asks_lengths):
        return lowered, shorter[0] if shorter else None
    try:
        longer = {name: length + 1 for name, length in first.items()}
        again = values.expression.lower(values.supply.examples(choice, longer), training)
    except LanguageError:
        return None
    return again, lowered


def micro_outputs(values: Values, sources: Sequence[str], choice: Choice, wanted: Sequence[str]) -> Outputs | None:
    """What micro-batches make of some values; None where nothing can be said of it."""
    reference = _reference(values, sources, choice, True) if sources else None
    if reference is None:
        return None
    lowered, other = reference
    return Outputs(lowered, wanted, list(choice), other)


def accumulation(
    values: Values, evaluation: Evaluation, choice: Choice, objective: str, path: ConfigPath
) -> Accumulation:
    """How the micro-batches of a step become one; a warning for each value that is that of the last one alone."""
    wanted = evaluation.computation.names
    found = micro_outputs(values, evaluation.sources, choice, wanted)
    last = tuple(Part("mean" if name == objective else "last") for name in wanted)
    if found is None:
        return Accumulation(last)
    state = found.states[wanted.index(objective)]
    classes = _classes(values, evaluation, found, state)
    parts = []
    recorded = {output for output, _ in (*evaluation.columns, *evaluation.kept)}
    for output, (name, own) in enumerate(zip(wanted, found.states, strict=True)):
        if isinstance(own, Rows):
            parts.append(Part("rows", dim=own.dim) if output in recorded else Part("last"))
        elif isinstance(own, Term) and (own.weights is None or (own == state and classes is not None)):
            parts.append(Part(own.pool))
            if name == objective and evaluation.variants and own.pool in ("max", "min"):
                _warn_of_objective(values, name, values.lowered[name], path)
        elif name == objective:
            parts.append(Part("mean"))
            if evaluation.variants and not isinstance(own, Constant):
                _warn_of_objective(values, name, found.blamed(output) or values.lowered[name], path)
        else:
            parts.append(Part("last"))
            if output in recorded and not isinstance(own, Constant):
                _warn_of_last(values, name, found.blamed(output) or values.lowered[name], path)
    return Accumulation(tuple(parts), isinstance(state, Term) and state.pool == "sum", classes)


def _classes(values: Values, evaluation: Evaluation, found: Outputs, state: State) -> Classes | None:
    """What the shares of an objective over class indices are made from, where that is there before the objective is."""
    if not isinstance(state, Term) or state.weights is None:
        return None
    weights = state.weights
    wanted = [weights.target] if weights.weight is None else [weights.target, weights.weight]
    names = ["target", "weight"][: len(wanted)]
    made: list[tuple[tuple[int, ...], Computation]] = []
    for lengths in values.lengths(evaluation.sources, False):
        lowered = values.lowered_for(dict(evaluation.batches), lengths, True)
        same = None if lowered is None else twins(found.nodes, list(lowered.graph.nodes))
        if lowered is None or same is None:
            return None
        made.append((tuple(lengths.values()), extract_values(lowered, names, [same[node] for node in wanted])))
    first = made[0][1]
    if first.random or any(values.tensors[name].role == "parameter" for name in first.inputs if name in values.tensors):
        return None
    part = Part("weighted", (0, None if weights.weight is None else 1, weights.ignore_index))
    explicit = weights.weight is not None or weights.ignore_index != -100
    return Classes(first, tuple(made) if len(made) > 1 else (), part, explicit)


def _warn_of_objective(values: Values, name: str, blamed: fx.Node, path: ConfigPath) -> None:
    message = (
        f"the micro-batches of a step that accumulates are weighted by their length: `{operation(blamed)}` makes "
        f"`{name}` no mean or sum of samples"
    )
    _warn_at(values, blamed, message, "write `drop_last: true`, or a mean or a sum over samples", path)


def _warn_of_last(values: Values, name: str, blamed: fx.Node, path: ConfigPath) -> None:
    what = "draws random numbers" if blamed.meta.get("random") else "is no mean, sum or extreme of samples"
    message = f"`{name}` of a step that accumulates is that of its last micro-batch: `{operation(blamed)}` {what}"
    _warn_at(values, blamed, message, "write it with means and sums over samples, or `evaluate` it", path)


def _warn(values: Values, source: SourcePlan, name: str, blamed: fx.Node, path: ConfigPath) -> None:
    if blamed.meta.get("random"):
        return  # `advise` warns of every draw in `evaluate`
    what = f"`{operation(blamed)}` is no mean, sum or extreme of them"
    message = f"`{name}` of `{source.name}` depends on how its samples are batched: {what}"
    hint = f"leave `batch_size` out for `{source.name}`, or write it with means and sums over samples"
    _warn_at(values, blamed, message, hint, path)


def _warn_at(values: Values, blamed: fx.Node, message: str, hint: str, path: ConfigPath) -> None:
    origin = blamed.meta.get("origin")
    where = blamed.meta.get("place")
    document = values.faults.document
    if where is None:
        problem = document.problem(path, message, hint, key=True)
    else:
        problem = place(document, ("expression",), LanguageError(message, hint, where, origin))
    if problem not in values.faults.warnings:
        values.faults.warnings.append(problem)
