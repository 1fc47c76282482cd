"""Makes untrusted text safe for a terminal and a page: no cursor movement, no reversed lines, no markup.

Config values, recorded runs, snapshots and file names may all be untrusted. All printed text passes through
`printable`, all printed JSON through `json_text`, and all HTML through `html_tables`.
"""

from __future__ import annotations

import html
import json
import math
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

_SPACES = "\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_ALLOWED = frozenset(_SPACES + "\u200c\u200d")  # and the joiners of letters and emoji


def printable(text: str) -> str:
    """The text with control characters (C0, C1), bidirectional controls and lone surrogates replaced.

    Line breaks are kept, and a tab becomes a space.
    """
    if text.isprintable():
        return text
    return "\n".join(map(printable_line, text.split("\n")))


def printable_line(text: str) -> str:
    """The text as `printable` returns it, but on one line: line breaks are replaced too."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in _ALLOWED else REPLACEMENT for char in text.replace("\t", " "))


def json_text(value: Any, indent: int | None = None) -> str:
    """A value as JSON; only characters that are not printable are escaped."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else _escaped(char) for char in text)


def finite_json(value: Any) -> Any:
    """The value, with each nan and inf in it as a string, because JSON has neither; tuples become lists."""
    match value:
        case float() if not math.isfinite(value):
            return str(value)
        case list() | tuple():
            return [finite_json(item) for item in value]
        case dict():
            return {key: finite_json(item) for key, item in value.items()}
    return value


def counted(count: int, noun: str) -> str:
    """A count with its noun: `1 row`, `1,000 rows`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def shortened(text: str, width: int) -> str:
    """The text, cut to `width` characters with `…` at the end if it is longer."""
    return text if len(text) <= width else text[: width - 1] + "…"


def columns_left_out(names: Sequence[str], width: int, advice: str) -> str:
    """A line that names the columns that do not fit, as many as it has room for; empty if all fit."""
    if not names:
        return ""
    start = counted(len(names), "more column")
    for count in range(len(names), 0, -1):
        more = ", …" if count < len(names) else ""
        text = f"{start}: {', '.join(names[:count])}{more}; {advice}"
        if len(text) <= width:
            return text
    return f"{start}; {advice}"


_PLAIN_WORD = re.compile(r"[\w@%+=:,./-][\w@%+=:,./#-]*")


def steprun_command(*words: object) -> str:
    """A command line to paste into a POSIX shell: `steprun` and the words, quoted where the shell needs it.

    A `#` inside a word needs no quotes, as in `SWEEP#17`.
    """
    texts = ["steprun", *map(str, words)]
    return " ".join(text if _PLAIN_WORD.fullmatch(text) else shlex.quote(text) for text in texts)


def aligned(rows: Iterable[Sequence[str]], right: Sequence[bool] = (), indent: str = "  ") -> list[str]:
    """Rows of cells as lines with aligned columns.

    Args:
        right: whether each column is right-aligned; further columns are left-aligned.
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


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells, which show as text and as HTML. Without headings, the first cell of each row names it."""

    rows: Sequence[Sequence[object]]
    headings: Sequence[str] = ()


class Shown:
    """What shows as tables: as text if it is printed, and as HTML in a notebook."""

    __slots__ = ()

    def _tables(self) -> Iterable[Table]:
        raise NotImplementedError

    def __str__(self) -> str:
        return text_tables(self._tables())

    def _repr_html_(self) -> str:
        return html_tables(self._tables())


def html_tables(tables: Iterable[Table]) -> str:
    """Tables as static HTML; every cell is text."""
    return "".join(map(_html_table, tables))


def _html_table(table: Table) -> str:
    lines = [_html_row(table.headings, ["th"] * len(table.headings))] if table.headings else []
    first = "td" if table.headings else "th"
    lines += [_html_row(row, [first, *["td"] * (len(row) - 1)]) for row in table.rows]
    return f"<table>{''.join(lines)}</table>"


def _html_row(cells: Sequence[object], tags: Sequence[str]) -> str:
    return f"<tr>{''.join(_html_cell(printable(str(cell)), tag) for cell, tag in zip(cells, tags, strict=True))}</tr>"


def _html_cell(text: str, tag: str) -> str:
    several = ' style="white-space: pre; text-align: left"' if "\n" in text else ""
    return f"<{tag}{several}>{html.escape(text)}</{tag}>"


def text_tables(tables: Iterable[Table]) -> str:
    """Tables as text with aligned columns; the lines of a cell stand below one another."""
    return "\n\n".join("\n".join(_text_table(table)) for table in tables)


def _text_table(table: Table) -> list[str]:
    rows = [table.headings, *table.rows] if table.headings else table.rows
    lines = [line for row in rows for line in _text_lines(row)]
    return [line.rstrip() for line in aligned(lines, indent="")] if lines else []


def _text_lines(row: Sequence[object]) -> list[list[str]]:
    cells = [printable(str(cell)).split("\n") for cell in row]
    height = max(map(len, cells), default=0)
    return [[cell[line] if line < len(cell) else "" for cell in cells] for line in range(height)]


def _escaped(char: str) -> str:
    """A character of a JSON string as `\\u` and four digits for each of its UTF-16 units."""
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
