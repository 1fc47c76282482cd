"""Lowers the syntax tree of an expression to a `torch.fx.Graph`, node by node. Every error has a place.

`values` documents the values during lowering. Statements, operators, subscripts and calls have their own modules.
"""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, fx

from runner.language.graph.lowered import Lowered
from runner.language.inference.inference import Inference
from runner.language.inference.torch_warnings import torch_warnings_reported
from runner.language.lowering import branches, calls, indexing, operators
from runner.language.lowering.calls import differentiated
from runner.language.lowering.context import Handlers, Lowering, Shared
from runner.language.lowering.scope import Scope
from runner.language.lowering.size import too_large
from runner.language.lowering.statements import collecting, program
from runner.language.text.faults import START, LanguageError, Place, place_of
from runner.language.text.parse import MAX_INTEGER, parse_expression, parse_statements

_WARNED = "change its operands, or use another operation"


def lower_statements(
    text: str, scope: Scope, inference: Inference, metrics: Mapping[Hashable, str] | None = None
) -> Lowered:
    """Lowers the statements of an `expression`, and metrics over its named values.

    Args:
        text: the statements.
        scope: the meaning of their names.
        inference: infers the shapes.
        metrics: expressions. Each key is the origin of errors in it; its last part is the metric's name.
    Raises:
        LanguageError: any error, at its place in the text (or, with `origin`, in that of a function or metric).
        TooLarge: the expression exceeds a limit of `inference`.
    """
    statements = parse_statements(text)
    trees: list[ast.AST] = [*statements]
    parsed: dict[Hashable, ast.expr] = {}
    for origin, metric in (metrics or {}).items():
        try:
            parsed[origin] = parse_expression(metric)
        except LanguageError as error:
            error.origin = origin
            raise
    _check_size(text, statements, scope, inference)
    lowering = _start(text, [*trees, *parsed.values()], scope, inference)
    values: dict[str, Any] = {}
    with inference.session(), _bounded_recursion(), _warnings(lowering):
        faults: list[LanguageError] = []
        result = program(lowering, statements, faults)
        for origin, tree in parsed.items():
            assert isinstance(origin, tuple)
            assert metrics is not None
            inner = lowering.inside(metrics[origin], origin, lowering.graph)
            inner.captured = lowering.captured
            with collecting(inner, faults, tree):
                value = inner.plain(inner.value(tree))
                check_one_value(value, place_of(tree, inner.text), origin)
                values[origin[-1]] = value
        if faults:
            faults[0].others = tuple(faults[1:])
            raise faults[0]
    shared = lowering.shared
    return Lowered(lowering.graph, lowering.named, result, shared.random, shared.gradients, values)


def lower_expression(text: str, scope: Scope, inference: Inference) -> Lowered:
    """Lowers one expression; its value is named `value`. Raises as `lower_statements` does."""
    expression = parse_expression(text)
    _check_size(text, [expression], scope, inference)
    lowering = _start(text, [expression], scope, inference)
    with inference.session(), _bounded_recursion(), _warnings(lowering):
        lowering.named["value"] = lowering.plain(lowering.value(expression))
    return Lowered(lowering.graph, lowering.named, "value", lowering.shared.random, lowering.shared.gradients)


def check_one_value(value: object, place: Place = START, origin: Hashable | None = None) -> None:
    """Rejects a value that a row, `assign`, `expect` or `when` cannot use.

    Raises:
        LanguageError: it is neither a tensor nor a real number, or an integer beyond int64.
    """
    example = value.meta["example"] if isinstance(value, fx.Node) else value
    if not isinstance(example, (Tensor, bool, int, float)):
        hint = "write an expression with one value"
        raise LanguageError("this is neither a tensor nor a number", hint, place, origin)
    if isinstance(example, int) and not -MAX_INTEGER <= example < MAX_INTEGER:
        raise LanguageError("this integer does not fit into int64", "write it as a float: `1e20`", place, origin)


def _check_size(text: str, trees: Sequence[ast.AST], scope: Scope, inference: Inference) -> None:
    """Rejects a text that is certainly too large at once, instead of after inferring it node by node."""
    tree = too_large(trees, scope, inference.bounds.nodes)
    if tree is not None:
        message, _, hint = str(inference.too_many()).partition("; ")
        raise LanguageError(message, hint, place_of(tree, text))


@contextlib.contextmanager
def _bounded_recursion() -> Iterator[None]:
    try:
        yield
    except RecursionError:
        hint = "split it into several named lines, or write functions that call fewer others"
        raise LanguageError("the expression is nested too deeply", hint) from None


@contextlib.contextmanager
def _warnings(lowering: Lowering) -> Iterator[None]:
    """Passes torch's warnings to the inference's `warn`, each at its operation."""
    shared = lowering.shared
    warn = shared.inference.warn
    if warn is None:
        yield
        return
    found: list[tuple[str, LanguageError]] = []

    def report(text: str) -> None:
        if shared.current is None:
            found.append((text, LanguageError(text, _WARNED)))
            return
        inner, node = shared.current
        message = f"`{inner.shown(node)}`: {text}"
        found.append((text, LanguageError(message, _WARNED, place_of(node, inner.text), inner.origin)))

    with torch_warnings_reported(report):
        yield
    for text, error in found:
        warn(text, error)


def uses_grad(text: str, scope: Scope) -> bool:
    """Whether an expression, or a function it may call, uses `grad`: then inference needs autograd."""
    bodies = [text, *(function.text for function in scope.functions.values())]
    return any("grad" in body for body in bodies)


def _start(text: str, trees: list[Any], scope: Scope, inference: Inference) -> Lowering:
    bodies = [statement for function in scope.functions.values() for statement in function.statements]
    return Lowering(text, None, Shared(_HANDLERS, scope, inference), fx.Graph(), {}, differentiated((*trees, *bodies)))


_HANDLERS: Handlers = {
    ast.Constant: Lowering.constant,
    ast.Name: Lowering.name,
    ast.Tuple: Lowering.display,
    ast.List: Lowering.display,
    ast.BinOp: operators.binary,
    ast.UnaryOp: operators.unary,
    ast.Compare: operators.compare,
    ast.BoolOp: branches.boolean,
    ast.IfExp: branches.conditional,
    ast.Subscript: indexing.subscript,
    ast.Attribute: indexing.attribute,
    ast.Call: calls.call,
    ast.Slice: indexing.index,
}
