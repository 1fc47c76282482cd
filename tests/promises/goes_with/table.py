"""The table of `docs/what-goes-with-what.md`."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "what-goes-with-what.md"

Cell = tuple[str, str]
"""A capability and a column."""


def cells() -> dict[Cell, str]:
    """What the page says of each capability in each column: `bits`, `close`, `refused` or `–`."""
    text = PAGE.read_text(encoding="utf-8")
    lines = [line for line in text[text.index("| | ") :].splitlines() if line.startswith("|")]
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    found = {}
    for name, *words in rows:
        assert len(words) == len(head) - 1, name
        for column, word in zip(head[1:], words, strict=True):
            assert (name, column) not in found, name
            found[name, column] = word.rstrip(" ¹²³⁴⁵")
    return found
