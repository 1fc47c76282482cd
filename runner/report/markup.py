"""Builds HTML from text: every text is escaped, and only tags and attributes of this module reach a page."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import NewType

from runner.text import printable, shortened

Markup = NewType("Markup", str)
"""HTML that is safe to put into a page."""

NOTHING = Markup("")

_BACKTICKS = re.compile(r"`([^`]*)`")

LONGEST = 10_000
"""The most characters of one text on a page; a config has more."""


def text(value: object, longest: int = LONGEST) -> Markup:
    """A value as text: markup in it is shown, never obeyed. What is longer than `longest` is cut."""
    return Markup(html.escape(printable(shortened(str(value), longest))))


def tag(name: str, *content: Markup | str, **attributes: str | None) -> Markup:
    """An element; a plain string inside it is escaped.

    Args:
        content: markup from this module, or plain strings.
        attributes: by name, with `_` for `-` and a trailing `_` for words of Python: `class_`. None leaves one out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{written}>{''.join(content)}</{name}>")


def coded(value: object) -> Markup:
    """Text in which what stands between backticks is code."""
    parts = _BACKTICKS.split(str(value))
    return joined(tag("code", text(part)) if place % 2 else text(part) for place, part in enumerate(parts))


def joined(parts: Iterable[Markup]) -> Markup:
    return Markup("".join(parts))


def paragraph(value: object, class_: str | None = None) -> Markup:
    return tag("p", coded(value), class_=class_)


def alert(message: object, hint: str | None = None) -> Markup:
    """What is wrong, and what to do about it."""
    said = [tag("strong", coded(message))]
    if hint:
        said.append(tag("span", coded(f" {hint}")))
    return tag("p", *said, class_="alert", role="alert")


def block(value: object, label: str, longest: int = LONGEST) -> Markup:
    """Text as it stands, that scrolls where it is wide."""
    return tag("pre", text(value, longest), tabindex="0", role="region", aria_label=label)


def facts(pairs: Iterable[tuple[str, object]]) -> Markup:
    """A list of names, each with a value."""
    return tag("dl", joined(tag("div", tag("dt", text(name)), tag("dd", text(value))) for name, value in pairs))


def story(pairs: Iterable[tuple[str, Markup]]) -> Markup:
    """A list of names, each with markup, one below the other."""
    rows = (tag("div", tag("dt", text(name)), tag("dd", value)) for name, value in pairs)
    return tag("dl", joined(rows), class_="story")


def table(head: Sequence[str], rows: Iterable[Sequence[object]], caption: str) -> Markup:
    """A table of texts."""
    return grid(head, ([text(cell) for cell in row] for row in rows), caption)


def grid(head: Sequence[str], rows: Iterable[Sequence[Markup]], caption: str) -> Markup:
    """A table of markup."""
    return wide_table(head, (tag("tr", joined(tag("td", cell) for cell in row)) for row in rows), caption)


def wide_table(head: Sequence[str], rows: Iterable[Markup], caption: str, label: str | None = None) -> Markup:
    """A table of rows that are elements already, which scrolls where it is wide.

    Args:
        label: what it is, for a screen reader; the caption by default.
    """
    header = tag("tr", joined(tag("th", text(name), scope="col") for name in head))
    made = tag("table", tag("caption", text(caption)), tag("thead", header), tag("tbody", joined(rows)))
    return tag("div", made, class_="wide", tabindex="0", role="region", aria_label=label or caption)
