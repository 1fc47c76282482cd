"""Reads `written.txt`: signatures written by hand, where the dispatcher and Python have only a part."""

from __future__ import annotations

from pathlib import Path


def read_written() -> dict[str, tuple[str, ...]]:
    """Returns the text between the parentheses of every overload, by name."""
    found: dict[str, tuple[str, ...]] = {}
    for line in Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").splitlines():
        name, _, inside = line.partition("(")
        found[name] = (*found.get(name, ()), inside[:-1])
    return found
