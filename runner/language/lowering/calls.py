"""Lowers calls: inlines helper functions, differentiates with `grad(y, x)`, and treats all others as operations."""

from __future__ import annotations

import ast
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx

from runner.errors import did_you_mean, listing
from runner.language.inference.costs import has_longer_history
from runner.language.inference.runtime import gradient, watch
from runner.language.lowering import operations
from runner.language.lowering.scope import Function
from runner.language.lowering.statements import block
from runner.language.lowering.values import describe, handed_on
from runner.language.text.faults import LanguageError
from runner.text import counted

if TYPE_CHECKING:
    from runner.language.lowering.context import Lowering

MAX_INLINED = 64  # nested functions
INLINING_WORK = 5  # the cost of inlining a function in lowering steps


def call(lowering: Lowering, node: ast.Call) -> Any:
    if isinstance(node.func, ast.Name) and node.func.id in lowering.scope.functions:
        return inline(lowering, node, lowering.scope.functions[node.func.id])
    if isinstance(node.func, ast.Name) and node.func.id == "grad":
        return differentiate(lowering, node)
    return operations.lower_call(lowering, node)


def differentiate(lowering: Lowering, node: ast.Call) -> Any:
    """Lowers `grad(y, x)`."""
    if len(node.args) != 2 or node.keywords:
        raise lowering.fault(node, "`grad` takes two arguments", "write `grad(y, x)` or `grad(y, [x1, x2])`")
    y = lowering.plain(lowering.value(node.args[0]))
    by = node.args[1]
    names = by.elts if isinstance(by, (ast.List, ast.Tuple)) else [by]
    for name in names:
        if not isinstance(name, ast.Name):
            raise lowering.fault(
                name, f"`{lowering.shown(name)}` is not a name", "differentiate by a name: give the value one first"
            )
    if not names:
        raise lowering.fault(
            by, "`grad` has nothing to differentiate by", "name what to differentiate by: `grad(y, [x1, x2])`"
        )
    xs = [lowering.plain(lowering.value(name)) for name in names]
    for value, source in ((y, node.args[0]), *zip(xs, names, strict=True)):
        if not isinstance(value, fx.Node) or not isinstance(value.meta["example"], Tensor):
            raise lowering.fault(source, f"`{lowering.shown(source)}` is {describe(value)}", "`grad` takes tensors")
        example = value.meta["example"]
        if not (example.is_floating_point() or example.is_complex()):
            raise lowering.fault(
                source,
                f"`{lowering.shown(source)}` is {describe(value)}",
                "only floating-point tensors have derivatives",
            )
    if y.meta["example"].is_complex():
        raise lowering.fault(
            node.args[0], f"`{lowering.shown(node.args[0])}` is complex; `grad` takes a real number", "take its `.real`"
        )
    if y.meta["example"].numel() != 1:
        raise lowering.fault(
            node.args[0],
            f"`{lowering.shown(node.args[0])}` has shape {tuple(y.meta['example'].shape)}; `grad` takes one element",
            "reduce it: `.sum()`",
        )
    stale = without_history(lowering, y, xs)
    if stale is not None:
        raise lowering.fault(
            node,
            f"`{stale}` is the last computed value here, and has no autograd history",
            "write out what it is computed from, or read a gradient after `backward`",
        )
    most = lowering.shared.inference.bounds.nodes
    if has_longer_history(y.meta["example"], most):
        raise lowering.fault(
            node, f"this derivative goes through more than {most:,} operations", "raise it with --max-nodes"
        )
    lowering.shared.gradients = True
    single = not isinstance(by, (ast.List, ast.Tuple))
    return lowering.emit(node, "call_function", gradient, (y, xs[0] if single else tuple(xs)))


def without_history(lowering: Lowering, y: fx.Node, xs: Sequence[fx.Node]) -> str | None:
    """Returns a named value that cuts the autograd history of `y` before `xs`, in `assign`, `expect` or `when`."""
    scope = lowering.scope
    if not scope.fields:
        return None
    seen, pending = set(xs), [y]
    seen.update(x.meta["outer"] for x in xs if "outer" in x.meta)
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        name = node.meta.get("input")
        if name in scope.tensors and name not in scope.roles:
            return str(name)
        pending += [node.meta["outer"]] if "outer" in node.meta else node.all_input_nodes
    return None


def inline(lowering: Lowering, node: ast.Call, function: Function) -> Any:
    positional, named = lowering.arguments(node)
    header = function.header
    bound: dict[str, Any] = {}
    if len(positional) > len(header.arguments):
        raise lowering.fault(
            node,
            f"`{header.name}` takes {counted(len(header.arguments), 'argument')}, {len(positional)} are given",
            f"it is declared as `{function.declaration}`",
        )
    for name, value in zip(header.arguments, positional, strict=False):
        bound[name] = handed_on(lowering, node, value)
    for name, value in named.items():
        if name not in header.arguments:
            hint = did_you_mean(name, header.arguments, f"it is declared as `{function.declaration}`")
            raise lowering.fault(node, f"`{header.name}` has no argument `{name}`", hint)
        if name in bound:
            raise lowering.fault(node, f"argument `{name}` of `{header.name}` is given twice", "remove one of them")
        bound[name] = handed_on(lowering, node, value)
    defaulted = header.arguments[len(header.arguments) - len(header.defaults) :]
    for name, default in zip(defaulted, header.defaults, strict=True):
        if name not in bound:
            bound[name] = default_value(lowering, node, function, name, default)
    missing = [name for name in header.arguments if name not in bound]
    if missing:
        raise lowering.fault(
            node,
            f"`{header.name}` needs {listing(f'`{name}`' for name in missing)}",
            f"it is declared as `{function.declaration}`",
        )
    if lowering.shared.inlined >= MAX_INLINED:
        raise lowering.fault(node, "functions are nested too deeply", "merge some of them")
    lowering.work(node, INLINING_WORK)
    lowering.shared.inlined += 1
    inner = lowering.inside(function.text, function.origin, lowering.graph, differentiated(function.statements))
    inner.captured = lowering.captured
    for name, value in bound.items():
        if name in inner.watched and isinstance(value, fx.Node) and isinstance(value.meta["example"], Tensor):
            value = lowering.emit(node, "call_function", watch, (value,))
        inner.local[name] = value
    result = block(inner, function.statements)
    lowering.shared.inlined -= 1
    return handed_on(inner, node, inner.elements.get(result, inner.named[result]))


def default_value(lowering: Lowering, node: ast.Call, function: Function, name: str, default: ast.expr) -> Any:
    """Lowers a default value, which can only read names of the whole config. Its errors are placed at the call."""
    inner = lowering.inside(function.declaration, function.origin, lowering.graph)
    inner.captured = lowering.captured
    try:
        return inner.plain(inner.value(default))
    except LanguageError as error:
        raise lowering.fault(node, f"the default of `{name}`: {error.message}", error.hint) from None


@functools.lru_cache(maxsize=256)
def differentiated(trees: tuple[ast.AST, ...]) -> frozenset[str]:
    """Returns the names by which some `grad(y, names)` in these trees differentiates."""
    found: set[str] = set()
    for tree in trees:
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "grad"
                and len(node.args) == 2
            ):
                found.update(name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name))
    return frozenset(found)
