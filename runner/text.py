"""Text for a terminal, whoever wrote it: it moves no cursor, writes no clipboard and turns no line around.

Config values, recorded runs, snapshots and the names of files may all come from a stranger. Everything that is printed
passes `printable`, and everything that is printed as JSON comes from `json_text`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

_SPACES = "\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_ALLOWED = frozenset(_SPACES + "\u200c\u200d")  # also what joins letters and parts of an emoji, or keeps them apart


def printable(text: str) -> str:
    """The text with every control character (C0, C1), bidirectional control and half of a surrogate pair replaced.

    Its lines stay lines, and a tab becomes a space.
    """
    if text.isprintable():
        return text
    return "\n".join(map(printable_line, text.split("\n")))


def printable_line(text: str) -> str:
    """The same for what has to stay on one line."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in _ALLOWED else REPLACEMENT for char in text.replace("\t", " "))


def json_text(value: Any, indent: int | None = None) -> str:
    """A value as JSON, its characters as they are where they are printable, and escaped where they are not."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else _escaped(char) for char in text)


def finite_json(value: Any) -> Any:
    """A value with each number that JSON does not have (nan, inf) as text, in lists and dictionaries too."""
    match value:
        case float() if not math.isfinite(value):
            return str(value)
        case list() | tuple():
            return [finite_json(item) for item in value]
        case dict():
            return {key: finite_json(item) for key, item in value.items()}
    return value


def counted(count: int, noun: str) -> str:
    """`1 row`, `1,000 rows`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def shortened(text: str, width: int) -> str:
    """The text, or its beginning and `…` where it is longer than `width` characters."""
    return text if len(text) <= width else text[: width - 1] + "…"


def aligned(rows: Iterable[Sequence[str]], right: Sequence[bool] = (), indent: str = "  ") -> list[str]:
    """Rows of cells as lines of one width, their columns under one another.

    Args:
        right: for each column whether its cells end, rather than begin, at one place.
    """
    cells = list(rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    align_right = [*right, *[False] * (len(widths) - len(right))]
    lines = []
    for row in cells:
        places = zip(row, widths, align_right, strict=True)
        padded = (cell.rjust(width) if is_right else cell.ljust(width) for cell, width, is_right in places)
        lines.append(indent + "  ".join(padded))
    return lines


def _escaped(char: str) -> str:
    """A character that stands in a JSON string, as `\\u` and four digits for each of its UTF-16 units."""
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
