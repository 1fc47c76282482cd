"""Styles of a terminal: which texts are bold, dim or red, and whether a stream shows styles."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TextIO

PLAIN, BOLD, DIM, RED = "", "1", "2", "31"
_END = "\x1b[0m"

Styled = Callable[[str, str], str]
"""A text in a style; the text itself where styles are not shown."""


def wants_color(stream: TextIO) -> bool:
    """Whether to print styles: `stream` is a terminal, TERM is not `dumb`, and NO_COLOR is not set (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def styler(color: bool) -> Styled:
    """The function that styles a text, or leaves it alone without `color`."""
    return _styled if color else lambda text, style: text


def _styled(text: str, style: str) -> str:
    """A text in a style, which goes on after a part that has a style of its own."""
    if not style or not text:
        return text
    begin = f"\x1b[{style}m"
    return f"{begin}{text.replace(_END, _END + begin)}{_END}"


def widest(texts: Sequence[str]) -> int:
    """The largest number of visible characters of some texts."""
    return max(map(width_of, texts))


def width_of(text: str) -> int:
    """The number of visible characters of a text with ANSI styles."""
    width = len(text)
    start = text.find("\x1b[")
    while start >= 0:
        end = text.index("m", start) + 1
        width -= end - start
        start = text.find("\x1b[", end)
    return width
