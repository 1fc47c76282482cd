"""Parses one line of a table: a name, its arguments, its flags."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a torch function, as its documentation names it."""

    name: str
    default: str | None  # Python text; None if the argument is required
    type: (
        str  # "Tensor", "Tensor[]", "int", "int[]", "float", "bool", "str", "dtype", "Scalar", "int|float"; "" unknown
    )
    keyword_only: bool
    optional: bool = False  # accepts None
    variadic: bool = False  # takes all positional arguments from here on, or one list

    def __str__(self) -> str:
        kind = self.type + ("?" if self.optional else "")
        text = ("*" if self.variadic else "") + self.name + (f": {kind}" if kind else "")
        return text if self.default is None else f"{text} = {self.default}"


Overload = tuple[Argument, ...]


def parse_line(line: str) -> tuple[str, Overload, frozenset[str]]:
    """Split `torch.sum(input: Tensor, *, dtype: dtype? = None)  # flags` into name, arguments and flags."""
    entry, _, flags = line.partition("  # ")
    name, parenthesis, inside = entry.partition("(")
    return name, parse_arguments(inside[:-1]) if parenthesis else (), frozenset(flags.split())


def parse_arguments(text: str) -> Overload:
    """The arguments between a signature's parentheses."""
    found: list[Argument] = []
    keyword_only = False
    for part in _split(text):
        if part == "*":
            keyword_only = True
            continue
        declaration, _, default = part.partition(" = ")
        name, _, kind = declaration.partition(": ")
        variadic = name.startswith("*")
        found.append(
            Argument(
                name=name.removeprefix("*"),
                default=default or None,
                type=kind.removesuffix("?"),
                keyword_only=keyword_only,
                optional=kind.endswith("?") or default == "None",
                variadic=variadic,
            )
        )
        keyword_only = keyword_only or variadic
    return tuple(found)


def signature_text(name: str, overload: Overload) -> str:
    """The overload as text: `softmax(input: Tensor, dim: int)`."""
    parts: list[str] = []
    starred = False
    for argument in overload:
        if argument.keyword_only and not starred:
            parts.append("*")
        starred = starred or argument.keyword_only or argument.variadic
        parts.append(str(argument))
    return f"{name}({', '.join(parts)})"


def _split(text: str) -> Iterator[str]:
    """The parts between commas outside brackets; no default contains a quoted comma or bracket."""
    start = depth = 0
    for position, char in enumerate(text):
        if char in "([":
            depth += 1
        elif char in ")]":
            depth -= 1
        elif char == "," and depth == 0:
            yield text[start:position]
            start = position + 2
    if text:
        yield text[start:]
