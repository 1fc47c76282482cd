"""Lowers conditions and their branches: `a if c else b`, `and`, `or`."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from runner.language.dtypes import dtype_name
from runner.language.graph.codegen import compile_graph
from runner.language.inference.runtime import branch, gradient, number_as
from runner.language.lowering.conditions import iteration_where
from runner.language.lowering.values import describe, differ, example_of, widest
from runner.language.text.arithmetic import FUNCTIONS

if TYPE_CHECKING:
    from runner.language.lowering.context import Lowering

BRANCH_WORK = 250  # the cost of a branch in lowering steps: both sides are compiled

FOR_TENSORS: Mapping[str, str] = {
    "and": "`logical_and(a, b)` or `a & b`",
    "or": "`logical_or(a, b)` or `a | b`",
    "not": "`logical_not(a)` or `~a`",
    "if": "`where(condition, a, b)`",
    "chain": "`(a < b) & (b < c)`",
}
"""The tensor equivalent of each scalar construct."""


def boolean(lowering: Lowering, node: ast.BoolOp) -> Any:
    construct = "and" if isinstance(node.op, ast.And) else "or"
    first = condition(lowering, node.values[0], construct)
    rest = (
        node.values[1]
        if len(node.values) == 2
        else ast.copy_location(ast.BoolOp(node.op, node.values[1:]), node.values[1])
    )

    def remaining(lowering: Lowering) -> Any:
        return condition(lowering, rest, construct)

    def known(lowering: Lowering) -> Any:
        return lowering.lift(first)

    if construct == "and":
        return choose(lowering, node, first, remaining, known)
    return choose(lowering, node, first, known, remaining)


def conditional(lowering: Lowering, node: ast.IfExp) -> Any:
    return choose(
        lowering,
        node,
        condition(lowering, node.test, "if"),
        lambda inner: inner.value(node.body),
        lambda inner: inner.value(node.orelse),
    )


def condition(lowering: Lowering, node: ast.expr, construct: str) -> Any:
    value = lowering.plain(lowering.value(node))
    if not lowering.is_scalar(value):
        found = f"`{lowering.shown(node)}` is {describe(value)}"
        raise lowering.fault(
            node, f"{found}; `{construct}` takes scalar conditions", f"for tensors write {FOR_TENSORS[construct]}"
        )
    return value


def choose(
    lowering: Lowering,
    node: ast.AST,
    condition: Any,
    chosen: Callable[[Lowering], Any],
    otherwise: Callable[[Lowering], Any],
) -> Any:
    """Lowers a branch, of which only the chosen side is computed. A fixed condition chooses now, others at run time."""
    if not isinstance(condition, fx.Node):
        return chosen(lowering) if condition else otherwise(lowering)
    lowering.work(node, BRANCH_WORK)
    left = _side(lowering, condition, chosen, True)
    right = _side(lowering, condition, otherwise, False)
    left.result, right.result = _agree(lowering, node, left, right, left.result, right.result)
    captured = [*left.lowering.captured, *right.lowering.captured]
    target = branch(_compiled(left), _compiled(right), len(left.lowering.captured))
    made = lowering.emit(
        node,
        "call_function",
        target,
        (condition, *(lowering.lift(value) for value in captured)),
        example=_example(left.result, right.result, bool(condition.meta["example"])),
        dynamic=_differ(left.result, right.result),
    )
    nodes = [*left.lowering.graph.nodes, *right.lowering.graph.nodes]
    made.meta.update(
        branch=True,
        sides=(left.lowering.graph, right.lowering.graph, len(left.lowering.captured)),
        random=any(inner.meta.get("random") for inner in nodes),
        gradients=any(inner.meta.get("gradients") or inner.target is gradient for inner in nodes),
    )
    return made


@dataclass(slots=True)
class _Side:
    lowering: Lowering
    result: Any


def _side(lowering: Lowering, condition: fx.Node, lower: Callable[[Lowering], Any], wanted: bool) -> _Side:
    """Lowers one side into its own graph, inferred at an iteration that takes this side."""
    inner = lowering.inside(lowering.text, lowering.origin, fx.Graph())
    shared = lowering.shared
    before = shared.iteration, shared.side
    shared.iteration = iteration_where(condition, wanted, shared.iteration) or shared.iteration
    shared.side = condition, wanted
    try:
        return _Side(inner, inner.plain(lower(inner)))
    finally:
        shared.iteration, shared.side = before


def _compiled(side: _Side) -> Callable[..., Any]:
    side.lowering.graph.output(side.result)
    return compile_graph(side.lowering.graph, side.lowering.origin)


def _agree(lowering: Lowering, node: ast.AST, left: _Side, right: _Side, one: Any, other: Any) -> tuple[Any, Any]:
    """Returns both sides as values of one type and dtype: a number becomes a tensor if the other side is one."""
    if isinstance(one, (tuple, list)) and isinstance(other, (tuple, list)) and len(one) == len(other):
        pairs = [_agree(lowering, node, left, right, *pair) for pair in zip(one, other, strict=True)]
        return tuple(first for first, _ in pairs), tuple(second for _, second in pairs)
    first, second = example_of(one), example_of(other)
    if isinstance(first, Tensor) and isinstance(second, (bool, int, float)):
        other = _as_tensor(right, other, second, first.dtype)
    elif isinstance(second, Tensor) and isinstance(first, (bool, int, float)):
        one = _as_tensor(left, one, first, second.dtype)
    first, second = example_of(one), example_of(other)
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        if first.dtype != second.dtype:
            names = f"{dtype_name(first.dtype)}, the other {dtype_name(second.dtype)}"
            raise lowering.fault(node, f"one side is {names}", "cast one of them: `x.to(float32)`")
        return one, other
    for value in (first, second):
        if not isinstance(value, (bool, int, float, Tensor, tuple, list)):
            raise lowering.fault(
                node,
                f"one side is {describe(value)}, but the condition is only known at run time",
                "choose between tensors or numbers",
            )
    if isinstance(first, (bool, int, float)) and isinstance(second, (bool, int, float)):
        kind = widest(type(first), type(second))
        return _of_kind(left, one, kind), _of_kind(right, other, kind)
    if isinstance(one, fx.Node) and isinstance(other, fx.Node) and _alike(first, second):
        return one, other
    raise lowering.fault(
        node, f"one side is {describe(first)}, the other {describe(second)}", "give both sides the same kind of value"
    )


def _of_kind(side: _Side, value: Any, kind: type) -> Any:
    if type(example_of(value)) is kind:
        return value
    if not isinstance(value, fx.Node):
        return kind(value)
    return side.lowering.emit(None, "call_function", FUNCTIONS[kind.__name__], (value,))


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, (tuple, list)) and isinstance(other, (tuple, list)):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype
    return type(one) is type(other)


def _as_tensor(side: _Side, value: Any, example: Any, dtype: torch.dtype) -> Any:
    inner = side.lowering
    if isinstance(example, float) and not (dtype.is_floating_point or dtype.is_complex):
        dtype = inner.scope.dtype
    return inner.emit(None, "call_function", number_as, (value, dtype, inner.scope.device))


def _example(one: Any, other: Any, chosen: bool) -> Any:
    """Returns the example of a branch: that of the chosen side, widened to the number type of either side."""
    if isinstance(one, (tuple, list)):
        return tuple(_example(*pair, chosen) for pair in zip(one, other, strict=True))
    first, second = example_of(one), example_of(other)
    example = first if chosen else second
    if isinstance(first, Tensor) and isinstance(second, Tensor) and first.shape != second.shape:
        return max(first, second, key=Tensor.dim)  # so values computed from it vary too, unless they are reduced
    if isinstance(example, (bool, int, float)):
        return widest(type(first), type(second))(example)
    return example


def _differ(one: Any, other: Any) -> bool:
    if isinstance(one, (tuple, list)):
        return any(map(_differ, one, other))
    first, second = example_of(one), example_of(other)
    if isinstance(first, (tuple, list)):
        return any(map(_differ, first, second))
    return differ(first, second)
