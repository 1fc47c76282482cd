"""Signatures that neither the dispatcher nor Python tells in full: `written.txt`, by hand, as in the tables."""

from __future__ import annotations

from pathlib import Path


def read_written() -> dict[str, tuple[str, ...]]:
    """The text between the parentheses of every overload, by name."""
    found: dict[str, tuple[str, ...]] = {}
    for line in Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").splitlines():
        name, _, inside = line.partition("(")
        found[name] = (*found.get(name, ()), inside[:-1])
    return found
