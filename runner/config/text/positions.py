"""Maps each character of a value to its source, through quotes, escapes, line folding and block indentation."""

from __future__ import annotations

import re
from collections.abc import Callable

from runner.config.text.nodes import ScalarNode

Placed = list[tuple[str, int]]
"""The characters of a value, each with its offset in the source."""

_BREAK = re.compile("\r\n|[\r\n\x85]")
_BLANKS = re.compile("[ \t]*")
_ESCAPES = {
    "0": "\0", "a": "\a", "b": "\b", "t": "\t", "\t": "\t", "n": "\n", "v": "\v", "f": "\f", "r": "\r", "e": "\x1b",
    " ": " ", '"': '"', "/": "/", "\\": "\\", "N": "\x85", "_": "\xa0", "L": "\u2028", "P": "\u2029",
}  # fmt: skip
_HEX_ESCAPES = {"x": 2, "u": 4, "U": 8}


def value_offsets(node: ScalarNode) -> list[int] | None:
    """Returns the offset in the source of each character of a text value, then of its end.

    Returns None if the value is not text, or if its offsets cannot be determined.
    """
    if not isinstance(node.value, str):
        return None
    placed = _READERS[node.style](node)
    if "".join(char for char, _ in placed) != node.value:
        return None
    offsets = [offset for _, offset in placed]
    return [*offsets, offsets[-1] + 1 if offsets else node.start]


def place_within(node: ScalarNode, line: int, column: int, width: int) -> tuple[int, int]:
    """Returns the start and end offsets in the source of a place in a value.

    Args:
        line: the line in the value, from 1.
        column: the column, from 0, in characters.
        width: the width of the place, in characters.
    """
    offsets = value_offsets(node)
    if offsets is None or not isinstance(node.value, str):
        start = min(node.start + (column if line == 1 else 0), max(node.start, node.end - 1))
        return start, min(start + width, node.end)
    lines = node.value.split("\n")
    line = min(line, len(lines))
    begin = sum(len(text) + 1 for text in lines[: line - 1]) + min(column, len(lines[line - 1]))
    end = min(begin + max(width, 1), len(node.value))
    start = offsets[begin]
    return start, max(start + 1, offsets[end - 1] + 1 if end > begin else start + 1)


def _flow(text: str, start: int, end: int, unit: Callable[[str, int], tuple[str, int]]) -> Placed:
    """Returns the characters of a plain or quoted scalar, its lines folded as YAML does.

    Args:
        unit: returns the value and the length of the character or escape at an offset.
    """
    placed: Placed = []
    at = start
    while at < end:
        blanks = _BLANKS.match(text, at, end)
        assert blanks
        line_break = _BREAK.match(text, blanks.end(), end)
        if line_break is None:
            placed.extend((text[index], index) for index in range(at, blanks.end()))
            at = blanks.end()
            if at >= end:
                break
            value, length = unit(text, at)
            if value is None or length < 0:  # an escaped line break
                at, breaks = _leading_breaks(text, at - length, end)
                placed.extend(("\n", offset) for offset in breaks)
                continue
            placed.extend((char, at) for char in value)
            at += length
            continue
        first = blanks.end()
        at, breaks = _leading_breaks(text, line_break.end(), end)
        placed.extend([("\n", offset) for offset in breaks] if breaks else [(" ", first)])
    return placed


def _leading_breaks(text: str, at: int, end: int) -> tuple[int, list[int]]:
    """Skips blank lines and indentation; returns the offset of the next text, and those of the line breaks."""
    breaks: list[int] = []
    while True:
        blanks = _BLANKS.match(text, at, end)
        assert blanks
        line_break = _BREAK.match(text, blanks.end(), end)
        if line_break is None:
            return blanks.end(), breaks
        breaks.append(blanks.end())
        at = line_break.end()


def _plain_unit(text: str, at: int) -> tuple[str, int]:
    return text[at], 1


def _single_unit(text: str, at: int) -> tuple[str, int]:
    return (text[at], 2) if text.startswith("''", at) else (text[at], 1)


def _double_unit(text: str, at: int) -> tuple[str, int]:
    if text[at] != "\\":
        return text[at], 1
    line_break = _BREAK.match(text, at + 1)
    if line_break:
        return "", -(line_break.end() - at)
    digits = _HEX_ESCAPES.get(text[at + 1])
    if digits:
        return chr(int(text[at + 2 : at + 2 + digits], 16)), 2 + digits
    return _ESCAPES.get(text[at + 1], ""), 2


def _plain(node: ScalarNode) -> Placed:
    return _flow(node.source.text, node.start, node.end, _plain_unit)


def _single(node: ScalarNode) -> Placed:
    return _flow(node.source.text, node.start + 1, node.end - 1, _single_unit)


def _double(node: ScalarNode) -> Placed:
    return _flow(node.source.text, node.start + 1, node.end - 1, _double_unit)


def _block(node: ScalarNode) -> Placed:
    text = node.source.text
    header = _BREAK.search(text, node.start, node.end)
    if header is None:
        return []
    lines: list[tuple[int, int]] = []
    at = header.end()
    while at < node.end:
        line_break = _BREAK.search(text, at, node.end)
        lines.append((at, line_break.start() if line_break else node.end))
        at = line_break.end() if line_break else node.end
    written = _indentation([text[start:end] for start, end in lines])
    return _block_at(node, lines, max(0, written - _indentation(str(node.value).split("\n"))))


def _indentation(lines: list[str]) -> int:
    """Returns the indentation of the first line with text, or the largest if all lines are blank."""
    blank = [len(line) for line in lines if not line.strip(" ")]
    return next((len(line) - len(line.lstrip(" ")) for line in lines if line.strip(" ")), max(blank, default=0))


def _block_at(node: ScalarNode, lines: list[tuple[int, int]], indent: int) -> Placed:
    text, literal = node.source.text, node.style == "|"
    placed: Placed = []
    pending: Placed = []  # line breaks not yet placed: the one that ends a line, then those of blank lines
    after_text = was_blank = False
    for start, end in lines:
        content = text[start + indent : end] if start + indent < end else ""
        if not content:
            pending.append(("\n", end))
            continue
        begins_blank = content[0] in " \t"
        if after_text and not literal and not begins_blank and not was_blank:
            placed.extend(pending[1:] if len(pending) > 1 else [(" ", pending[0][1])])
        else:
            placed.extend(pending)
        pending = [("\n", end)]
        after_text, was_blank = True, begins_blank
        placed.extend((char, start + indent + index) for index, char in enumerate(content))
    kept = len(node.value) - len(placed) if isinstance(node.value, str) else 0  # line breaks that chomping keeps
    return placed + pending[: max(0, kept)]


_READERS: dict[str, Callable[[ScalarNode], Placed]] = {
    "": _plain,
    "'": _single,
    '"': _double,
    "|": _block,
    ">": _block,
}
