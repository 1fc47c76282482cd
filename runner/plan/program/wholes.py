"""Metrics that `evaluate` computes once, from values that are gathered over all batches."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, fx

from runner.faults import ConfigPath
from runner.language.graph.computation import Computation, extract
from runner.language.graph.draws import draws
from runner.language.graph.lowered import Lowered
from runner.language.lowering.lower import lower_expression, uses_grad
from runner.language.lowering.scope import Scope
from runner.language.pooling.pooling import Constant, Mixed, Rows, State, operation
from runner.language.text.faults import LanguageError, place_of
from runner.language.text.parse import parse_expression
from runner.language.text.scalars import names_in
from runner.plan.data.batch_choice import Choice
from runner.plan.data.sources import SourcePlan
from runner.plan.program.expressions import Values
from runner.plan.program.outputs import Outputs
from runner.plan.tensors.examples import SMALL, WrongInference

_WITHOUT_DRAWS = "compute it without random numbers"


@dataclass(frozen=True, slots=True)
class Gathering:
    """One metric that is computed from gathered values."""

    name: str
    computation: Computation  # its inputs are gathered values, values that are the same for every batch, and tensors
    reads: tuple[str, ...]  # the inputs that are batch columns or named values


def declared_whole(values: Values, name: str) -> bool:
    """Whether the config declares a metric with `whole`."""
    metric = values.expression.config.metrics.get(name)
    return metric is not None and not isinstance(metric, str) and metric.whole is not None


def gathering(values: Values, source: SourcePlan, choice: Choice, found: Outputs, name: str) -> Gathering | None:
    """How to compute a metric from all samples; None if it is not such a metric, or after its problem was reported.

    A plain metric that calls a function of steprun such as `roc_auc` is one too, if everything it reads has an entry
    for each sample.
    """
    metric = values.expression.config.metrics.get(name)
    if metric is None:
        return None
    if isinstance(metric, str):
        measures = [node for node in found.ancestors(name) if "whole" in node.meta.get("measure", ())]
        if not measures or not isinstance(found.state(name), Mixed):
            return None
        return _gathering(values, source, choice, found, name, metric, ("metrics", name), report=False)
    if metric.whole is None:
        return None
    return _gathering(values, source, choice, found, name, metric.whole, ("metrics", name, "whole"), report=True)


def _gathering(
    values: Values,
    source: SourcePlan,
    choice: Choice,
    found: Outputs,
    name: str,
    text: str,
    path: ConfigPath,
    *,
    report: bool,
) -> Gathering | None:
    wrong = not_of_samples(found, text)
    if wrong:
        if report:
            values.faults.language(path, _fault(text, *wrong[0], name))
        return None
    try:
        lowered = _lowered(values, source, choice, found, text, path)
    except LanguageError as error:
        values.shapes.retry(error)
        values.faults.language(path, error)
        return None
    values.note_lowered(lowered)
    drawn = next((node for node in lowered.graph.nodes if draws(node)), None)
    if drawn is not None:
        message = f"`{name}` draws random numbers from `{operation(drawn)}`, after all batches"
        hint = _WITHOUT_DRAWS
        values.faults.language(path, LanguageError(message, hint, drawn.meta["place"], drawn.meta.get("origin")))
        return None
    computation = extract(lowered, ["value"], path)
    values.read.update(read for read in computation.inputs if read in values.tensors)
    reads = tuple(read for read in computation.inputs if read in choice or read in found.names)
    return Gathering(name, computation, reads)


def not_of_samples(found: Outputs, text: str) -> list[tuple[ast.Name, State]]:
    """The named values in a text that have no entry for each sample and depend on batches, each with its state."""
    names = names_in(text)
    read = [node for node in ast.walk(parse_expression(text)) if isinstance(node, ast.Name) and node.id in names]
    states = [(node, found.state(node.id)) for node in read if node.id in found.names]
    return [(node, state) for node, state in states if not isinstance(state, (Rows, Constant))]


def _fault(text: str, node: ast.Name, state: State, name: str) -> LanguageError:
    what = "it is one for a batch"
    if isinstance(state, Mixed):
        does = "draws random numbers" if draws(state.node) else "mixes samples"
        what = f"`{operation(state.node)}` {does} in it"
    hint = _WITHOUT_DRAWS if "draws" in what else f"read the values that `{node.id}` is computed from"
    message = f"`{name}` is computed from all samples, and `{node.id}` has no value for each sample: {what}"
    return LanguageError(message, hint, place_of(node, text))


def _lowered(
    values: Values, source: SourcePlan, choice: Choice, found: Outputs, text: str, path: ConfigPath
) -> Lowered:
    """The expression of a metric, lowered for examples that have the length of the source.

    Raises:
        LanguageError: it is invalid.
    """
    inference_of, examples = values.shapes.inference, dict(values.examples)
    texts = (text, *(function.text for function in values.environment.functions.values()))
    nodes = {name: found.node(name) for name in (*found.names, *choice)}
    wanted = {name: node for name, node in nodes.items() if node is not None and any(name in each for each in texts)}
    rows = {name: (node, state) for name, node in wanted.items() if isinstance(state := found.state(name), Rows)}
    elements = sum(_bytes(node, state, source.samples) for node, state in rows.values())
    if elements > SMALL and not values.shapes.fake and not values.shapes.final:
        raise WrongInference(fake=True)
    fixed: dict[str, object] = {"training": False}
    for name in found.names:
        value = found.lowered.values[name]
        if not isinstance(value, fx.Node):
            fixed[name] = value
    for name, node in wanted.items():
        example = node.meta["example"]
        if name in rows:
            shape = list(example.shape)
            shape[rows[name][1].dim] = source.samples
            examples[name] = example.new_zeros(shape)
        elif isinstance(example, Tensor):
            examples[name] = example
    scope = _scope(values, examples, fixed)
    return lower_expression(text, scope, inference_of(uses_grad(text, scope), path))


def _scope(values: Values, examples: Mapping[str, Tensor], fixed: Mapping[str, object]) -> Scope:
    roles = {name: tensor.role for name, tensor in values.tensors.items()}
    return values.environment.scope(examples, roles=roles, fixed=fixed)


def _bytes(node: fx.Node, state: Rows, samples: int) -> int:
    example: Tensor = node.meta["example"]
    return samples * example.numel() * example.element_size() // max(1, example.shape[state.dim])


def gathered_bytes(found: Outputs, gatherings: Sequence[Gathering], samples: int) -> int:
    """Bytes of the values that are gathered over a source, twice while they are joined, and of sorting them."""
    read = {name for gathering in gatherings for name in gathering.reads}
    rows = [
        (node, state) for name in read if isinstance(state := found.state(name), Rows) and (node := found.node(name))
    ]
    sorting = max((8 * samples * _SORTED for gathering in gatherings), default=0)
    return 2 * sum(_bytes(node, state, samples) for node, state in rows) + sorting


_SORTED = 8
"""Numbers of 64 bits for each sample that a metric of ranks keeps at once."""
