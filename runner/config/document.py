"""The resolved text of a config, with the file, line and column of every value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path as FilePath

from runner.config.text.extends import Sandbox
from runner.config.text.nodes import ListNode, MapNode, Node, Path, ScalarNode, dotted
from runner.config.text.source import Source, whole_file_problem
from runner.errors import Mark, Problem


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Document:
    """The tree of a config after `extends` and overrides; every value keeps its place in the text."""

    root: MapNode
    source: Source
    sandbox: Sandbox
    name: str
    written: MapNode | None = None  # the tree before `like`, to which overrides apply; None if it is the same

    def problem(
        self,
        path: Path,
        message: str,
        hint: str | None = None,
        *,
        at: tuple[int, int, int] | None = None,
        key: bool = False,
    ) -> Problem:
        """Returns a problem at a config path, placed in the text that wrote the value.

        Args:
            path: keys and list indices; the problem marks the deepest part that exists.
            at: a place inside the text value at `path`: line from 1, column from 0, width; both in characters.
            key: mark the key instead of the value; `at` is then a place inside the key.
        """
        key_node, node, depth = self._find(path)
        shown = dotted(path)
        if depth < len(path):
            at = None
        if node is self.root:
            return whole_file_problem(self.source.name, message, hint, shown)
        marked = key_node if key_node is not None and (key or not _is_visible(node)) else node
        if at is not None and isinstance(marked, ScalarNode):
            from runner.config.text.positions import place_within

            start, end = place_within(marked, *at)
            return marked.source.problem(start, end, message, hint, shown)
        return self._node_problem(marked, message, hint, shown)

    def mark(self, path: Path, *, key: bool = False) -> Mark:
        """Returns the place of a value, or of its key."""
        key_node, node, _ = self._find(path)
        marked = key_node if key and key_node is not None else node
        return marked.source.mark(marked.start)

    def folder(self, path: Path = ()) -> FilePath:
        """Returns the folder of the file that wrote the value at `path`; relative paths in the value start there."""
        return self._find(path)[1].source.folder

    def folders(self) -> tuple[FilePath, ...]:
        """Returns the folders that files may be read from: the config's own, then those that the caller allows."""
        return tuple(FilePath(folder) for folder in self.sandbox.folders)

    def node(self, path: Path) -> Node | None:
        """Returns the node at a path, or None if there is none."""
        _, node, depth = self._find(path)
        return node if depth == len(path) else None

    def to_yaml(self, *, absolute_files: bool = False) -> str:
        """Returns the resolved config as YAML, which loads back to an equal config.

        Args:
            absolute_files: write the absolute path of each data file, so that the text can move to another folder.
                Otherwise a path from a base in another folder is rewritten relative to the config's folder.
        """
        from runner.config.text.emit import emit

        return emit(self.root, self.name, self.source.folder, absolute_files)

    def _find(self, path: Path) -> tuple[ScalarNode | None, Node, int]:
        node: Node = self.root
        key: ScalarNode | None = None
        for depth, part in enumerate(path):
            if isinstance(node, MapNode) and part in node.entries:
                entry = node.entries[str(part)]
                key, node = entry.key, entry.value
            elif isinstance(node, ListNode) and isinstance(part, int) and 0 <= part < len(node.items):
                key, node = None, node.items[part]
            else:
                return key, node, depth
        return key, node, len(path)

    def _node_problem(self, node: Node, message: str, hint: str | None, path: str) -> Problem:
        return node.source.problem(node.start, node.end, message, hint, path)


def _is_visible(node: Node) -> bool:
    return node.end > node.start
