"""Statements: assignments, unrolled loops, and the last value of a block."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, fx

from runner.language.inference.runtime import watch
from runner.language.lowering.context import ABSENT, Lowering
from runner.language.lowering.diagnosis import AllocationError
from runner.language.lowering.operations import unknown_calls
from runner.language.lowering.values import Element
from runner.language.text.faults import Consequence, LanguageError
from runner.language.text.parse import assigned_names

MAX_FAULTS = 10
"""The maximum number of errors reported for one expression."""

_NAMES = "write `{} = …` to name a value; `==` compares"
"""The hint for a statement `name == …`."""


def program(lowering: Lowering, statements: Sequence[ast.stmt], faults: list[LanguageError]) -> str:
    """Lowers the statements of a whole expression. An error in one statement does not hide those in the next."""
    last = "value"
    for position, statement in enumerate(statements):
        done = False
        with collecting(lowering, faults, statement):
            last = _statement(lowering, statement, position == len(statements) - 1) or last
            done = True
        if not done:
            targets = [node for node in ast.walk(statement) if isinstance(node, ast.Name)]
            names = {node.id for node in targets if isinstance(node.ctx, ast.Store)} or {"value"}
            lowering.faulty |= names
            for name in names:  # the earlier value is not meant
                lowering.named.pop(name, None)
                lowering.local.pop(name, None)
    return last


@contextlib.contextmanager
def collecting(lowering: Lowering, faults: list[LanguageError], tree: ast.AST) -> Iterator[None]:
    """Collects an error in the lowering of `tree`, and unknown operations elsewhere in it. Lowering continues after it.

    Raises:
        LanguageError: the first error with all others, if there are too many or a limit has been reached.
        AllocationError: an operation does not fit into memory.
    """
    try:
        yield
    except AllocationError:
        raise
    except LanguageError as error:
        if not isinstance(error, Consequence):
            faults.append(error)
        others = unknown_calls(lowering, tree)
        faults += [other for other in others if other.place != error.place or other.origin != error.origin]
        del faults[MAX_FAULTS:]
        if len(faults) == MAX_FAULTS or (faults and lowering.shared.inference.is_full()):
            faults[0].others = tuple(faults[1:])
            raise faults[0] from None


def block(lowering: Lowering, statements: Sequence[ast.stmt]) -> str:
    """Lowers statements in order. Returns the name of the last one's value."""
    last = "value"
    for position, statement in enumerate(statements):
        last = _statement(lowering, statement, position == len(statements) - 1) or last
    return last


def _statement(lowering: Lowering, statement: ast.stmt, final: bool) -> str | None:
    """Lowers one statement. Returns the name of its value, or None for a loop without one."""
    if isinstance(statement, ast.Assign):
        return _assign(lowering, statement)
    if isinstance(statement, ast.For):
        return _loop(lowering, statement)
    assert isinstance(statement, ast.Expr)
    if not final:
        raise _unused(lowering, statement)
    try:
        value = lowering.value(statement.value)
    except LanguageError as error:
        name = _compared_name(statement)
        if name is not None and error.message == f"`{name}` is not declared":
            error.hint = _NAMES.format(name)
        raise
    lowering.named["value"] = lowering.plain(value)
    if isinstance(value, Element):
        lowering.elements["value"] = value
    return "value"


def _unused(lowering: Lowering, statement: ast.Expr) -> LanguageError:
    """The error for a value in the middle of a block."""
    name = _compared_name(statement)
    hint = "give it a name: `name = …`, or remove the line" if name is None else _NAMES.format(name)
    return lowering.fault(statement, "this value is not used", hint)


def _compared_name(statement: ast.Expr) -> str | None:
    """The name on the left of `name == …`."""
    match statement.value:
        case ast.Compare(left=ast.Name(id=name), ops=[ast.Eq()]):
            return str(name)
    return None


def _loop(lowering: Lowering, statement: ast.For) -> str | None:
    assert isinstance(statement.target, ast.Name)
    assert isinstance(statement.iter, ast.Call)
    bounds = [lowering.integer(argument) for argument in statement.iter.args]
    try:
        counts = range(*bounds)
    except (TypeError, ValueError) as error:
        raise lowering.fault(
            statement.iter, f"`{lowering.shown(statement.iter)}`: {error}", "write `range(n)`"
        ) from None
    if len(counts) > lowering.shared.inference.bounds.nodes:
        raise lowering.fault(
            statement.iter,
            f"this loop would be unrolled {len(counts):,} times",
            "use a `repeat` step, or a tensor operation",
        )
    name = statement.target.id
    before = lowering.local.get(name, ABSENT)
    last = None
    for count in counts:
        lowering.count(statement)
        lowering.local[name] = count
        for inner in statement.body:
            if isinstance(inner, ast.Expr):
                raise _unused(lowering, inner)
        last = block(lowering, statement.body)
    if before is ABSENT:
        lowering.local.pop(name, None)
    else:
        lowering.local[name] = before
    return last


def _assign(lowering: Lowering, statement: ast.Assign) -> str:
    value = lowering.value(statement.value)
    target = statement.targets[0]
    _unpack(lowering, target, value, statement)
    names = assigned_names(statement, lowering.text)
    return names[-1].id


def _unpack(lowering: Lowering, target: ast.expr, value: Any, statement: ast.Assign) -> None:
    if isinstance(target, ast.Name):
        _bind(lowering, target, lowering.plain(value))
        if isinstance(value, Element):
            lowering.elements[target.id] = value
        return
    assert isinstance(target, (ast.Tuple, ast.List))
    parts = lowering.parts(value)
    if parts is None:
        raise lowering.fault(
            statement.value, f"`{lowering.shown(statement.value)}` is one value", "assign it to one name"
        )
    if len(parts) != len(target.elts):
        raise lowering.fault(
            statement,
            f"{len(target.elts)} names for {len(parts)} values",
            "write as many names as there are values",
        )
    for element, part in zip(target.elts, parts, strict=True):
        _unpack(lowering, element, part, statement)


def _bind(lowering: Lowering, target: ast.Name, value: Any) -> None:
    name = target.id
    role = lowering.scope.describe(name) if lowering.parent is None and lowering.origin is None else None
    if role and lowering.scope.writable:
        raise lowering.fault(target, f"`{name}` is a {role} already", "choose another name for this value")
    if isinstance(value, fx.Node) and name in lowering.watched and isinstance(value.meta["example"], Tensor):
        value = lowering.emit(target, "call_function", watch, (value,))
    if isinstance(value, fx.Node):
        value.meta.setdefault("name", name)
    if lowering.origin is None:
        lowering.named.pop(name, None)
    lowering.local.pop(name, None)
    lowering.elements.pop(name, None)
    lowering.named[name] = value
