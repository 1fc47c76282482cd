"""Finds named values that come from a comparison, an argmax or a rounding, such as an accuracy or a count."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, fx

from runner.plan import Plan
from runner.plan.program.instructions import Action, Backward, Evaluate, Evaluation, Forward, Step, Train

_STEPPED = frozenset(["ceil", "floor", "floor_divide", "heaviside", "round", "sgn", "sign", "trunc"])
"""Operations that return floating-point numbers but move in whole steps."""


def discrete_columns(plan: Plan) -> frozenset[str]:
    """The names of the columns that depend on parameters only in steps, as a count of correct answers does."""
    found: set[str] = set()
    for evaluation, outputs in _recorded(plan):
        for computation in evaluation.computations():
            found |= {
                plan.columns[column].name
                for output, column in outputs
                if _is_discrete(computation.results[output], frozenset(plan.parameters))
            }
    return frozenset(found)


def _recorded(plan: Plan) -> Iterator[tuple[Evaluation, tuple[tuple[int, int], ...]]]:
    """Yields each evaluation of the program, with a pair (output, column) for each output that rows record."""
    for instruction in plan.program:
        if not isinstance(instruction, Action):
            continue
        match instruction.argument:
            case Evaluate(evaluation=evaluation, results=results):
                yield evaluation, tuple((each.output, each.column) for each in results if each.column is not None)
            case (
                Forward(evaluation)
                | Backward(evaluation)
                | Train(evaluation)
                | Step(closure=Evaluation() as evaluation)
            ):
                yield evaluation, evaluation.columns


def _is_discrete(result: object, parameters: frozenset[str]) -> bool:
    return isinstance(result, fx.Node) and any(
        _jumps(node) and any(each.meta.get("input") in parameters for each in _ancestors(node))
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
