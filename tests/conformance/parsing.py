"""A case's expressions as Python's syntax trees, also where a name is one of Python's keywords."""

from __future__ import annotations

import ast
import io
import keyword
import tokenize
from tokenize import TokenInfo

PREFIXES = frozenset({"not", "lambda", "await", "yield"})
"""Keywords that an operand follows; every other keyword follows one, or begins a statement."""
VALUES = frozenset({"True", "False", "None"})
CLOSING = frozenset({")", "]", "}"})
ARITHMETIC = frozenset({*"+-*/%@&|^~<>", "**", "//", "<<", ">>", "==", "!=", "<=", ">="})
"""Operators that bind closer than any keyword, so that what follows them is a value."""
OPENING = frozenset({"(", "[", "{", "-", "+", "~", "not", "lambda"})
"""What begins an operand, beside a value. A keyword before one is an operator, as Python reads it."""
LAYOUT = frozenset({tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER})
STAND_IN = "keyword_{}_as_a_name"


def parsed(expression: str) -> ast.expr:
    """The tree of an expression; a keyword that stands where a value does is a name.

    Raises:
        SyntaxError: no reading of the keywords makes an expression.
    """
    text = expression.strip()
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError:
        tree = ast.parse(_with_names(text), mode="eval").body
    meant = {STAND_IN.format(word): word for word in keyword.kwlist}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = meant.get(node.id, node.id)
    return tree


def _with_names(text: str) -> str:
    text = text.replace("\n", " ")
    tokens = [token for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type not in LAYOUT]
    names: list[TokenInfo] = []
    for at, token in enumerate(tokens):
        before = tokens[at - 1] if at else None
        after = tokens[at + 1] if at + 1 < len(tokens) else None
        if _is_name(
            token, before, after, follows_a_value=before is not None and (_ends_a_value(before) or before in names)
        ):
            names.append(token)
    for token in reversed(names):
        text = text[: token.start[1]] + STAND_IN.format(token.string) + text[token.end[1] :]
    return text


def _is_name(token: TokenInfo, before: TokenInfo | None, after: TokenInfo | None, *, follows_a_value: bool) -> bool:
    word = token.string
    if not keyword.iskeyword(word) or word in VALUES:
        return False
    if word not in PREFIXES:
        return not follows_a_value
    if after is None or (before is not None and before.string in ARITHMETIC):
        return True
    return not (_is_value(after) or after.string in (":" if word == "lambda" else OPENING))


def _ends_a_value(token: TokenInfo) -> bool:
    return _is_value(token) or token.string in CLOSING


def _is_value(token: TokenInfo) -> bool:
    plain = token.type == tokenize.NAME and (not keyword.iskeyword(token.string) or token.string in VALUES)
    return plain or token.type in {tokenize.NUMBER, tokenize.STRING}
