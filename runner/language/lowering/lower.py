"""Lowers the syntax tree of an expression to a `torch.fx.Graph`, node by node. Every error has a place.

`values` documents the values during lowering. Statements, operators, subscripts and calls have their own modules.
"""

from __future__ import annotations

import ast
import contextlib
import itertools
import operator
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from runner.language.graph.lowered import Lowered
from runner.language.inference.autocast import Autocast
from runner.language.inference.inference import Inference
from runner.language.inference.runtime import number_as, quotient
from runner.language.inference.torch_warnings import in_other_words, torch_warnings_reported
from runner.language.lowering import branches, calls, indexing, operators
from runner.language.lowering.calls import differentiated
from runner.language.lowering.context import Handlers, Lowering, Shared
from runner.language.lowering.scope import Scope
from runner.language.lowering.size import too_large
from runner.language.lowering.statements import collecting, program
from runner.language.lowering.values import describe
from runner.language.text.arithmetic import Scalar
from runner.language.text.faults import START, LanguageError, Place, place_of
from runner.language.text.parse import MAX_INTEGER, parse_expression, parse_statements

_POOLS: Mapping[str, str] = {"sum": "sum", "over": "sum", "mean": "mean", "max": "max", "min": "min"}
_REDUCTIONS: Mapping[str, str] = {"sum": "sum", "over": "sum", "mean": "mean", "max": "amax", "min": "amin"}


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric or an objective.

    `texts` has its expressions by `sum`, `over`, `mean`, `max`, `min` or `whole`, or one under "" if it is plain.
    """

    path: tuple[str, str]  # ("metrics", "recall")
    texts: Mapping[str, str]

    @property
    def name(self) -> str:
        return self.path[-1]

    def origin(self, key: str) -> tuple[str, ...]:
        """The place in the config of one of its expressions."""
        return (*self.path, key) if key else self.path


def lower_statements(
    text: str,
    scope: Scope,
    inference: Inference,
    metrics: Sequence[Measured] = (),
    objectives: Sequence[Measured] = (),
    autocast: Autocast | None = None,
) -> Lowered:
    """Lowers the statements of an `expression`, and objectives and metrics over its named values.

    Args:
        text: the statements.
        scope: the meaning of their names.
        inference: infers the shapes.
        metrics: the metrics, whose names are their own.
        objectives: further named values; the first is the result.
        autocast: the context in which the statements and objectives run, without the metrics.
    Raises:
        LanguageError: any error, at its place in the text (or, with `origin`, in that of a function or metric).
        TooLarge: the expression exceeds a limit of `inference`.
    """
    statements = parse_statements(text)
    further = [(each, _parsed(each)) for each in (*objectives, *metrics)]
    trees = [*statements, *(tree for _, found in further for tree in found.values())]
    _check_size(text, statements, scope, inference)
    lowering = _start(text, trees, scope, inference)
    values: dict[str, Any] = {}
    parts: dict[str, Any] = {}
    with inference.session(), _bounded_recursion(), _warnings(lowering):
        faults: list[LanguageError] = []
        further_values = iter(further)
        with _under(autocast, lowering):
            result = program(lowering, statements, faults)
            for measured, found in itertools.islice(further_values, len(objectives)):
                value = _lower_measured(lowering, measured, found, parts, faults)
                if isinstance(value, fx.Node):
                    value.meta.setdefault("name", measured.name)
                    lowering.named[measured.name] = value
                else:
                    lowering.faulty.add(measured.name)
        for measured, found in further_values:
            values[measured.name] = _lower_measured(lowering, measured, found, parts, faults)
        if faults:
            faults[0].others = tuple(faults[1:])
            raise faults[0]
    if objectives:
        result = objectives[0].name
    shared = lowering.shared
    return Lowered(lowering.graph, lowering.named, result, shared.random, shared.gradients, values, parts)


def _parsed(measured: Measured) -> dict[str, ast.expr]:
    """Parses the expressions of a metric or an objective.

    Raises:
        LanguageError: one of them is invalid.
    """
    found: dict[str, ast.expr] = {}
    for key, text in measured.texts.items():
        try:
            found[key] = parse_expression(text)
        except LanguageError as error:
            error.origin = measured.origin(key)
            raise
    return found


def _lower_measured(
    lowering: Lowering,
    measured: Measured,
    trees: Mapping[str, ast.expr],
    parts: dict[str, Any],
    faults: list[LanguageError],
) -> Any:
    """Lowers one metric or objective; returns its value, or None after its problems were collected.

    Args:
        parts: gets the values that are combined over batches by name, such as `loss.sum` and `loss.over`.
    """
    values: dict[str, Any] = {}
    for key, tree in trees.items():
        inner = lowering.inside(measured.texts[key], measured.origin(key), lowering.graph)
        inner.captured = lowering.captured
        with collecting(inner, faults, tree):
            value = inner.plain(inner.value(tree))
            if key in _POOLS:
                value = _reduced(inner, key, value, tree, values.get("sum"))
            check_one_value(value, place_of(tree, inner.text), inner.origin)
            values[key] = value
    if len(values) != len(trees):
        return None
    if "over" not in values:
        return next(iter(values.values()))
    parts |= {f"{measured.name}.{key}": value for key, value in values.items()}
    inner = lowering.inside(measured.texts["sum"], measured.origin("sum"), lowering.graph)
    divide = operator.truediv if measured.path[0] == "objectives" else quotient
    ratio = inner.emit(trees["sum"], "call_function", divide, (values["sum"], values["over"]))
    ratio.meta["ratio"] = measured.name
    return ratio


def _reduced(lowering: Lowering, key: str, value: Any, tree: ast.expr, beside: fx.Node | None) -> fx.Node:
    """Reduces a value to one number over all its elements; `meta["pool"]` says how those of batches are combined."""
    example = value.meta["example"] if isinstance(value, fx.Node) else value
    dtype = lowering.scope.dtype.to_real()
    if isinstance(example, (bool, int, float)):
        own = dtype if beside is None else beside.meta["example"].dtype
        made = lowering.emit(tree, "call_function", number_as, (value, own, lowering.scope.device))
    elif isinstance(example, Tensor):
        made = value
        if key in ("sum", "mean") and not (example.is_floating_point() or example.is_complex()):
            made = lowering.emit(tree, "call_method", "to", (made, dtype))
        made = lowering.emit(tree, "call_method", _REDUCTIONS[key], (made,))
    else:
        hint = "write an expression with one value"
        raise lowering.fault(tree, f"`{key}` is {describe(value)}, not a tensor or a number", hint)
    made.meta["pool"] = _POOLS[key]
    return made


def lower_expression(text: str, scope: Scope, inference: Inference) -> Lowered:
    """Lowers one expression; its value is named `value`. Raises as `lower_statements` does."""
    expression = parse_expression(text)
    _check_size(text, [expression], scope, inference)
    lowering = _start(text, [expression] if "grad" in text else [], scope, inference)
    with inference.session(), _bounded_recursion(), _warnings(lowering):
        lowering.named["value"] = lowering.plain(lowering.value(expression))
    return Lowered(lowering.graph, lowering.named, "value", lowering.shared.random, lowering.shared.gradients)


def input_alone(text: str, scope: Scope) -> tuple[str, Tensor | Scalar] | None:
    """Returns the input that an expression only names, such as `w.grad`, and its example; None if it does more.

    Raises:
        LanguageError: the text is not an expression.
    """
    expression = parse_expression(text)
    name, known = "", scope.fields
    if isinstance(expression, ast.Name):
        name, known = expression.id, scope.tensors
    elif isinstance(expression, ast.Attribute) and isinstance(expression.value, ast.Name):
        name = f"{expression.value.id}.{expression.attr}"
    example = known.get(name)
    if example is None or (isinstance(example, Tensor) and example.numel() == 0):  # whose size is checked
        return None
    return name, example


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
def _under(autocast: Autocast | None, lowering: Lowering) -> Iterator[None]:
    """Lowers and infers operations as they run under `torch.autocast`."""
    if autocast is None:
        yield
        return
    lowering.shared.autocast = autocast
    with autocast():
        yield
    lowering.shared.autocast = None


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
        message, hint = in_other_words(text)
        if shared.current is None:
            found.append((text, LanguageError(message, hint)))
            return
        inner, node = shared.current
        message = f"`{inner.shown(node)}`: {message}"
        found.append((text, LanguageError(message, hint, place_of(node, inner.text), inner.origin)))

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
