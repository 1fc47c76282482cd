"""Parses the text of an expression into a checked Python syntax tree. Evaluates nothing.

The syntax is a closed subset of Python's. All other syntax is rejected here, with a hint what to write instead.
"""

from __future__ import annotations

import ast
import functools
import keyword
import re
import warnings
from dataclasses import dataclass

from runner.language.text.faults import LanguageError, Place, place_of, source_of
from runner.language.text.syntax import NOT_AVAILABLE, condition_fault, instead_of_block, syntax_fault

MAX_EXPRESSION_BYTES = 64 * 1024
MAX_DEPTH = 100
TOO_DEEP = ("the expression is nested too deeply", "split it into several named lines")
MAX_INTEGER = 2**63
MAX_HEADER = 2_000  # characters
REMEMBERED = 1_000  # characters; shorter texts are cached, since planning parses most expressions more than once

RESERVED = frozenset({"training", "iteration", "row", "step", "path", "value", "pi", "inf", "nan"})
"""Names with a meaning in the language itself, besides Python's keywords."""

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

_OPERATORS: tuple[type[ast.AST], ...] = (
    ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.MatMult,
    ast.BitAnd, ast.BitOr, ast.BitXor,
    ast.UAdd, ast.USub, ast.Not, ast.Invert, ast.And, ast.Or,
    ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE,
)  # fmt: skip
_EXPRESSIONS: tuple[type[ast.AST], ...] = (
    ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Call, ast.keyword, ast.Constant, ast.Name,
    ast.Attribute, ast.Subscript, ast.Slice, ast.List, ast.Tuple, ast.Load, ast.Store,
)  # fmt: skip
_STATEMENTS: tuple[type[ast.AST], ...] = (ast.Assign, ast.For, ast.Expr)
_DEFAULTS = (
    ast.Constant, ast.Name, ast.Attribute, ast.Load, ast.UnaryOp, ast.USub, ast.UAdd, ast.BinOp,
    ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.Tuple, ast.List,
)  # fmt: skip
_ALLOWED = frozenset(_OPERATORS + _EXPRESSIONS + _STATEMENTS)
_IN_CONDITIONS = _ALLOWED | {ast.In, ast.NotIn, ast.Is, ast.IsNot}


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a helper function: `name(a, b=0.1)`."""

    name: str
    arguments: tuple[str, ...]
    defaults: tuple[ast.expr, ...]  # of the last `len(defaults)` arguments


def parse_statements(text: str) -> list[ast.stmt]:
    """Parses the statements of an `expression` or a function body. The last one is its value.

    The trees are cached: do not modify them.

    Raises:
        LanguageError: the text is empty, too long, too deep, not Python syntax, or uses syntax outside the language.
    """
    return list(_remembered_statements(text) if len(text) <= REMEMBERED else _statements(text))


def _statements(text: str) -> list[ast.stmt]:
    statements = _parse(text, "exec").body
    assert isinstance(statements, list)
    if not statements:
        raise LanguageError("the expression is empty", "write for instance `loss = ((x - 3) ** 2).sum()`")
    for statement in statements:
        _check_statement(statement, text)
    if isinstance(statements[-1], ast.For):
        raise LanguageError(
            "the last line is a loop, and has no value",
            "write the value on a line of its own after it",
            place_of(statements[-1], text),
        )
    return statements


_remembered_statements = functools.lru_cache(maxsize=256)(_statements)


def parse_expression(text: str) -> ast.expr:
    """Parses one expression. The tree is cached: do not modify it. Raises as `parse_statements`."""
    return _remembered(text) if len(text) <= REMEMBERED else _expression(text)


def parse_condition(text: str) -> ast.expr:
    """Parses a condition over the columns of a table, which has `in` and `is` as well. Raises as `parse_statements`."""
    try:
        return _expression(text, _IN_CONDITIONS)
    except LanguageError as error:
        raise condition_fault(error, text) from error


def _expression(text: str, allowed: frozenset[type[ast.AST]] = _ALLOWED) -> ast.expr:
    if not text.strip():
        raise LanguageError("the expression is empty", "write a number or an expression")
    lead = len(text) - len(text.lstrip(" \t"))
    several = "\n" in text
    if several:
        _parse(f"[{text[lead:]}\n]", "eval", lead - 1, text, allowed)  # the text must not close the added bracket
    body = _parse(f"({text[lead:]}\n)" if several else text[lead:], "eval", lead - several, text, allowed).body
    assert isinstance(body, ast.expr)
    return body


_remembered = functools.lru_cache(maxsize=256)(_expression)


def parse_header(text: str) -> Header:
    """Parses the header of a function: `attention(x, w, heads=4)`.

    Raises:
        LanguageError: the text is not a name with arguments in brackets.
    """
    hint = "write `name(a, b)`: a name, and its arguments in brackets"
    if len(text) > MAX_HEADER:
        raise LanguageError(f"the head of a function is longer than {MAX_HEADER:,} characters", hint)
    _check_text(text)
    definition = _definition(text)
    if definition is None:
        raise LanguageError(f"`{text}` is not the head of a function", hint)
    arguments = definition.args
    if arguments.vararg or arguments.kwarg or arguments.kwonlyargs or arguments.posonlyargs:
        raise LanguageError("a function takes plain arguments only", "leave out `*`, `**` and `/`")
    if any(argument.annotation for argument in arguments.args) or definition.returns:
        raise LanguageError("a function's arguments take no annotations", hint)
    names = tuple(argument.arg for argument in arguments.args)
    for position, name in enumerate(names):
        if name in names[:position]:
            raise LanguageError(f"`{name}` is an argument twice", "rename one of them")
    for name in (definition.name, *names):
        fault = name_fault(name)
        if fault:
            raise LanguageError(*fault)
    for default in arguments.defaults:
        if not all(isinstance(node, _DEFAULTS) for node in ast.walk(default)):
            shown = ast.unparse(default) if sum(1 for _ in ast.walk(default)) < 20 else "this"
            raise LanguageError(
                f"`{shown}` is not available as a default value", "write a number, a string, `None` or a name"
            )
        _check_nodes(default, _DEFINITION.format(text))
    return Header(definition.name, names, tuple(arguments.defaults))


_DEFINITION = "def {}: 0"


def _definition(text: str) -> ast.FunctionDef | None:
    """Returns the function with the header `text` and an empty body; None if `text` is not a header."""
    if not re.match(r"\s*[^\W\d]\w*\s*\(.*\)\s*\Z", text, re.DOTALL):
        return None
    try:
        tree = _quietly(_DEFINITION.format(text), "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    found = tree.body[0] if isinstance(tree, ast.Module) and len(tree.body) == 1 else None
    if not isinstance(found, ast.FunctionDef) or ast.dump(found.body[0]) != "Expr(value=Constant(value=0))":
        return None
    return found


def name_fault(name: str, reserved: bool = True) -> tuple[str, str] | None:
    """Returns why `name` cannot be declared or assigned, and a hint; None if it can."""
    if not _IDENTIFIER.match(name):
        return f"`{name}` is not a name", "names are letters, digits and `_`, and do not start with a digit"
    if keyword.iskeyword(name):
        return f"`{name}` is a keyword of Python", "choose another name"
    if name.startswith("__"):
        return f"`{name}` starts with two underscores", "choose another name"
    if reserved and name in RESERVED:
        return f"`{name}` is reserved", "choose another name; reserved are " + ", ".join(sorted(RESERVED))
    return None


def _parse(
    text: str,
    mode: str,
    shift: int = 0,
    original: str | None = None,
    allowed: frozenset[type[ast.AST]] = _ALLOWED,
) -> ast.Module | ast.Expression:
    """Returns the checked tree of `text`, with positions in `original`; its first line starts `shift` columns later."""
    original = text if original is None else original
    _check_text(original)
    tree = _syntax_tree(text, mode, shift, original)
    if shift:
        for node in ast.walk(tree):
            if getattr(node, "lineno", 0) == 1:
                node.col_offset = max(0, node.col_offset + shift)  # type: ignore[attr-defined]
                if node.end_lineno == 1:  # type: ignore[attr-defined]
                    node.end_col_offset += shift  # type: ignore[attr-defined]
    _check_nodes(tree, original, allowed)
    _check_depth(tree, original)
    return tree


def _syntax_tree(text: str, mode: str, shift: int, original: str) -> ast.Module | ast.Expression:
    try:
        return _quietly(text, mode)
    except SyntaxError as error:
        raise syntax_fault(error, shift, original) from None
    except (RecursionError, MemoryError):
        raise LanguageError(*TOO_DEEP) from None
    except ValueError as error:
        raise LanguageError(f"the expression cannot be read: {error}", "rewrite it") from None


def _quietly(text: str, mode: str) -> ast.Module | ast.Expression:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text, mode=mode)  # type: ignore[return-value]


def _check_text(text: str) -> None:
    if len(text.encode(errors="replace")) > MAX_EXPRESSION_BYTES:
        raise LanguageError(
            f"the expression is longer than {MAX_EXPRESSION_BYTES // 1024} KiB",
            "shorten it with `for` or `functions:`",
        )
    if text.replace("\n", "").replace("\t", "").isprintable():
        return
    for number, line in enumerate(text.split("\n"), 1):
        for column, char in enumerate(line):
            if char != "\t" and not char.isprintable():
                raise LanguageError(
                    f"the character U+{ord(char):04X} is not available here", "remove it", Place(number, column, 1)
                )


_UNCHECKED = frozenset(
    (
        *(ast.Module, ast.Expression, ast.Load, ast.Store, ast.BinOp, ast.UnaryOp, ast.Call, ast.Assign, ast.Expr),
        *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.USub),
    )
)
"""Syntax of which nothing is to be checked."""


def _check_nodes(tree: ast.AST, text: str, allowed: frozenset[type[ast.AST]] = _ALLOWED) -> None:
    for node in ast.walk(tree):
        kind = type(node)
        if kind in _UNCHECKED:
            continue
        if kind not in allowed:
            message, hint = NOT_AVAILABLE.get(
                kind, (f"this syntax ({kind.__name__.lower()}) is not available", "write it as an expression")
            )
            if isinstance(node, ast.With):
                hint = instead_of_block(node)
            placed = node if hasattr(node, "lineno") else _parent_of(tree, node)
            raise LanguageError(message, hint, place_of(placed, text))
        if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            raise LanguageError(
                f"`.{node.attr}` is not available",
                "names that start with an underscore are private; leave it out",
                place_of(node, text),
            )
        if isinstance(node, ast.Name) and node.id.startswith("__"):
            raise LanguageError(
                f"`{node.id}` is not available",
                "built-ins of Python are not available; `steprun ops` lists what is",
                place_of(node, text),
            )
        if isinstance(node, ast.Name) and not node.id.isascii():
            raise LanguageError(f"`{node.id}` is not a name", "names are letters, digits and `_`", place_of(node, text))
        if isinstance(node, ast.Constant):
            _check_constant(node, text)
        if isinstance(node, ast.keyword) and node.arg is None:
            raise LanguageError(
                "`**` before an argument is not available", "write the arguments out", place_of(node, text)
            )


def _check_constant(node: ast.Constant, text: str) -> None:
    if isinstance(node.value, bytes):
        raise LanguageError("bytes are not available", "write a plain string", place_of(node, text))
    if isinstance(node.value, int) and abs(node.value) > MAX_INTEGER:
        raise LanguageError("this integer is larger than 2^63", "write it as a float: `1e20`", place_of(node, text))


def _check_statement(statement: ast.stmt, text: str) -> None:
    if isinstance(statement, ast.Assign):
        if len(statement.targets) != 1:
            raise LanguageError(
                "a chained assignment is not available",
                "write `a = …` and `b = a` on two lines",
                place_of(statement.targets[1], text),
            )
        for name in assigned_names(statement, text):
            fault = name_fault(name.id)
            if fault and name.id != "value":
                raise LanguageError(*fault, place_of(name, text))
    elif isinstance(statement, ast.For):
        if not isinstance(statement.target, ast.Name):
            raise LanguageError(
                "a loop has one variable", "write `for i in range(n):`", place_of(statement.target, text)
            )
        fault = name_fault(statement.target.id)
        if fault:
            raise LanguageError(*fault, place_of(statement.target, text))
        call = statement.iter
        if not (
            isinstance(call, ast.Call)
            and isinstance(call.func, ast.Name)
            and call.func.id == "range"
            and not call.keywords
        ):
            raise LanguageError(
                "a loop runs over `range(…)`", "write `for i in range(n):`", place_of(statement.iter, text)
            )
        if statement.orelse:
            raise LanguageError(
                "`else` after a loop is not available", "leave it out", place_of(statement.orelse[0], text)
            )
        for inner in statement.body:
            _check_statement(inner, text)


def assigned_names(statement: ast.Assign, text: str) -> list[ast.Name]:
    """Returns the plain names that an assignment writes.

    Raises:
        LanguageError: a target is not a plain name (`x[0] = …`, `x.data = …`).
    """
    names: list[ast.Name] = []
    pending: list[ast.expr] = [statement.targets[0]]
    while pending:
        target = pending.pop(0)
        if isinstance(target, ast.Name):
            names.append(target)
        elif isinstance(target, (ast.Tuple, ast.List)):
            pending[:0] = target.elts
        else:
            raise LanguageError(
                f"`{source_of(target, text)}` cannot be assigned",
                "assign to a plain name; nothing is changed in place (`index_put`, `where` and `cat` make new tensors)",
                place_of(target, text),
            )
    return names


def _check_depth(tree: ast.AST, text: str) -> None:
    pending: list[tuple[ast.AST, int]] = [(tree, 0)]
    while pending:
        node, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise LanguageError(*TOO_DEEP, place_of(node, text))
        for child in ast.iter_child_nodes(node):
            left_spine = isinstance(node, ast.BinOp) and child is node.left
            pending.append((child, depth + (0 if left_spine or not isinstance(child, ast.expr) else 1)))


def _parent_of(tree: ast.AST, child: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        if any(found is child for found in ast.iter_child_nodes(node)):
            return node if hasattr(node, "lineno") else _parent_of(tree, node)
    return tree
