"""The tree of a config text: every node has its source and its offsets there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from runner.config.text.scalars import ScalarValue
from runner.config.text.source import Source

Path = tuple[str | int, ...]
"""The path from the top of a config to a value: keys, and list indices from 0."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ScalarNode:
    value: ScalarValue
    source: Source
    start: int
    end: int
    style: str = ""  # "" if plain, else the opening character: ' " | >


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ListNode:
    items: tuple[Node, ...]
    source: Source
    start: int
    end: int
    flow: bool = False
    weight: int = 1  # the number of nodes in it, aliases expanded


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Entry:
    key: ScalarNode
    value: Node


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class MapNode:
    entries: Mapping[str, Entry]
    source: Source
    start: int
    end: int
    flow: bool = False
    weight: int = 1


Node = ScalarNode | ListNode | MapNode


def weight_of(node: Node) -> int:
    """Returns the number of nodes in a node, aliases expanded."""
    return 1 if isinstance(node, ScalarNode) else node.weight


def plain(node: Node) -> Any:
    """Returns the value of a node as dicts, lists and scalars."""
    if isinstance(node, ScalarNode):
        return node.value
    if isinstance(node, ListNode):
        return [plain(item) for item in node.items]
    return {key: plain(entry.value) for key, entry in node.entries.items()}


def walk(node: Node, path: Path = ()) -> Iterator[tuple[Path, Node]]:
    """Yields `node` and every node below it, each after its path."""
    yield path, node
    if isinstance(node, ListNode):
        for index, item in enumerate(node.items):
            yield from walk(item, (*path, index))
    elif isinstance(node, MapNode):
        for key, entry in node.entries.items():
            yield from walk(entry.value, (*path, key))


def replaced(root: MapNode, path: Path, entries: Mapping[str, Any]) -> MapNode:
    """Returns a tree in which the entry at a path gives way to other entries, at the same place in the text.

    Entries that the mapping has already are kept. Values are scalars, or tuples of scalars.
    """
    first, *rest = path
    entry = root.entries[str(first)]
    if rest:
        assert isinstance(entry.value, MapNode)
        changed = {str(first): Entry(entry.key, replaced(entry.value, tuple(rest), entries))}
    else:
        changed = {
            name: Entry(replace(entry.key, value=name), _node_of(value, entry.value))
            for name, value in entries.items()
            if name == first or name not in root.entries
        }
    kept = {name: before for name, before in root.entries.items() if name != first}
    order = [name for each in root.entries for name in (changed if each == first else (each,))]
    return replace(root, entries={name: changed.get(name) or kept[name] for name in order})


def _node_of(value: Any, at: Node) -> Node:
    """Returns a value as a node at the place of another one."""
    if isinstance(value, tuple):
        items = tuple(_node_of(item, at) for item in value)
        return ListNode(items, at.source, at.start, at.end, flow=True, weight=1 + len(items))
    return ScalarNode(value, at.source, at.start, at.end)


def dotted(path: Path) -> str:
    """Returns a path in the form that overrides use: `a.b.0`."""
    return ".".join(str(part) for part in path)


def describe(value: object) -> str:
    """Returns a value as a noun phrase for messages: ``a list``, ``the text `abc` ``."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int | float):
        return f"the number {value}"
    if value == "":
        return "empty text"
    if isinstance(value, str):
        shown = " ".join(value.split())
        return f"the text `{shown[:40]}{'…' if len(shown) > 40 else ''}`"
    return "a mapping" if isinstance(value, Mapping) else "a list"
