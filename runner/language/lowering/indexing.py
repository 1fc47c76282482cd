"""Lowers subscripts and attributes."""

from __future__ import annotations

import ast
import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from runner.errors import did_you_mean, listing
from runner.language.lowering import operations
from runner.language.lowering.values import Lookup, describe, example_of, is_mask, nodes_of, tensor_of
from runner.language.text.hints import PREFIXES, suggestion

if TYPE_CHECKING:
    from runner.language.lowering.context import Lowering


def subscript(lowering: Lowering, node: ast.Subscript) -> Any:
    if (
        isinstance(node.value, ast.Name)
        and node.value.id in lowering.scope.tables
        and not lowering.is_named(node.value.id)
    ):
        at = index(lowering, node.slice)
        found = element(lowering, node, node.value.id, at)
        if found is not None:
            return found
        value = lowering.plain(lowering.value(node.value))
    else:
        value = lowering.plain(lowering.value(node.value))
        at = index(lowering, node.slice)
    if isinstance(example_of(value), (tuple, list)):
        return item(lowering, node, lowering.parts(value) or [], at)
    if not isinstance(value, fx.Node) or lowering.is_scalar(value):
        raise lowering.fault(
            node,
            f"`{lowering.shown(node.value)}` is {describe(value)} and cannot be indexed",
            "index a tensor, a tuple or a list",
        )
    dynamic = any(is_mask(part) for part in nodes_of(at))
    return lowering.emit(node, "call_function", operator.getitem, (value, at), dynamic=dynamic)


def element(lowering: Lowering, node: ast.Subscript, name: str, index: Any) -> Lookup | None:
    table = lowering.scope.tables[name]
    if isinstance(index, bool):
        return None
    if isinstance(index, int):
        if not -len(table) <= index < len(table):
            raise lowering.fault(
                node, f"index {index} is outside `{name}`, which has {len(table)} elements", "use a smaller index"
            )
        return Lookup(name, index, table[index], node)
    if isinstance(index, fx.Node) and isinstance(index.meta["example"], int):
        return Lookup(name, index, None, node)
    return None


def item(lowering: Lowering, node: ast.Subscript, parts: list[Any], index: Any) -> Any:
    if isinstance(index, slice):
        return tuple(parts[index])
    if isinstance(index, bool) or not isinstance(index, int):
        raise lowering.fault(node.slice, "this index is not fixed before the run", "index with a number")
    if not -len(parts) <= index < len(parts):
        raise lowering.fault(
            node,
            f"index {index} is outside `{lowering.shown(node.value)}`, which has {len(parts)} elements",
            "use a smaller index",
        )
    return parts[index]


def index(lowering: Lowering, node: ast.expr) -> Any:
    if isinstance(node, ast.Slice):
        parts = [
            None if part is None else lowering.plain(lowering.value(part))
            for part in (node.lower, node.upper, node.step)
        ]
        for part, source in zip(parts, (node.lower, node.upper, node.step), strict=True):
            if part is not None and source is not None and not lowering.is_scalar(part):
                raise lowering.fault(
                    source,
                    f"`{lowering.shown(source)}` is {describe(part)}; a slice takes integers",
                    "use `index_select` or `gather`",
                )
        return slice(*parts)
    if isinstance(node, ast.Tuple):
        return tuple(index(lowering, element) for element in node.elts)
    value = lowering.plain(lowering.value(node))
    if isinstance(value, (str, float, complex, torch.dtype)):
        raise lowering.fault(
            node,
            f"`{lowering.shown(node)}` is {describe(value)}, and cannot be an index",
            "index with integers, slices, `...`, `None` and tensors",
        )
    return value


def column(lowering: Lowering, node: ast.Attribute, source: str, key: str) -> Any:
    """Lowers `SOURCE.COLUMN`, the whole column of a data source."""
    stored = lowering.scope.stored
    if key in stored:
        return lowering.column(key, stored[key])
    columns = [name.partition(".")[2] for name in stored if name.partition(".")[0] == source]
    if not columns:
        raise lowering.unknown(ast.copy_location(ast.Name(source), node.value))
    hint = did_you_mean(node.attr, columns, f"its columns are {listing(columns)}")
    raise lowering.fault(node, f"the data source `{source}` has no column `{node.attr}`", hint)


def attribute(lowering: Lowering, node: ast.Attribute) -> Any:
    dotted = operations.dotted_name(node)
    if dotted is not None and not lowering.is_declared(dotted.split(".")[0]):
        found = operations.dotted_constant(dotted)
        if found is not None:
            return found
        if operations.find(dotted):
            raise lowering.fault(node, f"`{dotted}` is a function", f"call it: `{dotted}(…)`")
    if isinstance(node.value, ast.Name):
        key = f"{node.value.id}.{node.attr}"
        if key in lowering.scope.fields and not lowering.is_named(node.value.id):
            return lowering.input(key, lowering.scope.fields[key], node)
        if lowering.scope.stored and not lowering.is_declared(node.value.id):
            return column(lowering, node, node.value.id, key)
        if dotted is not None and dotted.split(".")[0] in PREFIXES and not lowering.is_declared(node.value.id):
            raise lowering.fault(node, f"`{dotted}` is not an operation", suggestion(dotted))
    value = tensor_of(lowering, lowering.value(node.value))
    return operations.read_attribute(lowering, node, value)
