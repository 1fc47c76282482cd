"""Shows a config: the text of its file, or line by line, where each line has an address that values lead to."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from pathlib import Path

from runner.config.files.safe_files import Folder
from runner.report.markup import Markup, joined, paragraph, tag, text
from runner.text import counted

CONFIG_BYTES = 256 << 10
"""The most bytes of a config that a page shows as one text."""

MOST_COMPARED = 1_000
"""The most lines of two configs whose differences are marked."""

MOST_LINES = 5_000
"""The most lines of a config that a page shows line by line."""


def listing(content: str, prefix: str, label: str, marked: Collection[int] = ()) -> Markup:
    """A text line by line.

    Args:
        prefix: the first part of the address of each line: line 12 has the address `PREFIX-12`.
        label: what it is, for a screen reader.
        marked: the numbers of the lines to mark.
    """
    lines = content.splitlines()
    shown = joined(
        tag("li", tag("code", text(line)), id=f"{prefix}-{number}", class_="set" if number in marked else None)
        for number, line in enumerate(lines[:MOST_LINES], 1)
    )
    made = tag("ol", shown, class_="listing", tabindex="0", role="region", aria_label=label)
    if len(lines) <= MOST_LINES:
        return made
    return joined([paragraph(f"The first {MOST_LINES:,} of {counted(len(lines), 'line')}.", "note"), made])


def changed_lines(content: str, other: str) -> frozenset[int]:
    """The numbers of the lines of a text that another text does not have in their place; none of very long texts."""
    lines, others = content.splitlines(), other.splitlines()
    if max(len(lines), len(others)) > MOST_COMPARED:
        return frozenset()
    same = difflib.SequenceMatcher(None, lines, others, autojunk=False).get_matching_blocks()
    kept = {line for block in same for line in range(block.a + 1, block.a + block.size + 1)}
    return frozenset(range(1, len(lines) + 1)) - kept


PREFIX = "config"
"""The first part of the address of each line of a config that is the only one on its page."""


def file_text(directory: Path, name: str, marked: int | None = None) -> Markup:
    """The config in a file of a directory line by line, or why it cannot be read."""
    try:
        with Folder(directory) as folder, folder.open(name) as file:
            content = file.read(CONFIG_BYTES + 1)
    except OSError as error:
        return paragraph(f"{name} cannot be read: {error.strerror}.", "note")
    shown = listing(
        content[:CONFIG_BYTES].decode("utf-8", "replace"), PREFIX, "Config", () if marked is None else (marked,)
    )
    if len(content) <= CONFIG_BYTES:
        return shown
    return joined([paragraph(f"The first {CONFIG_BYTES >> 10} KiB.", "note"), shown])


def line_link(prefix: str, line: int | None, said: str) -> Markup:
    """A link to a line of a listing; the text alone without a line."""
    if line is None or line > MOST_LINES:
        return text(said)
    return tag("a", text(said), href=f"#{prefix}-{line}")
