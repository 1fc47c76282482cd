"""Messages for syntax that the language does not have, for users who know Python and PyTorch."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping

from runner.language.text.faults import LanguageError, Place

_WRITE_A_FUNCTION = "give it a name under `functions:` and call it"
_COMPREHENSION = ("a comprehension is not available", "write a `for i in range(n):` loop, or a tensor operation")
_IMPORT = ("an import is not available", "operations are called by their names: `relu(x)`, `linalg.det(x)`")
_GLOBAL = ("a function cannot assign outer names", "pass the value as an argument, and use the result")
_YIELD = ("`yield` is not available", "the last line is the value")
_ASYNC = ("`async` is not available", "leave it out")
_TRY = ("`try` is not available", "leave it out")

NOT_AVAILABLE: Mapping[type[ast.AST], tuple[str, str]] = {
    ast.Lambda: ("a lambda is not available", _WRITE_A_FUNCTION),
    ast.ListComp: _COMPREHENSION,
    ast.SetComp: _COMPREHENSION,
    ast.DictComp: _COMPREHENSION,
    ast.GeneratorExp: _COMPREHENSION,
    ast.JoinedStr: ("an f-string is not available", "write a plain string"),
    ast.NamedExpr: ("`:=` is not available", "assign the name on a line of its own"),
    ast.Dict: ("a dictionary is not available", "pass arguments by name"),
    ast.Set: ("a set is not available", "write a list"),
    ast.Starred: ("`*` before a value is not available", "write the values out"),
    ast.AugAssign: ("an augmented assignment is not available", "write `x = x + …`"),
    ast.AnnAssign: ("an annotation is not available", "write `name = …`"),
    ast.Return: ("`return` is not needed", "the last line is the value: write it alone"),
    ast.If: ("an `if` statement is not available", "write `a if condition else b`"),
    ast.Match: ("a `match` statement is not available", "write `a if condition else b`"),
    ast.While: ("a `while` loop is not available", "write `for i in range(n):`, or a `repeat` step"),
    ast.FunctionDef: ("a `def` is not available here", "declare it under `functions:`"),
    ast.ClassDef: ("a class is not available", _WRITE_A_FUNCTION),
    ast.Import: _IMPORT,
    ast.ImportFrom: _IMPORT,
    ast.With: ("a `with` block is not available", "keep only its body"),
    ast.Is: ("`is` is not available", "write `==`"),
    ast.IsNot: ("`is not` is not available", "write `!=`"),
    ast.In: ("`in` is not available", "compare with `==`, or use `isin`"),
    ast.NotIn: ("`not in` is not available", "compare with `!=`, or use `isin`"),
    ast.LShift: ("`<<` is not available", "use `bitwise_left_shift`"),
    ast.RShift: ("`>>` is not available", "use `bitwise_right_shift`"),
    ast.Delete: ("`del` is not available", "leave the name as it is"),
    ast.Assert: ("`assert` is not available", "write an `expect` step"),
    ast.Raise: ("`raise` is not available", "write an `expect` step"),
    ast.Pass: ("`pass` is not available", "leave the line out"),
    ast.Break: ("`break` is not available", "write the number of rounds in `range(n)`"),
    ast.Continue: ("`continue` is not available", "write `a if condition else b`"),
    ast.Global: _GLOBAL,
    ast.Nonlocal: _GLOBAL,
    ast.Yield: _YIELD,
    ast.YieldFrom: _YIELD,
    ast.Await: ("`await` is not available", "leave it out"),
    ast.AsyncFunctionDef: _ASYNC,
    ast.AsyncFor: _ASYNC,
    ast.AsyncWith: _ASYNC,
    ast.Try: _TRY,
    ast.TryStar: _TRY,
}
"""The message and hint for each kind of Python syntax that the language does not have."""

_DETACH = "write `x.detach()` to stop the gradient"
_BLOCKS: Mapping[str, str] = {
    "autocast": "write `x.to(bfloat16)` for lower precision",
    **dict.fromkeys(("no_grad", "inference_mode", "set_grad_enabled"), _DETACH),
    "enable_grad": "gradients flow everywhere: keep only its body",
    "fork_rng": "every step has its own random stream: keep only its body",
    "detect_anomaly": "non-finite values are reported without it: keep only its body",
}


def instead_of_block(block: ast.With) -> str:
    """Returns a hint for a `with` block, by its context manager."""
    opened = block.items[0].context_expr
    called = opened.func if isinstance(opened, ast.Call) else opened
    name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
    return _BLOCKS.get(name, NOT_AVAILABLE[ast.With][1])


SIDE_BY_SIDE = "an operator or a comma is missing"
"""The message about two values with nothing between them."""

_HABITS: tuple[tuple[str, str, str], ...] = (
    (r"&&", "`&&` is not an operator", "write `a & b` for tensors, `a and b` for scalars"),
    (r"\|\|", "`||` is not an operator", "write `a | b` for tensors, `a or b` for scalars"),
    (r"!", "`!` is not an operator", "write `~x` for tensors, `not x` for scalars"),
    (r"\?", "`?` is not an operator", "write `a if condition else b`"),
    (r"<>", "`<>` is not an operator", "write `!=`"),
    (r"=>", "`=>` is not an operator", "write `>=`"),
    (r"=<", "`=<` is not an operator", "write `<=`"),
    (r"->", "`->` is not an operator", "declare functions under `functions:`"),
    (r":=", "`:=` is not available", "write `name = …` on a line of its own"),
    (r"=", "an assignment is not available here", "compare with `==`; only an expression of statements assigns names"),
    (r"`", "a backtick is not available", "write the name alone"),
    (r"\$", "`$` is not available", "write the name alone"),
)
"""Syntax of other languages, by the text at which Python's parser stops."""

_CHARACTERS: Mapping[str, str] = {
    "×": "*", "·": "*", "⋅": "*", "∙": "*", "÷": "/", "−": "-", "–": "-", "—": "-", "≤": "<=", "≥": ">=",
    "≠": "!=", "²": "** 2", "³": "** 3", "‘": "'", "’": "'", "“": '"', "”": '"', "∗": "*", "⊙": "*",
}  # fmt: skip


_MESSAGES: tuple[tuple[str, str | None, str], ...] = (
    ("too many nested parentheses", "the expression is nested too deeply", "split it into several named lines"),
    ("exceeds the limit", "this integer is larger than 2^63", "write it as a float: `1e20`"),
    ("forgot a comma", SIDE_BY_SIDE, "write `a * b`, `a, b` or two lines"),
    ("unexpected indent", None, "start every line at the same column; only the body of a `for` is indented"),
    ("unindent", None, "start every line at the same column; only the body of a `for` is indented"),
    ("expected an indented block", "the body of this block is missing", "indent the lines below it"),
    ("was never closed", None, "close every bracket that is opened"),
    ("unmatched", None, "close every bracket that is opened"),
    ("does not match", None, "close every bracket that is opened"),
    ("f-string", "an f-string is not available", "write a plain string"),
    ("maybe you meant '=='", "an assignment is not available here", "compare with `==`, or assign to a plain name"),
    ("cannot assign", None, "assign to a plain name: `name = …`"),
    ("unterminated", "this string is not closed", "close it with the quote that it starts with"),
    ("unicodeescape", "this string has an escape that is not complete", "write `\\\\` for a backslash"),
    ("invalid decimal literal", "this is not a number", "write `2 * x` for a product; names do not start with a digit"),
    ("leading zeros", "a number does not start with a zero", "leave the zero out"),
    ("missing parentheses in call", "a call takes brackets", "write `f(x)`"),
    ("generator expression", *_COMPREHENSION),
    ("expected 'else'", "`if` needs its `else`", "write `a if condition else b`"),
    ("expected ':'", "a colon is missing", "write `for i in range(n):`"),
)
"""Parts of messages of Python's parser (in lower case), our message (None: unchanged) and hint."""

_HINT = "this is Python's expression syntax, one statement a line"


def syntax_fault(error: SyntaxError, shift: int, text: str) -> LanguageError:
    """Converts an error of Python's parser about `text`. The parser saw its first line `shift` columns further left."""
    lines = text.split("\n")
    number = min(max(error.lineno or 1, 1), len(lines))
    column = (error.offset or 1) - 1 + (shift if number == 1 else 0)
    line = lines[number - 1]
    place = Place(number, min(max(column, 0), max(len(line) - 1, 0)), 1)
    message_text = (error.msg or "invalid syntax").split(" (")[0].rstrip(".")
    message_text = message_text[:1].lower() + message_text[1:]
    for part, message, hint in _MESSAGES:
        if part in (error.msg or "").lower():
            return LanguageError(message or message_text, hint, place)
    if message_text.startswith("invalid character"):
        character = line[place.column : place.column + 1]
        instead = _CHARACTERS.get(character)
        hint = f"write `{instead}`" if instead else "write it with the characters of a keyboard"
        return LanguageError(f"the character `{character}` is not available here", hint, place)
    if message_text != "invalid syntax":
        return LanguageError(message_text, _HINT, place)
    return _habit(line, max(column, 0), place)


_STRINGS = re.compile(r"'[^']*'|\"[^\"]*\"")
_WORDS = re.compile(r"\b(AND|OR|NOT|IN|IS|NULL|(?i:between|like))\b")

_OF_CONDITIONS: Mapping[str, str] = {
    "AND": "write `and`",
    "OR": "write `or`",
    "NOT": "write `not`",
    "IN": "write `in [1, 2]`",
    "IS": "write `is missing` or `is not missing`",
    "NULL": "write `is missing` or `is not missing`",
    "BETWEEN": "write `1 <= x <= 2`",
    "LIKE": "compare text by `==` or `in`",
    "`&&` is not an operator": "write `and`",
    "`||` is not an operator": "write `or`",
    "`!` is not an operator": "write `not`",
    "an assignment is not available here": "compare with `==`",
    SIDE_BY_SIDE: 'combine conditions with `and` or `or`; a name with blanks is `column("fixed acidity")`',
}
"""Hints for conditions over columns, by words of SQL and by messages."""


def condition_fault(error: LanguageError, text: str) -> LanguageError:
    """The fault of a condition over columns as its user should read it, who may think of SQL."""
    if error.message == SIDE_BY_SIDE:
        word = _WORDS.search(_STRINGS.sub(lambda found: " " * len(found[0]), text))
        if word is not None:
            hint = _OF_CONDITIONS[word[1].upper()]
            before = text[: word.start(1)]
            line = before.count("\n")
            place = Place(line + 1, word.start(1) - (before.rfind("\n") + 1), len(word[1]))
            return LanguageError(f"`{word[1]}` is not an operator", hint, place)
    found = LanguageError(error.message, _OF_CONDITIONS.get(error.message, error.hint), error.place, error.origin)
    found.others = error.others
    return found


def _habit(line: str, column: int, place: Place) -> LanguageError:
    rest = line[column:]
    earlier = line[max(column - 1, 0) :]
    for pattern, message, hint in _HABITS:
        for start in (earlier, rest):
            if re.match(pattern, start) and not re.match(r"[=<>!]=", start):
                return LanguageError(message, hint, place)
    if not rest.split("#")[0].strip():
        return LanguageError("the line ends too early", "complete it after its last operator", place)
    if re.match(r"[\w(\[]", rest) and re.search(r"[\w)\]]\s+\Z", line[:column]):
        return LanguageError(SIDE_BY_SIDE, "write `a * b`, `a, b` or two lines", place)
    return LanguageError("invalid syntax", _HINT, place)
