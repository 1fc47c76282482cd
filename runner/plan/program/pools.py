"""How to combine values over the batches of `evaluate` and over micro-batches, and when that is not exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import fx

from runner.faults import ConfigPath, place
from runner.language.graph.computation import Computation, Output, extract_values
from runner.language.graph.draws import draws
from runner.language.graph.lowered import Lowered
from runner.language.pooling.pooling import Constant, Rows, State, Term, operation, twins
from runner.language.text.faults import LanguageError
from runner.plan.data.batch_choice import Choice
from runner.plan.data.sources import SourcePlan
from runner.plan.program.expressions import Values, merged
from runner.plan.program.instructions import Accumulation, Classes, Evaluation, Part, Whole
from runner.plan.program.outputs import Outputs
from runner.plan.program.wholes import declared_whole, gathered_bytes, gathering, not_of_samples


@dataclass(frozen=True, slots=True)
class Where:
    """Where a requested value is: an output of the evaluation, of `derived`, or of one of the `wholes`."""

    inferred: Output  # its dtype and shape
    output: int | None = None
    derived: int | None = None
    whole: int | None = None


@dataclass(frozen=True, slots=True)
class Pooled:
    """An evaluation whose outputs can be pooled over batches.

    `derived` computes values from pooled outputs, and each of the `wholes` from gathered ones.
    """

    evaluation: Evaluation
    parts: tuple[Part, ...]
    places: Mapping[str, Where]  # of each requested value
    derived: Computation | None = None
    wholes: tuple[Whole, ...] = ()
    bytes: int = 0  # of gathered values


def pool(values: Values, source: SourcePlan, wanted: Sequence[str], choice: Choice, path: ConfigPath) -> Pooled:
    """The evaluation of some values over a whole source; warns of each value that depends on the batching."""
    several = source.samples > source.batch_size or any(declared_whole(values, name) for name in wanted)
    reference = _reference(values, [source.name], choice, False) if several else None
    if reference is None:
        return _averaged(values, wanted, choice)
    lowered, other = reference
    columns = [column.name for column in source.columns]
    states = Outputs(lowered, (), columns, other)
    possible = [gathering(values, source, choice, states, name) for name in wanted]
    gatherings = [each for each in possible if each is not None]
    for name in wanted:
        _check_sums(values, states, name)
    apart = [gathering.name for gathering in gatherings]
    kept = [name for name in wanted if name not in apart]
    found = Outputs(lowered, kept, columns, other)
    for at, name in enumerate(kept):
        blamed = found.blamed(at)
        if blamed is not None and source.samples > source.batch_size and not declared_whole(values, name):
            _warn(values, source, name, blamed, _hint(values, source, name, states), path)
    wholes = tuple(
        Whole(each.computation, tuple((name, found.gather(name)) for name in each.reads)) for each in gatherings
    )
    evaluation = _with_extra(values, source, kept, choice, found)
    if evaluation is None:
        return _averaged(values, wanted, choice)
    derived, outputs = found.derived(), evaluation.computation.outputs
    places = {name: Where(outputs[at], at) for at, name in enumerate(kept)}
    places |= {kept[at]: Where(outputs[at], at, place) for place, at in enumerate(found.places)}
    places |= {
        each.name: Where(replace(each.computation.outputs[0], name=each.name), whole=at)
        for at, each in enumerate(gatherings)
    }
    size = gathered_bytes(found, gatherings, source.samples)
    return Pooled(evaluation, tuple(found.parts), places, derived, wholes, size)


def _check_sums(values: Values, found: Outputs, name: str) -> None:
    """Report a declared sum over something that is the same in every batch: it would count the batches."""
    config = values.expression.config
    key = "objectives" if name in config.objectives else "metrics"
    declared = config.objectives.get(name) or config.metrics.get(name)
    if declared is None or isinstance(declared, str):
        return
    for part in ("sum", "over"):
        summed = found.lowered.parts.get(f"{name}.{part}")
        if summed is None and part == "sum" and "sum" in declared.parts:
            summed = found.lowered.metrics[name]
        if summed is not None and found.same_in_every_batch(summed):
            message = f"`{part}` of `{name}` is summed over batches, and is the same in each of them"
            values.faults.add((key, name, part), message, "write what depends on the samples, such as `len(x)`")


def _averaged(values: Values, wanted: Sequence[str], choice: Choice) -> Pooled:
    """The evaluation of values of which nothing is known, or whose source is one batch: their mean over batches."""
    computation, batches, variants = values.computations(wanted, choice, training=False, whole=True)
    evaluation = Evaluation(computation, 0, (), (), batches, variants)
    places = {name: Where(computation.outputs[at], at) for at, name in enumerate(wanted)}
    return Pooled(evaluation, (Part("mean"),) * len(wanted), places)


def _with_extra(
    values: Values, source: SourcePlan, wanted: Sequence[str], choice: Choice, found: Outputs
) -> Evaluation | None:
    """The evaluation of the requested values and of those that they are computed from; None if it cannot be lowered."""
    computation, batches, variants = values.computations(wanted, choice, training=False, whole=True)
    if not found.extra:
        return Evaluation(computation, 0, (), (), batches, variants)
    made: list[tuple[tuple[int, ...], Computation]] = []
    for lengths in values.lengths([source.name], True):
        again = values.lowered_for(choice, lengths, False)
        same = None if again is None else twins(found.nodes, list(again.graph.nodes))
        if again is None or same is None:
            return None
        names = [*wanted, *(f"part {number}" for number in range(len(found.extra)))]
        nodes = [*(again[name] for name in wanted), *(same[node] for node in found.extra)]
        made.append((tuple(lengths.values()), extract_values(again, names, nodes)))
    first = merged([computation for _, computation in made])
    read = [name for name in first.inputs if name in choice]
    values.supply.note(choice, read)
    batches = tuple((name, choice[name]) for name in read)
    return Evaluation(first, 0, (), (), batches, tuple(made) if len(made) > 1 else ())


def _reference(
    values: Values, sources: Sequence[str], choice: Choice, training: bool
) -> tuple[Lowered, Lowered | None] | None:
    """The expression lowered for two batch lengths; None if it cannot be lowered for one of them.

    The second is None if the expression does not depend on the length.
    """
    whole = not training  # `evaluate` alone reads the batch that `drop_last` drops
    found = [(lengths, values.lowered_for(choice, lengths, training)) for lengths in values.lengths(sources, whole)]
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
    """How to combine some values over micro-batches; None if that is unknown."""
    reference = _reference(values, sources, choice, True) if sources else None
    if reference is None:
        return None
    lowered, other = reference
    return Outputs(lowered, wanted, list(choice), other)


def accumulation(
    values: Values, evaluation: Evaluation, choice: Choice, objective: str, path: ConfigPath
) -> Accumulation:
    """How to combine the micro-batches of a step; warns of each value that comes from the last one alone."""
    wanted = evaluation.computation.names
    found = micro_outputs(values, evaluation.sources, choice, wanted)
    last = tuple(Part("mean" if name == objective else "last") for name in wanted)
    if found is None:
        return Accumulation(last)
    state = found.states[wanted.index(objective)]
    ratios = {name: (wanted.index(f"{name}.sum"), wanted.index(f"{name}.over")) for name in _ratios(wanted)}
    ratio = ratios.get(objective) if evaluation.sources else None
    _check_sums(values, found, objective)
    classes = _classes(values, evaluation, choice, found, state)
    if ratio:
        classes = _over(values, evaluation, choice, found, objective)
    parts = []
    recorded = {output for output, _ in (*evaluation.columns, *evaluation.kept)}
    for output, (name, own) in enumerate(zip(wanted, found.states, strict=True)):
        if name == objective and ratio:
            parts.append(Part("sum"))
        elif name in ratios and name != objective:
            parts.append(Part("last", ratio=ratios[name]))
        elif isinstance(own, Rows):
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
    return Accumulation(tuple(parts), isinstance(state, Term) and state.pool == "sum", classes, ratio)


def _ratios(wanted: Sequence[str]) -> list[str]:
    return [name for name in wanted if f"{name}.over" in wanted]


def _over(values: Values, evaluation: Evaluation, choice: Choice, found: Outputs, objective: str) -> Classes | None:
    """What computes the `over` of a declared objective before its backward."""
    node = found.lowered.parts[f"{objective}.over"]
    made = _variants(values, evaluation, choice, found, ["over"], [node])
    if made is None:
        return None
    if made[0][1].random:
        path = ("objectives", objective, "over")
        message = f"the `over` of `{objective}` draws random numbers, and a step that accumulates needs it in advance"
        values.faults.add(path, message, "remove `accumulate`, or compute `over` from the data alone")
    return Classes(made[0][1], made if len(made) > 1 else (), Part("sum"), True)


def _variants(
    values: Values,
    evaluation: Evaluation,
    choice: Choice,
    found: Outputs,
    names: Sequence[str],
    nodes: Sequence[fx.Node],
) -> tuple[tuple[tuple[int, ...], Computation], ...] | None:
    """Computations of some values by the lengths of batches; None if the expression cannot be lowered for all."""
    made: list[tuple[tuple[int, ...], Computation]] = []
    for lengths in values.lengths(evaluation.sources, False):
        lowered = values.lowered_for(choice, lengths, True)
        same = None if lowered is None else twins(found.nodes, list(lowered.graph.nodes))
        if lowered is None or same is None:
            return None
        made.append((tuple(lengths.values()), extract_values(lowered, names, [same[node] for node in nodes])))
    return tuple(made)


def _classes(values: Values, evaluation: Evaluation, choice: Choice, found: Outputs, state: State) -> Classes | None:
    """The targets and class weights of an objective over class indices; None unless computable before it."""
    if not isinstance(state, Term) or state.weights is None:
        return None
    weights = state.weights
    wanted = [weights.target] if weights.weight is None else [weights.target, weights.weight]
    names = ["target", "weight"][: len(wanted)]
    made = _variants(values, evaluation, choice, found, names, wanted)
    if made is None:
        return None
    first = made[0][1]
    if first.random or any(values.tensors[name].role == "parameter" for name in first.inputs if name in values.tensors):
        return None
    part = Part("weighted", (0, None if weights.weight is None else 1, weights.ignore_index))
    explicit = weights.weight is not None or weights.ignore_index != -100
    return Classes(first, made if len(made) > 1 else (), part, explicit)


def _warn_of_objective(values: Values, name: str, blamed: fx.Node, path: ConfigPath) -> None:
    message = (
        f"the micro-batches of a step that accumulates are weighted by their length: `{operation(blamed)}` makes "
        f"`{name}` neither a mean nor a sum over samples"
    )
    _warn_at(values, blamed, message, "write `drop_last: true`, or a mean or a sum over samples", path)


def _warn_of_last(values: Values, name: str, blamed: fx.Node, path: ConfigPath) -> None:
    what = "draws random numbers" if draws(blamed) else "is not a mean, sum or extreme over samples"
    message = f"`{name}` of a step that accumulates is the value of its last micro-batch: `{operation(blamed)}` {what}"
    _warn_at(values, blamed, message, "write it with means and sums over samples, or `evaluate` it", path)


def _warn(values: Values, source: SourcePlan, name: str, blamed: fx.Node, hint: str, path: ConfigPath) -> None:
    if draws(blamed):
        return  # `advise` warns of every draw in `evaluate`
    what = f"`{operation(blamed)}` is not a mean, sum or extreme over them"
    message = f"`{name}` of `{source.name}` depends on how its samples are batched: {what}"
    _warn_at(values, blamed, message, hint, path)


def _hint(values: Values, source: SourcePlan, name: str, states: Outputs) -> str:
    """How to write a value so that it does not depend on the batching."""
    metric = values.expression.config.metrics.get(name)
    if not isinstance(metric, str):
        return f"leave `batch_size` out for `{source.name}`, or write `objectives: {{{name}: {{sum: …, over: …}}}}`"
    text = metric if len(metric) <= _LONGEST and '"' not in metric else "…"
    if isinstance(states.state(name), Rows):
        return f'say how: `metrics: {{{name}: {{mean: "{text}"}}}}`'
    if not_of_samples(states, metric):
        return f"leave `batch_size` out for `{source.name}`, or write it with means and sums over samples"
    return f'write `metrics: {{{name}: {{whole: "{text}"}}}}`'


_LONGEST = 80
"""The most characters of a metric that a hint repeats."""


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
