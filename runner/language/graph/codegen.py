"""Compiles graphs to Python functions, and maps a run-time error back to its node."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any

from torch import fx

from runner.language.inference.autocast import KEY
from runner.language.inference.room import lifted_limit
from runner.language.text.faults import START, Place

_FILE = "<steprun expression {}>"
_FIRST = 2  # the line of the first operation
_MANY = 1_000
_ORIGIN = "__origin"
"""The global of a generated function that stores its source: the origin of its text, and the node of each line."""

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
"""Python's syntax for operators."""


def compile_graph(graph: fx.Graph, origin: Hashable | None = None) -> Callable[..., Any]:
    """Compiles a whole graph, including its output, to a Python function `(None, *inputs)`."""
    *nodes, output = graph.nodes
    return compile_nodes(nodes, output.args[0], origin)


def compile_nodes(nodes: Sequence[fx.Node], result: Any, origin: Hashable | None = None) -> Callable[..., Any]:
    """Compiles nodes, in execution order, to a Python function `(None, *inputs)` that returns `result`.

    The code is generated from the nodes, whose targets are catalogue entries. Of the user's text it contains only names
    and literals. Each operation is one line, which also frees the values that nothing reads later. `fault_place` finds
    the node by its line number.
    """
    known: dict[str, Any] = {}
    inputs = [node for node in nodes if node.op == "placeholder"]
    operations = [node for node in nodes if node.op != "placeholder"]
    if not operations and isinstance(result, tuple) and list(result) == inputs:
        return _given
    if not operations and isinstance(result, tuple) and all(isinstance(each, int | float) for each in result):
        return lambda _, *inputs: result
    frees = _frees(operations, result)
    lines = [f"def forward({', '.join(('self', *(node.name for node in inputs)))}):"]
    lines += [f" {node.name} = {_call(node, known)}{frees.get(node, '')}" for node in operations]
    lines.append(f" return {_source(result, known)}")
    lines, places = _under_autocast(lines, operations, known)
    file = _FILE.format(next(_numbers))
    if len(lines) > _MANY:  # Python's compiler needs some kilobytes for each line
        with lifted_limit():
            exec(compile("\n".join(lines), file, "exec"), known)
    else:
        exec(compile("\n".join(lines), file, "exec"), known)  # generated from the nodes alone
    function: Callable[..., Any] = known.pop("forward")  # a reference cycle otherwise
    known[_ORIGIN] = (origin, {line: node for line, node in places.items() if "place" in node.meta})
    return function


def _under_autocast(
    lines: list[str], operations: Sequence[fx.Node], known: dict[str, Any]
) -> tuple[list[str], dict[int, fx.Node]]:
    """Puts `with torch.autocast(…):` around the operations that run under it, and returns the line of each operation.

    All of them run under one context, as a user would write it: within it torch casts a weight only once.
    """
    numbers = dict(enumerate(operations, _FIRST))
    under = [line for line, node in numbers.items() if KEY in node.meta]
    if not under:
        return lines, numbers
    first, last = under[0], under[-1]
    context = f" with {_global(numbers[first].meta[KEY], known)}():"
    inside = [f" {line}" for line in lines[first - 1 : last]]
    moved = {line + (line >= first): node for line, node in numbers.items()}
    return [*lines[: first - 1], context, *inside, *lines[last:]], moved


def _given(_: None, *inputs: Any) -> tuple[Any, ...]:
    """The function of a computation without operations, such as `x1.grad` alone."""
    return inputs


def _frees(operations: Sequence[fx.Node], result: Any) -> dict[fx.Node, str]:
    """Returns the end of each operation's line: it frees the operands that are neither read later nor returned."""
    kept: set[fx.Node] = set()
    fx.node.map_arg(result, kept.add)
    frees: dict[fx.Node, str] = {}
    for node in reversed(operations):
        last = [operand for operand in node.all_input_nodes if operand not in kept and operand.op != "placeholder"]
        kept.update(last)
        if last:
            frees[node] = "; " + " = ".join([operand.name for operand in last]) + " = None"
    return frees


def _call(node: fx.Node, known: dict[str, Any]) -> str:
    arguments = [_source(argument, known) for argument in node.args]
    if node.target in _OPERATORS:
        return _OPERATORS[node.target].format(*arguments)
    assert node.op in ("call_function", "call_method")
    called = f"{arguments.pop(0)}.{node.target}" if node.op == "call_method" else _global(node.target, known)
    arguments += [f"{name}={_source(value, known)}" for name, value in node.kwargs.items()]
    return f"{called}({', '.join(arguments)})"


def _source(value: Any, known: dict[str, Any]) -> str:
    """Returns an argument as Python source. A value without an exact literal becomes a global of the function."""
    kind = type(value)
    if kind is fx.Node:
        return str(value.name)
    if value is None or value is Ellipsis or kind in (bool, int, str) or (kind is float and math.isfinite(value)):
        return repr(value)
    if isinstance(value, (tuple, list)):
        items = "".join(f"{_source(item, known)}, " for item in value)
        return f"({items})" if isinstance(value, tuple) else f"[{items}]"
    if kind is slice:
        return f"slice({', '.join(_source(part, known) for part in (value.start, value.stop, value.step))})"
    return _global(value, known)


def _global(value: Any, known: dict[str, Any]) -> str:
    """Returns a global name for `value`. It cannot clash with nodes: their names start with at most one underscore."""
    name = f"__{len(known)}"
    known[name] = value
    return name


def fault_place(traceback: TracebackType | None) -> tuple[Place, Hashable | None] | None:
    """Returns where in an expression a run-time error occurred: the innermost generated line of its traceback."""
    frames = []
    while traceback is not None:
        frames.append((traceback.tb_frame, traceback.tb_lineno))
        traceback = traceback.tb_next
    return _innermost(frames)


def running_place(frame: FrameType | None) -> tuple[Place, Hashable | None] | None:
    """Returns which operation of an expression a frame works for: the innermost generated line around it."""
    frames = []
    while frame is not None:
        frames.append((frame, frame.f_lineno))
        frame = frame.f_back
    return _innermost(frames[::-1])


def _innermost(frames: Sequence[tuple[FrameType, int]]) -> tuple[Place, Hashable | None] | None:
    """The place of the innermost generated line, and the origin of its text; `frames` are outermost first."""
    found = None
    enclosing: Hashable | None = None  # the origin of the innermost generated code so far
    for frame, line in frames:
        own, nodes = _origin_of(frame)
        if nodes is not None:
            enclosing = own if own is not None else enclosing
            node = nodes.get(line)
            origin = enclosing if node is None else node.meta.get("origin")
            found = START if node is None else node.meta["place"], origin if origin is not None else enclosing
    return found


def _origin_of(frame: FrameType) -> tuple[Hashable | None, Mapping[int, fx.Node] | None]:
    """Returns the origin and nodes of a generated function; `(None, None)` for any other."""
    found: tuple[Hashable | None, Mapping[int, fx.Node] | None] = frame.f_globals.get(_ORIGIN, (None, None))
    return found


@dataclass(frozen=True, slots=True)
class Call:
    """A call of an operation: the name of its function or method, and its arguments."""

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


def fault_call(traceback: TracebackType | None) -> Call | None:
    """Returns the call that failed at run time, from the innermost generated frame of a traceback."""
    found = None
    while traceback is not None:
        _, nodes = _origin_of(traceback.tb_frame)
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
