"""Graphs to Python functions, and a run-time fault back to the node it happened in."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from torch import fx

from runner.language.inference.room import lifted_limit
from runner.language.text.faults import START, Place

_FILE = "<steprun expression {}>"
_FIRST = 2  # the line of the first operation
_MANY = 1_000
_ORIGIN = "__origin"
"""The global of a generated function that says where it is from: the origin of its text, and the node of each line."""

_numbers = itertools.count(1)

_OPERATORS: Mapping[Any, str] = {
    operator.add: "{} + {}",
    operator.sub: "{} - {}",
    operator.mul: "{} * {}",
    operator.truediv: "{} / {}",
    operator.floordiv: "{} // {}",
    operator.mod: "{} % {}",
    operator.matmul: "{} @ {}",
    operator.and_: "{} & {}",
    operator.or_: "{} | {}",
    operator.xor: "{} ^ {}",
    operator.neg: "-{}",
    operator.pos: "+{}",
    operator.invert: "~{}",
    operator.eq: "{} == {}",
    operator.ne: "{} != {}",
    operator.lt: "{} < {}",
    operator.le: "{} <= {}",
    operator.gt: "{} > {}",
    operator.ge: "{} >= {}",
    operator.getitem: "{}[{}]",
}
"""How Python writes what would otherwise be a call."""


def compile_graph(graph: fx.Graph, origin: Hashable | None = None) -> Callable[..., Any]:
    """A whole graph, its output included, as a Python function `(None, *inputs)`."""
    *nodes, output = graph.nodes
    return compile_nodes(nodes, output.args[0], origin)


def compile_nodes(nodes: Sequence[fx.Node], result: Any, origin: Hashable | None = None) -> Callable[..., Any]:
    """Nodes in the order of their computation as a Python function `(None, *inputs)` that returns `result`.

    The text is made from the nodes, whose targets are catalogue entries; nothing of the user's text is in it but names
    and literals. Each operation is one line, which lets go of what nothing further reads; by its number `fault_place`
    finds the node.
    """
    known: dict[str, Any] = {}
    inputs = [node for node in nodes if node.op == "placeholder"]
    operations = [node for node in nodes if node.op != "placeholder"]
    if not operations and isinstance(result, tuple) and list(result) == inputs:
        return _given
    done = _last_used(operations, result)
    lines = [f"def forward({', '.join(('self', *(node.name for node in inputs)))}):"]
    lines += [f" {node.name} = {_call(node, known)}{done.get(node, '')}" for node in operations]
    lines.append(f" return {_written(result, known)}")
    file = _FILE.format(next(_numbers))
    if len(lines) > _MANY:  # for which Python's compiler takes some kilobytes each
        with lifted_limit():
            exec(compile("\n".join(lines), file, "exec"), known)
    else:
        exec(compile("\n".join(lines), file, "exec"), known)  # generated from the nodes alone
    function: Callable[..., Any] = known.pop("forward")  # which would keep itself alive
    known[_ORIGIN] = (origin, {line: node for line, node in enumerate(operations, _FIRST) if "place" in node.meta})
    return function


def _given(_: None, *inputs: Any) -> tuple[Any, ...]:
    """What a computation without operations gives, such as `x1.grad` alone."""
    return inputs


def _last_used(operations: Sequence[fx.Node], result: Any) -> dict[fx.Node, str]:
    """For each operation the end of its line: its operands that are neither read later nor returned let go."""
    kept: set[fx.Node] = set()
    fx.node.map_arg(result, kept.add)
    done: dict[fx.Node, str] = {}
    for node in reversed(operations):
        last = [operand for operand in node.all_input_nodes if operand not in kept and operand.op != "placeholder"]
        kept.update(last)
        if last:
            done[node] = "; " + " = ".join([operand.name for operand in last]) + " = None"
    return done


def _call(node: fx.Node, known: dict[str, Any]) -> str:
    arguments = [_written(argument, known) for argument in node.args]
    if node.target in _OPERATORS:
        return _OPERATORS[node.target].format(*arguments)
    assert node.op in ("call_function", "call_method")
    called = f"{arguments.pop(0)}.{node.target}" if node.op == "call_method" else _global(node.target, known)
    arguments += [f"{name}={_written(value, known)}" for name, value in node.kwargs.items()]
    return f"{called}({', '.join(arguments)})"


def _written(value: Any, known: dict[str, Any]) -> str:
    """An argument as Python text; what has no certain text of its own becomes a global of the function."""
    kind = type(value)
    if kind is fx.Node:
        return str(value.name)
    if value is None or value is Ellipsis or kind in (bool, int, str) or (kind is float and math.isfinite(value)):
        return repr(value)
    if isinstance(value, (tuple, list)):
        items = "".join(f"{_written(item, known)}, " for item in value)
        return f"({items})" if isinstance(value, tuple) else f"[{items}]"
    if kind is slice:
        return f"slice({', '.join(_written(part, known) for part in (value.start, value.stop, value.step))})"
    return _global(value, known)


def _global(value: Any, known: dict[str, Any]) -> str:
    """A name for `value` that no node has: those start with one underscore at most."""
    name = f"__{len(known)}"
    known[name] = value
    return name


def fault_place(traceback: TracebackType | None) -> tuple[Place, Hashable | None] | None:
    """Where in an expression a run-time fault happened: the innermost generated line of its traceback."""
    found = None
    around: Hashable | None = None  # of the text that the innermost code so far was made from
    while traceback is not None:
        own, nodes = _origin_of(traceback)
        if nodes is not None:
            around = own if own is not None else around
            node = nodes.get(traceback.tb_lineno)
            origin = around if node is None else node.meta.get("origin")
            found = START if node is None else node.meta["place"], origin if origin is not None else around
        traceback = traceback.tb_next
    return found


def _origin_of(traceback: TracebackType) -> tuple[Hashable | None, Mapping[int, fx.Node] | None]:
    """What a generated function says of itself; None for the nodes of any other."""
    found: tuple[Hashable | None, Mapping[int, fx.Node] | None] = traceback.tb_frame.f_globals.get(
        _ORIGIN, (None, None)
    )
    return found


@dataclass(frozen=True, slots=True)
class Call:
    """A call of an operation: its name, as a function or a method, and what it was given."""

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


def fault_call(traceback: TracebackType | None) -> Call | None:
    """The call that failed at run time, read from the innermost generated frame of a traceback."""
    found = None
    while traceback is not None:
        _, nodes = _origin_of(traceback)
        node = None if nodes is None else nodes.get(traceback.tb_lineno)
        if node is not None:
            found = node, traceback.tb_frame.f_locals
        traceback = traceback.tb_next
    if found is None:
        return None
    node, values = found
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda argument: values.get(argument.name))
    name = node.target if isinstance(node.target, str) else node.target.__name__
    return Call(name, args, kwargs)
