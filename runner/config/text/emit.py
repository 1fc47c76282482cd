"""Writes a tree of nodes as YAML that keeps the style of the source and loads back to the same values."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path as FilePath

from runner.config.text.nodes import ListNode, MapNode, Node, Path, ScalarNode
from runner.config.text.scalars import NumberRangeError, resolve_plain
from runner.config.text.yaml_errors import unbalanced

_INDICATORS = frozenset("-?:,[]{}#&*!|>'\"%@`")
"""Characters with a meaning at the start of a plain scalar."""
_FLOW_INDICATORS = frozenset(",[]{}:?")
_ESCAPED = re.compile('["\\\\\0-\x1f\x7f-\xa0\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]')
_LONGEST_KEY = 1000
"""Keys of this many characters or more are written after `? `; libyaml's limit is 1,024."""
_SHORT_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0"}


def emit(root: MapNode, name: str, folder: FilePath, absolute_files: bool) -> str:
    """Returns the whole config as YAML. Its name comes first: `name`, unless the config sets one."""
    writer = _Writer(folder, absolute_files, root)
    declared = root.entries.get("name")
    if declared is not None and isinstance(declared.value, ScalarNode) and declared.value.value is not None:
        name = str(declared.value.value)
    lines = [f"name: {_scalar_text(name, flow=False)}"]
    for key, entry in root.entries.items():
        if key != "name":
            lines.extend(writer.entry(key, entry.value, (), 0))
    return "\n".join(lines) + "\n"


def flow_text(value: object) -> str:
    """Returns a value as YAML on one line, as an override writes it: lists and mappings in brackets."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_scalar_text(key, flow=True)}: {_in_flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_in_flow, value)) + "]"
    return _scalar_text(value, flow=False)


def _in_flow(value: object) -> str:
    return flow_text(value) if isinstance(value, dict | list | tuple) else _scalar_text(value, flow=True)


class _Writer:
    """Writes nodes as lines of YAML, with data files relative to `folder` or absolute."""

    __slots__ = ("absolute_files", "folder", "root")

    def __init__(self, folder: FilePath, absolute_files: bool, root: MapNode) -> None:
        self.root = root
        self.folder = folder
        self.absolute_files = absolute_files

    def entry(self, key: str, node: Node, path: Path, indent: int) -> list[str]:
        text = _scalar_text(key, flow=False)
        head = " " * indent + (f"{text}:" if len(text) < _LONGEST_KEY else f"? {text}\n{' ' * indent}:")
        return self._after(head, node, (*path, key), indent + 2)

    def _after(self, head: str, node: Node, path: Path, indent: int) -> list[str]:
        """Returns the lines of a node that starts after `head`; further lines are indented by `indent`."""
        if isinstance(node, ScalarNode):
            value = self._value(node, path)
            if isinstance(value, str) and _fits_block(value):
                body = value.removesuffix("\n").split("\n")
                chomp = "" if value.endswith("\n") else "-"
                return [f"{head} |{chomp}", *(" " * indent + line if line else "" for line in body)]
            text = _scalar_text(value, flow=False)
            return [f"{head} {text}"] if text else [head]
        if node.flow or not _children(node):
            return [f"{head} {self._flow(node, path)}"]
        return [head, *self._block(node, path, indent)]

    def _block(self, node: Node, path: Path, indent: int) -> list[str]:
        if isinstance(node, MapNode):
            return [line for key, entry in node.entries.items() for line in self.entry(key, entry.value, path, indent)]
        assert isinstance(node, ListNode)
        lines: list[str] = []
        for index, item in enumerate(node.items):
            if isinstance(item, MapNode) and not item.flow and item.entries:
                first, *rest = self._block(item, (*path, index), indent + 2)
                lines += [" " * indent + "- " + first.lstrip(" "), *rest]
            else:
                lines += self._after(" " * indent + "-", item, (*path, index), indent + 2)
        return lines

    def _flow(self, node: Node, path: Path) -> str:
        if isinstance(node, ScalarNode):
            return _scalar_text(self._value(node, path), flow=True) or "null"
        if isinstance(node, ListNode):
            return "[" + ", ".join(self._flow(item, (*path, index)) for index, item in enumerate(node.items)) + "]"
        pairs = []
        for key, entry in node.entries.items():
            text = _scalar_text(key, flow=True)
            pairs.append(f"{'? ' if len(text) >= _LONGEST_KEY else ''}{text}: {self._flow(entry.value, (*path, key))}")
        return "{" + ", ".join(pairs) + "}"

    def _value(self, node: ScalarNode, path: Path) -> object:
        """Returns the value of a scalar; numbers keep their original text, data files get their new path."""
        if isinstance(node.value, str) and (is_file_path(path) or is_column_file_path(path, self.root)):
            return self._file(node.value, node.source.folder)
        if isinstance(node.value, int | float) and not isinstance(node.value, bool):
            return _AsWritten(_number_text(node))
        return node.value

    def _file(self, written: str, folder: FilePath) -> str:
        if self.absolute_files:
            return os.path.normpath(os.path.join(os.path.abspath(folder), written))
        if folder == self.folder or os.path.isabs(written):
            return written
        return os.path.relpath(os.path.join(folder, written), self.folder)


class _AsWritten(str):
    """Text to write without quotes or escapes."""

    __slots__ = ()


def is_file_path(path: Path) -> bool:
    """Whether the value at a path names a data file, or a run."""
    if path in (("from_run",), ("from_run", "run")):
        return True
    return len(path) == 3 and path[0] in ("parameters", "constants", "data") and path[2] == "file"


def is_column_file_path(path: Path, root: MapNode) -> bool:
    """Whether the value at a path names the data file of one batch column, in a source without `file`."""
    if len(path) != 4 or path[0] != "data" or path[2] != "columns":
        return False
    data = root.entries["data"].value
    source = data.entries[str(path[1])].value if isinstance(data, MapNode) else None
    return isinstance(source, MapNode) and "file" not in source.entries


def _children(node: Node) -> int:
    return len(node.items) if isinstance(node, ListNode) else len(node.entries) if isinstance(node, MapNode) else 0


def _number_text(node: ScalarNode) -> str:
    written = node.source.text[node.start : node.end].strip()
    return written if written and _resolves_to(written, node.value) else _number(node.value)


def _number(value: object) -> str:
    return {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}.get(repr(value), repr(value))


def _resolves_to(text: str, value: object) -> bool:
    try:
        found = resolve_plain(text)
    except NumberRangeError:
        return False
    return type(found) is type(value) and (found == value or (isinstance(found, float) and math.isnan(found)))


def _fits_block(value: str) -> bool:
    lines = value.removesuffix("\n").split("\n")
    return (
        "\n" in value
        and lines[-1] != ""
        and lines[0][:1] not in ("", " ", "\t")
        and not _has_unprintable(value.replace("\n", ""))
    )


def _scalar_text(value: object, flow: bool) -> str:
    if isinstance(value, _AsWritten):
        return str(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return _number(value)
    if _is_plain(value, flow):
        return value
    escaped = _ESCAPED.sub(lambda match: _SHORT_ESCAPES.get(match[0]) or _escape(match[0]), value)
    return f'"{escaped}"'


def _is_plain(value: str, flow: bool) -> bool:
    """Whether YAML reads the unquoted text back as the same text."""
    if (
        not value
        or value == "<<"
        or value != value.strip()
        or (value[0] in _INDICATORS and not re.match(r"-[\w.(]", value))
    ):
        return False
    if (
        ": " in value
        or " #" in value
        or value.endswith(":")
        or value.startswith("...")
        or (flow and _FLOW_INDICATORS & set(value))
    ):
        return False
    return not _has_unprintable(value) and _resolves_to(value, value) and not unbalanced(value)


def _has_unprintable(value: str) -> bool:
    return bool(_ESCAPED.search(value.replace('"', "").replace("\\", "")))


def _escape(char: str) -> str:
    return f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}"
