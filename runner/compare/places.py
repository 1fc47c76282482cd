"""Finds where a config writes what a column of its rows shows, and where it writes a step."""

from __future__ import annotations

import ast
import re

from runner.config import Config
from runner.config.text.nodes import ListNode, MapNode, Node, ScalarNode
from runner.config.text.positions import place_within
from runner.config.text.source import Source
from runner.errors import Mark
from runner.plan.rows.columns import Column

Written = tuple[Source, Mark]
"""A text, and a place in it."""

_PARTS = re.compile(r"([^.\[\]]+)(?:\[[^\]]*\])?")
_LOOPS = ("repeat", "for_each")


def place_of(config: Config, column: Column) -> Written | None:
    """Where a config writes a column: a parameter for weights, gradients and state; else a value or a metric.

    Returns:
        None if no line of the config names it, as for the norm of all gradients.
    """
    name = column.name if column.of is None else column.of.name
    if column.role in ("weight", "gradient", "state"):
        return _declared(config, name, ("parameters", "constants"))
    for candidate in dict.fromkeys((name, name.partition(".")[2])):  # `test.loss` is `loss` of an evaluation
        if candidate:
            found = _declared(config, candidate, ("metrics",)) or _assigned(config, candidate)
            if found is not None:
                return found
    return None


def _declared(config: Config, name: str, keys: tuple[str, ...]) -> Written | None:
    """The key with the longest part of a name that some mapping of the config has."""
    root = config.document.root
    name = re.sub(r"\[[\d, ]*\]", "", name)
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        for key in keys:
            entry = root.entries.get(key)
            entries = entry.value.entries if entry is not None and isinstance(entry.value, MapNode) else {}
            found = entries.get(".".join(parts[:end]))
            if found is not None:
                return _at(found.key)
    return None


def _assigned(config: Config, name: str) -> Written | None:
    """The statement of `expression` that assigns a name."""
    entry = config.document.root.entries.get("expression")
    if entry is None or not isinstance(entry.value, ScalarNode) or not isinstance(entry.value.value, str):
        return None
    try:
        statements = ast.parse(entry.value.value).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    for statement in statements:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == name:
                start, _ = place_within(entry.value, node.lineno, node.col_offset, len(name))
                return entry.value.source, entry.value.source.mark(start)
    return None


def step_place(config: Config, path: str) -> Written | None:
    """Where a config writes the step of a row: `5.backward` is the fifth of its steps."""
    entry = config.document.root.entries.get("steps")
    if entry is None:
        return None
    node: Node = entry.value
    position = None
    for part in path.split("."):
        found = _PARTS.fullmatch(part)
        if part.isdecimal():
            position = int(part)
            continue
        item = _item(node, position)
        position = None
        if item is None or found is None:
            break
        node = item
        if found[1] in _LOOPS and isinstance(item, MapNode):
            body = item.entries.get(found[1])
            inner = body.value.entries.get("steps") if body is not None and isinstance(body.value, MapNode) else None
            if inner is None:
                break
            node = inner.value
    return _at(node)


def _item(node: Node, position: int | None) -> Node | None:
    if isinstance(node, ListNode) and node.items:
        place = 0 if position is None else position - 1
        return node.items[place] if 0 <= place < len(node.items) else None
    return None


def _at(node: Node) -> Written:
    return node.source, node.source.mark(node.start)
