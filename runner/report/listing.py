"""Shows a config with line numbers; each line has an address, to which values on the page lead."""

from __future__ import annotations

from runner.report.markup import Markup, joined, paragraph, tag, text
from runner.text import counted

MOST_LINES = 5_000
"""The most lines of a config that a page shows."""


def listing(content: str, prefix: str, label: str) -> Markup:
    """A text line by line.

    Args:
        prefix: the first part of the address of each line: line 12 has the address `PREFIX-12`.
        label: what it is, for a screen reader.
    """
    lines = content.splitlines()
    shown = joined(
        tag("li", tag("code", text(line)), id=f"{prefix}-{number}") for number, line in enumerate(lines[:MOST_LINES], 1)
    )
    made = tag("ol", shown, class_="listing", tabindex="0", role="region", aria_label=label)
    if len(lines) <= MOST_LINES:
        return made
    return joined([paragraph(f"The first {MOST_LINES:,} of {counted(len(lines), 'line')}.", "note"), made])


def line_link(prefix: str, line: int | None, said: str) -> Markup:
    """A link to a line of a listing; the text alone without a line."""
    if line is None or line > MOST_LINES:
        return text(said)
    return tag("a", text(said), href=f"#{prefix}-{line}")
