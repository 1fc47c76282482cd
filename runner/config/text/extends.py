"""`extends`: reads the base files of a config, from allowed folders only, and merges them in order."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runner.config.limits import Limits
from runner.config.text.compose import compose
from runner.config.text.merge import merge, with_entries
from runner.config.text.nodes import ListNode, MapNode, Node, ScalarNode, describe
from runner.config.text.source import Source, read_source
from runner.errors import ConfigError, Problem, UsageError

MOST_MERGED = 4
"""The limit on the text of all bases, in files of the largest size; a base that is listed twice counts twice."""

_LEAST_WORK = 1 << 12
"""The fixed cost of merging one base, in characters."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The folders that a config may read from."""

    folders: tuple[str, ...]  # resolved

    @classmethod
    def of(cls, folder: Path, allowed: Sequence[str | Path] = ()) -> Sandbox:
        return cls(tuple(os.path.realpath(each) for each in (folder, *allowed)))

    def holds(self, path: str | Path) -> bool:
        """Whether a path lies below an allowed folder once its links are resolved."""
        resolved = os.path.realpath(path)
        return any(os.path.commonpath((folder, resolved)) == folder for folder in self.folders)


@dataclass(slots=True, eq=False, repr=False)
class BaseReader:
    """Reads a config and all its bases; each file is read once."""

    limits: Limits
    sandbox: Sandbox
    problems: list[Problem]
    read: dict[str, MapNode] = field(default_factory=dict)
    failed: bool = False
    merged: int = 0  # characters of the bases merged so far

    def tree(self, source: Source, stack: tuple[tuple[str, str], ...]) -> MapNode | None:
        """Returns the merged tree of a source, or None if it is not YAML; `failed` is then set.

        Args:
            stack: the chain of files that extend one another, as (resolved path, shown path), this source last.
        """
        found: list[Problem] = []
        try:
            node = compose(source, self.limits, found)
        except ConfigError as error:
            self.problems.extend(error.problems)
            self.failed = True
            return None
        self.problems.extend(found)
        assert isinstance(node, MapNode)
        if "extends" not in node.entries:
            return node
        entries = dict(node.entries)
        written = entries.pop("extends").value
        merged: Node = MapNode({}, source, node.start, node.end)
        before: MapNode | None = None
        for item in self._items(written):
            base = self._base(item, source, stack)
            if base is None or base is before:
                continue
            if not self._fits_limit(base, item):
                break
            merged, before = merge(merged, base), base
        merged = merge(merged, with_entries(node, entries))
        assert isinstance(merged, MapNode)
        return merged

    def _fits_limit(self, base: MapNode, item: ScalarNode) -> bool:
        """Counts merged text, each base as often as it is merged; over the limit, reports it and returns False."""
        self.merged += _LEAST_WORK + len(base.source.text)
        if self.merged > MOST_MERGED * self.limits.file_bytes:
            most = f"{MOST_MERGED * self.limits.file_bytes:,}"
            message = f"the bases up to here have more than {most} characters, each counted as often as it is listed"
            self._fault(item, message, "list each base once")
            return False
        return True

    def _items(self, written: Node) -> list[ScalarNode]:
        items = written.items if isinstance(written, ListNode) else (written,)
        paths: list[ScalarNode] = []
        for item in items:
            if isinstance(item, ScalarNode) and isinstance(item.value, str) and item.value:
                paths.append(item)
            else:
                found = (
                    describe(item.value)
                    if isinstance(item, ScalarNode)
                    else "a list"
                    if isinstance(item, ListNode)
                    else "a mapping"
                )
                self._fault(
                    item,
                    f"expected the path of a config file, found {found}",
                    "write `extends: base.yaml`, or a list of paths",
                )
        return paths

    def _base(self, item: ScalarNode, source: Source, stack: tuple[tuple[str, str], ...]) -> MapNode | None:
        path = os.path.normpath(source.folder / str(item.value)) if "\0" not in str(item.value) else ""
        resolved = os.path.realpath(path)
        refusal = self._refusal(str(item.value), path, resolved, stack)
        if refusal is not None:
            self._fault(item, *refusal)
            return None
        if resolved in self.read:
            return self.read[resolved]
        try:
            base = read_source(path, self.limits, ordinary=True)
        except UsageError as error:
            hint = f"the path begins at {source.folder}{os.sep}, the folder of {source.name}"
            self._fault(item, error.problems[0].message, hint)
            return None
        except ConfigError as error:
            self.problems.extend(error.problems)
            self.failed = True
            return None
        tree = self.tree(base, (*stack, (resolved, path)))
        if tree is not None:
            self.read[resolved] = tree
        return tree

    def _refusal(
        self, written: str, path: str, resolved: str, stack: tuple[tuple[str, str], ...]
    ) -> tuple[str, str] | None:
        """Returns why a base cannot be read, with a hint, or None if it can."""
        if not path:
            return "a NUL character in a path", "remove it"
        if not self.sandbox.holds(path):
            hint = "move it below the config's own folder, or allow its folder with --allow FOLDER"
            return f"`{written}` is outside the folders that this config may read", hint
        if resolved in (file for file, _ in stack):
            names = [*(shown for _, shown in stack), path]
            return f"a config extends itself: {' → '.join(names)}", "remove one of them from `extends`"
        if resolved not in self.read and len(self.read) + len(stack) > self.limits.files:
            return f"more than {self.limits.files} files", "extend fewer, or raise the limit with --max-files"
        return None

    def _fault(self, node: Node, message: str, hint: str) -> None:
        self.problems.append(node.source.problem(node.start, node.end, message, hint, "extends"))
        self.failed = True
