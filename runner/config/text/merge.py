"""Merges one config into another: mappings merge recursively, other values replace, `null` deletes."""

from __future__ import annotations

from runner.config.text.nodes import Entry, ListNode, MapNode, Node, Path, ScalarNode, weight_of

_TENSORS = ("parameters", "constants")
_OPTIMIZER_SIDE_KEYS = frozenset({"parameters", "groups", "state"})
_STEP_SIDE_KEYS = frozenset({"every", "when"})


def merge(under: Node, over: Node, path: Path = ()) -> Node:
    """Returns `under` with `over` merged into it; `path` is the path of both."""
    if not isinstance(under, MapNode) or not isinstance(over, MapNode):
        return over
    entries = dict(under.entries)
    for key, entry in over.entries.items():
        lower = entries.get(key)
        if is_null(entry.value) and deletes_with_null(path):
            if lower is not None:
                del entries[key]
            else:
                entries[key] = entry
            continue
        for rival in rivals(path, key, entries):
            if rival not in over.entries:
                del entries[rival]
        entries[key] = entry if lower is None else Entry(entry.key, merge(lower.value, entry.value, (*path, key)))
    return with_entries(over, entries)


def rivals(path: Path, key: str, present: dict[str, Entry]) -> list[str]:
    """Returns the present keys at `path` that cannot be combined with `key`."""
    if path == ():
        other = {"optimizer": "optimizers", "optimizers": "optimizer"}.get(key)
        return [other] if other is not None and other in present else []
    if not (path[0] in ("optimizer", "optimizers", "steps") or (path[0] in _TENSORS and len(path) >= 2)):
        return []  # return early: there may be thousands of other keys
    others = [other for other in present if other != key]
    if path == ("optimizer",) or (len(path) == 2 and path[0] == "optimizers"):
        return _unless(_OPTIMIZER_SIDE_KEYS, key, others)
    if path[0] in _TENSORS and len(path) == 2:
        pushed_out = {"init": ("file", "columns"), "file": ("init", "stacked")}.get(key, ())
        return [other for other in others if other in pushed_out]
    if path[0] in _TENSORS and len(path) == 3 and path[2] == "init":
        return others
    if path[0] == "steps" and isinstance(path[-1], int) and (len(path) == 2 or path[-2] == "steps"):
        return _unless(_STEP_SIDE_KEYS, key, others)
    return []


def _unless(side_keys: frozenset[str], key: str, others: list[str]) -> list[str]:
    return [] if key in side_keys else [other for other in others if other not in side_keys]


def deletes_with_null(path: Path) -> bool:
    """Whether `null` in the mapping at `path` deletes a key; inside a list it is a value."""
    return not any(isinstance(part, int) for part in path)


def is_null(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.value is None


def with_entries(node: MapNode, entries: dict[str, Entry]) -> MapNode:
    weight = 1 + sum(1 + weight_of(entry.value) for entry in entries.values())
    return MapNode(entries, node.source, node.start, node.end, node.flow, weight)


def with_items(node: ListNode, items: tuple[Node, ...]) -> ListNode:
    return ListNode(items, node.source, node.start, node.end, node.flow, 1 + sum(map(weight_of, items)))
