"""Text of the expression language to a checked Python syntax tree. Nothing is evaluated.

The syntax is Python's, cut down to a closed set of node kinds; everything else is refused here with one thing to do.
"""

from __future__ import annotations

import ast
import keyword
import re
import warnings
from dataclasses import dataclass

from runner.language.faults import LanguageError, Place, place_of

MAX_EXPRESSION_BYTES = 64 * 1024
MAX_DEPTH = 100
MAX_INTEGER = 2**63

RESERVED = frozenset({"training", "iteration", "row", "step", "path", "value", "pi", "inf", "nan"})
"""Names that mean something to the language itself, besides Python's keywords."""

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

_OPERATORS: tuple[type[ast.AST], ...] = (
    ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.MatMult,
    ast.BitAnd, ast.BitOr, ast.BitXor, ast.LShift, ast.RShift,
    ast.UAdd, ast.USub, ast.Not, ast.Invert, ast.And, ast.Or,
    ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE,
)  # fmt: skip
_EXPRESSIONS: tuple[type[ast.AST], ...] = (
    ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Call, ast.keyword, ast.Constant, ast.Name,
    ast.Attribute, ast.Subscript, ast.Slice, ast.List, ast.Tuple, ast.Load, ast.Store,
)  # fmt: skip
_STATEMENTS: tuple[type[ast.AST], ...] = (ast.Assign, ast.For, ast.Expr)
_ALLOWED = frozenset(_OPERATORS + _EXPRESSIONS + _STATEMENTS)

_WRITE_A_FUNCTION = "give it a name under `functions:` and call it"
_REFUSED: dict[type[ast.AST], tuple[str, str]] = {
    ast.Lambda: ("a lambda is not available", _WRITE_A_FUNCTION),
    ast.ListComp: ("a comprehension is not available", "write a `for i in range(n):` loop, or a tensor operation"),
    ast.SetComp: ("a comprehension is not available", "write a `for i in range(n):` loop, or a tensor operation"),
    ast.DictComp: ("a comprehension is not available", "write a `for i in range(n):` loop, or a tensor operation"),
    ast.GeneratorExp: ("a comprehension is not available", "write a `for i in range(n):` loop, or a tensor operation"),
    ast.JoinedStr: ("an f-string is not available", "write a plain string"),
    ast.NamedExpr: ("`:=` is not available", "assign the name on a line of its own"),
    ast.Dict: ("a dictionary is not available", "pass arguments by name"),
    ast.Set: ("a set is not available", "write a list"),
    ast.Starred: ("`*` before a value is not available", "write the values out"),
    ast.AugAssign: ("an augmented assignment is not available", "write `x = x + …`"),
    ast.AnnAssign: ("an annotation is not available", "write `name = …`"),
    ast.Return: ("`return` is not needed", "the last line is the value: write it alone"),
    ast.If: ("an `if` statement is not available", "write `a if condition else b`"),
    ast.While: ("a `while` loop is not available", "write `for i in range(n):`, or a `repeat` step"),
    ast.FunctionDef: ("a `def` is not available here", "declare it under `functions:`"),
    ast.ClassDef: ("a class is not available", _WRITE_A_FUNCTION),
    ast.Import: ("an import is not available", "operations are called by their names: `relu(x)`, `linalg.det(x)`"),
    ast.ImportFrom: ("an import is not available", "operations are called by their names: `relu(x)`, `linalg.det(x)`"),
    ast.With: ("a `with` block is not available", "write `x.detach()` where no gradient shall flow"),
    ast.Is: ("`is` is not available", "write `==`"),
    ast.IsNot: ("`is not` is not available", "write `!=`"),
    ast.In: ("`in` is not available", "compare with `==`, or use `isin`"),
    ast.NotIn: ("`not in` is not available", "compare with `!=`, or use `isin`"),
    ast.Delete: ("`del` is not available", "leave the name as it is"),
    ast.Assert: ("`assert` is not available", "write an `expect` step"),
    ast.Pass: ("`pass` is not available", "leave the line out"),
    ast.Await: ("`await` is not available", "leave it out"),
    ast.Yield: ("`yield` is not available", "the last line is the value"),
    ast.Try: ("`try` is not available", "leave it out"),
}


@dataclass(frozen=True, slots=True)
class Header:
    """The head of a helper function: `name(a, b=0.1)`."""

    name: str
    arguments: tuple[str, ...]
    defaults: tuple[ast.expr, ...]  # of the last `len(defaults)` arguments


def parse_statements(text: str) -> list[ast.stmt]:
    """The statements of an `expression`, a function body or a rule, in order.

    Raises:
        LanguageError: the text is empty, too long, too deep, not Python syntax, or uses syntax outside the language.
    """
    statements = _parse(text, "exec").body
    assert isinstance(statements, list)
    if not statements:
        raise LanguageError("the expression is empty", "write for instance `loss = ((x - 3) ** 2).sum()`")
    for statement in statements:
        _check_statement(statement, text)
    return statements


def parse_expression(text: str) -> ast.expr:
    """One expression, without statements. Raises `LanguageError` as `parse_statements` does."""
    if not text.strip():
        raise LanguageError("the expression is empty", "write a number or an expression")
    lead = len(text) - len(text.lstrip(" \t"))
    body = _parse("(" + text[lead:] + "\n)" if "\n" in text else text[lead:], "eval", lead, text).body
    assert isinstance(body, ast.expr)
    return body


def parse_header(text: str) -> Header:
    """The head of a function: `attention(x, w, heads=4)`.

    Raises:
        LanguageError: it is not a name with arguments in brackets.
    """
    hint = "write `name(a, b)`: a name, and its arguments in brackets"
    if not re.match(r"\s*[^\W\d]\w*\s*\(.*\)\s*\Z", text, re.DOTALL):
        raise LanguageError(f"`{text}` is not the head of a function", hint)
    prefix = "def "
    try:
        tree = _quietly(f"{prefix}{text}: 0", "exec")
        assert isinstance(tree, ast.Module)
        definition = tree.body[0]
        assert isinstance(definition, ast.FunctionDef)
    except (SyntaxError, ValueError, RecursionError, MemoryError, AssertionError):
        raise LanguageError(f"`{text}` is not the head of a function", hint) from None
    arguments = definition.args
    if arguments.vararg or arguments.kwarg or arguments.kwonlyargs or arguments.posonlyargs:
        raise LanguageError("a function takes plain arguments only", "leave out `*`, `**` and `/`")
    if any(argument.annotation for argument in arguments.args) or definition.returns:
        raise LanguageError("a function's arguments take no annotations", hint)
    names = tuple(argument.arg for argument in arguments.args)
    for name in (definition.name, *names):
        fault = name_fault(name)
        if fault:
            raise LanguageError(*fault)
    for default in arguments.defaults:
        for node in ast.walk(default):
            if type(node) not in _ALLOWED:
                raise LanguageError("this default value is not available", "write a number, a string or `None`")
    return Header(definition.name, names, tuple(arguments.defaults))


def name_fault(name: str, reserved: bool = True) -> tuple[str, str] | None:
    """Why `name` cannot be declared or assigned, and what to do; None where it can."""
    if not _IDENTIFIER.match(name):
        return f"`{name}` is not a name", "names are letters, digits and `_`, and do not start with a digit"
    if keyword.iskeyword(name):
        return f"`{name}` is a keyword of Python", "choose another name"
    if name.startswith("__"):
        return f"`{name}` starts with two underscores", "choose another name"
    if reserved and name in RESERVED:
        return f"`{name}` is reserved", "choose another name; reserved are " + ", ".join(sorted(RESERVED))
    return None


def source_of(node: ast.AST, text: str) -> str:
    """The text that `node` was parsed from, on one line and cut to 60 characters."""
    segment = " ".join((ast.get_source_segment(text, node) or "").split())
    return segment if len(segment) <= 60 else segment[:57] + "…"


def _parse(text: str, mode: str, lead: int = 0, original: str | None = None) -> ast.Module | ast.Expression:
    original = text if original is None else original
    _check_text(original)
    try:
        tree = _quietly(text, mode)
    except SyntaxError as error:
        raise _syntax_fault(error, text, lead) from None
    except (RecursionError, MemoryError):
        raise LanguageError("the expression is nested too deeply", "split it into several named lines") from None
    except ValueError as error:
        raise LanguageError(f"the expression cannot be read: {error}", "write it anew") from None
    if lead:
        for node in ast.walk(tree):
            if getattr(node, "lineno", 0) == 1:
                node.col_offset += lead  # type: ignore[attr-defined]
                if node.end_lineno == 1:  # type: ignore[attr-defined]
                    node.end_col_offset += lead  # type: ignore[attr-defined]
    elif mode == "eval" and text is not original:
        for node in ast.walk(tree):
            if getattr(node, "lineno", 0) == 1:
                node.col_offset -= 1  # type: ignore[attr-defined]
                if node.end_lineno == 1:  # type: ignore[attr-defined]
                    node.end_col_offset -= 1  # type: ignore[attr-defined]
    _check_nodes(tree, original)
    _check_depth(tree, original)
    return tree


def _quietly(text: str, mode: str) -> ast.Module | ast.Expression:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text, mode=mode)  # type: ignore[return-value]


def _check_text(text: str) -> None:
    if len(text.encode(errors="replace")) > MAX_EXPRESSION_BYTES:
        raise LanguageError(
            f"the expression is longer than {MAX_EXPRESSION_BYTES // 1024} KiB",
            "use `for`, or `functions:`, to say it shorter",
        )
    for number, line in enumerate(text.split("\n"), 1):
        for column, char in enumerate(line):
            if char != "\t" and not char.isprintable():
                raise LanguageError(
                    f"the character U+{ord(char):04X} is not available here", "remove it", Place(number, column, 1)
                )


def _syntax_fault(error: SyntaxError, text: str, lead: int) -> LanguageError:
    line = min(max(error.lineno or 1, 1), text.count("\n") + 1)
    column = max((error.offset or 1) - 1, 0) + (lead if line == 1 else 0)
    message = (error.msg or "invalid syntax").split(" (")[0].rstrip(".")
    message = message[:1].lower() + message[1:]
    if "too many nested parentheses" in message:
        return LanguageError("the expression is nested too deeply", "split it into several named lines")
    hint = "this is Python's expression syntax, one statement a line"
    if "forgot a comma" in message:
        message, hint = "invalid syntax", "two values stand side by side: put an operator or a comma between them"
    elif "unexpected indent" in message or "unindent" in message:
        hint = "start every line at the same column; only the body of a `for` is indented"
    elif "was never closed" in message or "unmatched" in message or "does not match" in message:
        hint = "close every bracket that is opened"
    elif "f-string" in message:
        message, hint = "an f-string is not available", "write a plain string"
    elif "maybe you meant '=='" in message.lower():
        message, hint = "an assignment cannot stand here", "compare with `==`, or assign a plain name"
    elif "cannot assign" in message:
        hint = "assign to a plain name: `name = …`"
    return LanguageError(message, hint, Place(line, column, 1))


def _check_nodes(tree: ast.AST, text: str) -> None:
    for node in ast.walk(tree):
        kind = type(node)
        if kind in (ast.Module, ast.Expression):
            continue
        if kind not in _ALLOWED:
            message, hint = _REFUSED.get(
                kind, (f"this syntax ({kind.__name__.lower()}) is not available", "write it as an expression")
            )
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
                "nothing of Python itself can be reached; `steprun ops` lists what can",
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
        if isinstance(node, (ast.LShift, ast.RShift)):
            raise LanguageError(
                "`<<` and `>>` are not available",
                "use `bitwise_left_shift` and `bitwise_right_shift`",
                place_of(_parent_of(tree, node), text),
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
                "one assignment a line", "write `a = …` and `b = a` on two lines", place_of(statement.targets[1], text)
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
    """The plain names that an assignment writes.

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
            raise LanguageError(
                "the expression is nested too deeply", "split it into several named lines", place_of(node, text)
            )
        for child in ast.iter_child_nodes(node):
            left_spine = isinstance(node, ast.BinOp) and child is node.left
            pending.append((child, depth + (0 if left_spine or not isinstance(child, ast.expr) else 1)))


def _parent_of(tree: ast.AST, child: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        if any(found is child for found in ast.iter_child_nodes(node)):
            return node if hasattr(node, "lineno") else _parent_of(tree, node)
    return tree
