"""What makes two points of a sweep the same: the fields that their numbers depend on, their data, and the versions."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

import runner
from runner.config import Config
from runner.config.keys import AUTO
from runner.config.text.emit import is_column_file_path, is_file_path
from runner.config.text.nodes import MapNode, Node, ScalarNode, walk
from runner.plan.checks.engines.versions import jax_versions
from runner.record.checkpoints.config_fields import config_fields, value_of
from runner.record.data_files import data_files

_NAME = re.compile(r"[^\W\d]\w*")
_DIGITS = 16

_BLANK = f"@{secrets.token_hex(16)}@"
"""Stands for a number. Neither it nor a number has a character that JSON escapes."""


def _extras() -> dict[str, str]:
    """The versions of the installed extras that `engine: auto` looks at: that of jax, not of its compiler."""
    return {name: version for name, version in jax_versions().items() if name == "jax"}


class Identities:
    """Computes the identity of points; reads each data file once."""

    def __init__(self) -> None:
        self._files: dict[str, Any] = {}

    def of(self, config: Config) -> str:
        """The digest of everything that the numbers of a config depend on."""
        return self.varied(config)({})

    def varied(self, config: Config) -> Callable[[Mapping[str, float | int]], str]:
        """The identity of a config as a function of the numbers at some of its paths, which have numbers already."""
        fields = config_fields(config.document)
        for name in unused_scalars(config.document.root):
            fields.pop(f"constants.{name}", None)
        content = {
            "fields": fields,
            "files": {path: self._file(path) for path in sorted(_files_of(config))},
            "versions": [runner.__version__, str(torch.__version__)],
            **({"extras": _extras()} if config.engine == AUTO else {}),  # each point chooses its engine by these
        }

        templates: dict[tuple[str, ...], list[str]] = {}

        def identity(numbers: Mapping[str, float | int]) -> str:
            own = {path: json.dumps(value) for path, value in numbers.items() if path in fields}
            paths = tuple(own)
            if paths not in templates:
                blank = {**content, "fields": {**fields, **dict.fromkeys(paths, _BLANK)}}
                templates[paths] = json.dumps(blank, sort_keys=True).split(_BLANK)
            text, *rest = templates[paths]
            for path, following in zip(sorted(paths), rest, strict=True):
                text += own[path] + following
            return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]

        return identity

    def _file(self, path: str) -> Any:
        if path not in self._files:
            file = Path(path).resolve()
            self._files[path] = next(iter(data_files([file]).values())) if file.is_file() else None
        return self._files[path]


def unused_scalars(root: MapNode) -> list[str]:
    """The scalar constants that no other part of a config mentions; a branch of a conditional axis leaves some."""
    constants = root.entries.get("constants")
    if constants is None or not isinstance(constants.value, MapNode):
        return []
    scalars = {
        name: entry.value for name, entry in constants.value.entries.items() if isinstance(entry.value, ScalarNode)
    }
    waiting = {word for key, entry in root.entries.items() if key != "constants" for word in _words(entry.value)}
    waiting |= {
        word for name, entry in constants.value.entries.items() if name not in scalars for word in _words(entry.value)
    }
    used: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in scalars and name not in used:
            used.add(name)
            waiting |= set(_words(scalars[name]))
    return [name for name in scalars if name not in used]


def _words(node: Node) -> Iterator[str]:
    for _, each in walk(node):
        if isinstance(each, ScalarNode) and isinstance(each.value, str):
            yield from _NAME.findall(each.value)
        elif isinstance(each, MapNode):
            for key in each.entries:
                yield from _NAME.findall(key)


def _files_of(config: Config) -> Iterator[str]:
    document = config.document
    for path, node in walk(document.root):
        is_file = is_file_path(path) or is_column_file_path(path, document.root)
        if is_file and isinstance(node, ScalarNode) and isinstance(node.value, str):
            yield str(value_of(node, path, document)).partition("#")[0]
