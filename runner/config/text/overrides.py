"""Applies overrides (`a.b.c=value`, `name=value`, `~path`), which merge into a config as one more file would."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from runner.config.keys import TOP_LEVEL_KEYS
from runner.config.limits import Limits
from runner.config.text.compose import compose
from runner.config.text.merge import deletes_with_null, is_null, merge, rivals, with_entries, with_items
from runner.config.text.nodes import Entry, ListNode, MapNode, Node, Path, ScalarNode, describe, dotted
from runner.config.text.source import Source, text_source
from runner.errors import ConfigError, Problem, did_you_mean, nearest

_SEGMENT = re.compile(r"\s*(?:\"([^\"]*)\"\s*|'([^']*)'\s*|([^\s.=\"'][^.=]*))(?=[.=]|$)")
_EXPRESSION_KEYS = ("assign", "expect")
"""Mappings whose keys are expressions: in a path, all that follows them is one key, dots included."""
_TOLERANCE_KEYS = ("value", "rtol", "atol")
_USAGE = "write `path=value`, such as `learning_rate=0.1` or `parameters.x1.init=5`, or `~path` to delete"


@dataclass(frozen=True, slots=True)
class Segment:
    """One key of an override's path, and its offsets in the override's text."""

    key: str
    start: int
    end: int


def apply_override(root: MapNode, text: str, base: Source, limits: Limits, problems: list[Problem]) -> MapNode:
    """Returns the tree with one override applied; if that fails, adds to `problems` and returns the tree unchanged."""
    try:
        source = text_source(text, base.folder, override_name(text), limits, is_override=True)
        return _Override(source, limits, problems).apply(root)
    except ConfigError as error:
        problems.extend(error.problems)
        return root


def override_name(text: str) -> str:
    """Returns the name of an override in errors: its text on one line, at most 60 characters."""
    shown = " ".join(text.split())
    return f"override {shown[:60]}{'…' if len(shown) > 60 else ''}"


@dataclass(frozen=True, slots=True)
class _Override:
    source: Source
    limits: Limits
    problems: list[Problem]

    def apply(self, root: MapNode) -> MapNode:
        text = self.source.text
        deletes = text.startswith("~")
        segments, end = self._segments(int(deletes))
        if segments[0].key == "extends":
            raise self._fault(
                segments[0].start, segments[0].end, "`extends` cannot be overridden", "write it in the file"
            )
        if deletes:
            if end < len(text):
                raise self._fault(end, len(text), "a deletion takes no value", f"write `{text[:end]}`")
            node = self._replace(root, segments, (), None)
        else:
            if end >= len(text):
                if text.endswith((".yaml", ".yml")):
                    raise self._fault(0, len(text), "a second config", "run one config at a time")
                raise self._fault(0, len(text), "an override without `=`", _USAGE)
            value = compose(self.source, self.limits, self.problems, value=True, shift=end + 1)
            if len(segments) == 1:
                segments = self._resolve_bare_name(root, segments[0])
            node = self._replace(root, segments, (), value)
        assert isinstance(node, MapNode)
        return node

    def _segments(self, start: int) -> tuple[list[Segment], int]:
        text = self.source.text
        segments: list[Segment] = []
        at = start
        while True:
            match = _SEGMENT.match(text, at)
            if match is None:
                raise self._fault(
                    min(at, len(text)), min(at, len(text)) + 1, "a key is missing in the path of this override", _USAGE
                )
            start, key = match.start(match.lastindex or 0), match[match.lastindex or 0].rstrip()
            segments.append(Segment(key, start, start + len(key)))
            at = match.end()
            if at >= len(text) or text[at] == "=":
                return segments, at
            at += 1

    def _resolve_bare_name(self, root: MapNode, segment: Segment) -> list[Segment]:
        """Returns the path that a bare name means: a top-level key, or a scalar constant."""
        name = segment.key
        constants = root.entries.get("constants")
        entries = constants.value.entries if constants and isinstance(constants.value, MapNode) else {}
        scalars = [key for key, entry in entries.items() if isinstance(entry.value, ScalarNode)]
        in_constants = [Segment("constants", segment.start, segment.end), segment]
        if name in scalars and name in TOP_LEVEL_KEYS:
            message = f"`{name}` is both a top-level key and a scalar constant"
            raise self._fault(
                segment.start, segment.end, message, f"write `constants.{name}=…` for the constant, or rename it"
            )
        if name in scalars:
            return in_constants
        if name in TOP_LEVEL_KEYS:
            return [segment]
        if name in entries:
            raise self._fault(
                segment.start, segment.end, f"`{name}` is a tensor constant", f"write `constants.{name}.init=…`"
            )
        parameters = root.entries.get("parameters")
        if parameters and isinstance(parameters.value, MapNode) and name in parameters.value.entries:
            raise self._fault(
                segment.start, segment.end, f"`{name}` is a parameter", f"write `parameters.{name}.init=…`"
            )
        deeper = list(itertools.islice(_paths_to(name, root, ()), _MOST_PATHS))
        if deeper:
            hint: str | None = f"write {' or '.join(f'`{dotted(path)}=…`' for path in deeper)}"
        else:
            hint = did_you_mean(name, [*scalars, *TOP_LEVEL_KEYS], _USAGE)
        raise self._fault(segment.start, segment.end, f"there is no top-level key or scalar constant `{name}`", hint)

    def _replace(self, node: Node, segments: list[Segment], path: Path, value: Node | None) -> Node:
        """Returns `node` with the value below it at `segments` replaced, or deleted if `value` is None.

        Args:
            path: the path of `node`.
        """
        segment = segments[0]
        if value is not None and _is_short_tensor(node, path) and not segment.key.isdecimal():
            node = MapNode({}, self.source, segment.start, segment.end)
        if isinstance(node, MapNode):
            return self._replace_in_mapping(node, segments, path, value)
        if isinstance(node, ListNode):
            return self._replace_in_list(node, segments, path, value)
        if path and path[-1] == "steps":
            hint = "write the steps as a list in the file, or replace them all with `steps=[…]`"
        else:
            hint = f"replace it as a whole with `{dotted(path)}={{{segment.key}: …}}`"
        raise self._fault(
            segment.start, segment.end, f"`{dotted(path)}` is {describe(node.value)}, not a mapping", hint
        )

    def _replace_in_mapping(self, node: MapNode, segments: list[Segment], path: Path, value: Node | None) -> Node:
        segment, rest = self._next_key(node, segments, path)
        key = segment.key
        entries = dict(node.entries)
        present = entries.get(key)
        here = (*path, key)
        if value is None or (not rest and is_null(value) and deletes_with_null(path)):
            if present is None:
                found = nearest(key, entries)
                hint = f"did you mean `{dotted((*path, found))}`?" if found else "remove the override"
                constants = entries.get("constants")
                if (
                    not path
                    and constants is not None
                    and isinstance(constants.value, MapNode)
                    and key in constants.value.entries
                ):
                    hint = f"did you mean `constants.{key}`?"
                raise self._fault(segment.start, segment.end, f"there is no `{dotted(here)}` to delete", hint)
            if not rest:
                del entries[key]
                return with_entries(node, entries)
        key_node = ScalarNode(key, self.source, segment.start, segment.end)
        lower: Node = present.value if present else MapNode({}, self.source, segment.start, segment.end)
        if rest:
            child = self._replace(lower, rest, here, value)
        else:
            assert value is not None
            child = merge(lower, value, here) if present else value
        for rival in rivals(path, key, entries):
            del entries[rival]
        entries[key] = Entry(present.key if present and rest else key_node, child)
        return with_entries(node, entries)

    def _replace_in_list(self, node: ListNode, segments: list[Segment], path: Path, value: Node | None) -> Node:
        segment, rest = segments[0], segments[1:]
        count = len(node.items)
        index = int(segment.key) if re.fullmatch("[0-9]{1,9}", segment.key) else count
        if index >= count:
            there = f"it has {count} items, 0 to {count - 1}" if count else "it is empty"
            raise self._fault(segment.start, segment.end, f"`{dotted(path)}` has no item `{segment.key}`", there)
        items = list(node.items)
        if rest:
            items[index] = self._replace(items[index], rest, (*path, index), value)
        elif value is None:
            del items[index]
        else:
            items[index] = merge(items[index], value, (*path, index))
        return with_items(node, tuple(items))

    def _next_key(self, node: MapNode, segments: list[Segment], path: Path) -> tuple[Segment, list[Segment]]:
        """Returns the key that the segments start with, which may contain dots, and the remaining segments."""
        whole = _joined(segments)
        if path and path[-1] in _EXPRESSION_KEYS and whole.key not in node.entries:
            count = len(segments) - (len(segments) > 1 and segments[-1].key in _TOLERANCE_KEYS)
            return _joined(segments[:count]), segments[count:]
        for count in range(len(segments), 1, -1):
            key = _joined(segments[:count])
            if key.key in node.entries:
                return key, segments[count:]
        return segments[0], segments[1:]

    def _fault(self, start: int, end: int, message: str, hint: str | None) -> ConfigError:
        return ConfigError(self.source.problem(start, max(end, start + 1), message, hint))


_MOST_PATHS = 3
"""The most paths that a hint suggests for a bare name."""


def _paths_to(name: str, node: Node, path: Path) -> Iterator[Path]:
    """Yields the path of every key called `name`, at any depth, in the order of the text."""
    if isinstance(node, MapNode):
        for key, entry in node.entries.items():
            if key == name:
                yield (*path, key)
            else:
                yield from _paths_to(name, entry.value, (*path, key))
    elif isinstance(node, ListNode):
        for index, item in enumerate(node.items):
            yield from _paths_to(name, item, (*path, index))


def _is_short_tensor(node: Node, path: Path) -> bool:
    """Whether a tensor is written as a bare number or list, which a mapping replaces as it does in `extends`."""
    if len(path) != 2 or isinstance(node, MapNode):
        return False
    return path[0] == "parameters" or (path[0] == "constants" and isinstance(node, ListNode))


def _joined(segments: list[Segment]) -> Segment:
    return Segment(".".join(segment.key for segment in segments), segments[0].start, segments[-1].end)
