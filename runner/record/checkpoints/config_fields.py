"""The fields of a config that a run depends on, as stored with it, and the differences between two configs."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from runner.config import Config
from runner.config.document import Document
from runner.config.files.run_paths import fields_digest
from runner.config.text.emit import is_column_file_path, is_file_path
from runner.config.text.nodes import ListNode, MapNode, Node, Path, ScalarNode, dotted, plain

WITHOUT_BEARING = ("name", "description", "log", "snapshot", "on_nonfinite", "health", "sweep")
"""Top-level keys that change no number of a run."""
_IRRELEVANT_TO_ROWS = tuple(key for key in WITHOUT_BEARING if key != "log")
"""Top-level keys that change no row of a run; `log` is not one of them, because it selects the rows."""
_DIGEST_OF_WEIGHTS = ("from_run", "sha256")
"""The digests of a run's data files are recorded apart, and those of its first weights among them."""
LONGEST_TEXT = 60
_DIGEST = "sha256:"
_JSON = json.JSONEncoder(ensure_ascii=False)
_MOST_SHOWN = 3


def config_fields(document: Document) -> dict[str, str]:
    """The fields that a run's rows depend on, by dotted path: each value as JSON, or its digest if that is long.

    A list is one field, unless it contains mappings, as `steps` does. Data files have absolute paths.
    """
    entries = document.root.entries.items()
    fields = (
        field for key, entry in entries if key not in _IRRELEVANT_TO_ROWS for field in fields_of(entry.value, (key,))
    )
    fields = (field for field in fields if field[0] != _DIGEST_OF_WEIGHTS)
    return {dotted(path): _text(value_of(node, path, document)) for path, node in fields}


def config_digests(config: Config) -> dict[str, str]:
    """A digest of each top-level key of a config that a run's numbers depend on.

    Keys at their defaults are left out, so that a key added by a later version changes no digest.
    """
    relevant = config.model_dump(mode="python", exclude=set(WITHOUT_BEARING), exclude_defaults=True)
    return {key: hashlib.sha256(repr(value).encode()).hexdigest()[:16] for key, value in relevant.items()}


def config_digest(document: Document) -> str:
    """The SHA-256 of the fields that a run's rows depend on."""
    return fields_digest(config_fields(document))


def difference(before: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """The differing fields of two configs, with their values, as text; None if the configs are equal."""
    differences = []
    for name in [*before, *(name for name in now if name not in before)]:
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if old is None:
            differences.append(f"`{name}` was added")
        elif new is None:
            differences.append(f"`{name}` was removed")
        elif old.startswith(_DIGEST) or new.startswith(_DIGEST):
            differences.append(f"`{name}` changed")
        else:
            differences.append(f"`{name}` was `{old}` and is `{new}`")
    if len(differences) > _MOST_SHOWN:
        differences[_MOST_SHOWN:] = [f"{len(differences) - _MOST_SHOWN} more fields differ"]
    return ", ".join(differences) or None


def fields_of(node: Node, path: Path = ()) -> Iterator[tuple[Path, Node]]:
    """The values below a node with their paths; a list is one value, unless it contains mappings."""
    if isinstance(node, MapNode) and node.entries:
        for key, entry in node.entries.items():
            yield from fields_of(entry.value, (*path, key))
    elif isinstance(node, ListNode) and any(isinstance(item, MapNode) for item in node.items):
        for index, item in enumerate(node.items):
            yield from fields_of(item, (*path, index))
    else:
        yield path, node


def value_of(node: Node, path: Path, document: Document) -> Any:
    """The value of a node; a data file is its absolute path."""
    if isinstance(node, ScalarNode) and (is_file_path(path) or is_column_file_path(path, document.root)):
        return os.path.normpath(os.path.join(os.path.abspath(node.source.folder), str(node.value)))
    return plain(node)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else _JSON.encode(value)
    if len(text) <= LONGEST_TEXT and "\n" not in text and not text.startswith(_DIGEST):
        return text
    return _DIGEST + hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]
