"""Finds named values that come from a comparison, an argmax or a rounding, such as an accuracy or a count."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, fx

from runner.plan import Plan
from runner.plan.program.instructions import Action, Backward, Evaluate, Evaluation, Forward, Result, Step, Train

_STEPPED = frozenset(["ceil", "floor", "floor_divide", "heaviside", "round", "sgn", "sign", "trunc"])
"""Operations that return floating-point numbers but move in whole steps."""


def discrete_columns(plan: Plan) -> frozenset[str]:
    """The names of the columns that depend on parameters only in steps, as a count of correct answers does."""
    found: set[str] = set()
    parameters = frozenset(plan.parameters)
    for item in plan.program:
        if not isinstance(item, Action):
            continue
        match item.argument:
            case Evaluate() as argument:
                columns = [(_behind(argument, result), result.column) for result in argument.results]
            case (
                Forward(evaluation)
                | Backward(evaluation)
                | Train(evaluation)
                | Step(closure=Evaluation() as evaluation)
            ):
                columns = [(_outputs(evaluation, [output]), column) for output, column in evaluation.columns]
            case _:
                continue
        found |= {
            plan.columns[column].name
            for results, column in columns
            if column is not None and any(_is_discrete(result, parameters) for result in results)
        }
    return frozenset(found)


def _outputs(evaluation: Evaluation, outputs: Iterable[int]) -> list[object]:
    """The nodes of some outputs of an evaluation, for every length of a batch."""
    return [computation.results[output] for computation in evaluation.computations() for output in outputs]


def _behind(argument: Evaluate, result: Result) -> list[object]:
    """The nodes of a result of `evaluate`, or of all values that it is computed from after the last batch."""
    if result.whole is None:
        assert result.output is not None
        return _outputs(argument.evaluation, [result.output])
    whole = argument.wholes[result.whole]
    gathered = [output for _, output in whole.gathered]
    return [*_outputs(argument.evaluation, gathered), whole.computation.results[0]]


def _is_discrete(result: object, parameters: frozenset[str]) -> bool:
    return isinstance(result, fx.Node) and any(
        node.meta.get("measure")
        or (_jumps(node) and any(each.meta.get("input") in parameters for each in _ancestors(node)))
        for node in _ancestors(result)
    )


def _ancestors(node: fx.Node) -> set[fx.Node]:
    """A node and everything that it is computed from."""
    pending, found = [node], {node}
    while pending:
        for source in pending.pop().all_input_nodes:
            if source not in found:
                found.add(source)
                pending.append(source)
    return found


def _jumps(node: fx.Node) -> bool:
    """Whether a node maps floating-point numbers to values that move in whole steps."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if name in _STEPPED:
        return True
    example = node.meta.get("example")
    whole = isinstance(example, Tensor) and not _is_floating(node)
    return whole and any(_is_floating(source) for source in node.all_input_nodes)


def _is_floating(node: fx.Node) -> bool:
    example = node.meta.get("example")
    return isinstance(example, Tensor) and (example.is_floating_point() or example.is_complex())
