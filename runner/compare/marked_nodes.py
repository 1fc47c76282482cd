"""Reads the values of a YAML document's nodes, and collects a problem for each that is not as expected."""

from __future__ import annotations

from runner.config.text.nodes import MapNode, Node, ScalarNode, describe, plain
from runner.config.text.source import Source
from runner.errors import Problem, SnapshotError, did_you_mean

_WIDEST_MARK = 23
_MOST_PROBLEMS = 10


class MarkedNodes:
    """The nodes of one document, and the problems found in them.

    Args:
        hint: what to do about a problem that has no hint of its own.
    """

    def __init__(self, source: Source, hint: str) -> None:
        self._source = source
        self._hint = hint
        self._problems: list[Problem] = []

    def add(self, node: Node, message: str, hint: str | None = None) -> None:
        """Add a problem at a node."""
        hint = self._hint if hint is None else hint
        end = min(node.end, node.start + _WIDEST_MARK)
        self._problems.append(self._source.problem(node.start, end, message, hint))

    def stop(self) -> None:
        """Raise SnapshotError if there are problems."""
        if self._problems:
            shown = self._problems[:_MOST_PROBLEMS]
            if len(shown) < len(self._problems):
                shown.append(Problem(f"and {len(self._problems) - len(shown)} more problems"))
            raise SnapshotError(shown)

    def check_keys(self, node: MapNode, needed: tuple[str, ...], optional: tuple[str, ...], noun: str) -> None:
        """Add a problem for each unknown key, and one problem for all missing keys together."""
        for key, entry in node.entries.items():
            if key not in needed and key not in optional:
                hint = did_you_mean(key, [*needed, *optional], self._hint)
                self.add(entry.key, f"{noun} has no key `{key}`", hint)
        missing = [key for key in needed if key not in node.entries]
        if missing:
            self.add(node, f"{noun} needs {', '.join(f'`{key}`' for key in missing)}")

    def mapping(self, node: Node, what: str) -> MapNode:
        """The node if it is a mapping; otherwise raises SnapshotError with all problems so far."""
        if not isinstance(node, MapNode):
            self.add(node, f"expected a mapping of {what}, found {describe(plain(node))}")
            self.stop()
        assert isinstance(node, MapNode)
        return node

    def raw(self, node: ScalarNode) -> str:
        """The text of a scalar as it is written, without quotes."""
        return str(node.value) if node.style else self._source.text[node.start : node.end]

    def text(self, node: Node, what: str) -> str:
        """The text of a scalar; adds a problem and returns an empty text if the node is something else."""
        if not isinstance(node, ScalarNode) or not isinstance(node.value, str):
            self.add(node, f"expected {what}, found {describe(plain(node))}")
            return ""
        return node.value

    def texts(self, node: Node, what: str) -> dict[str, str]:
        """The texts of a mapping by key; adds a problem for each value that is not a text."""
        entries = self.mapping(node, what).entries
        return {key: self.text(entry.value, "a digest in quotes") for key, entry in entries.items()}
