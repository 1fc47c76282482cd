"""What of a config a run depends on, as manifests, checkpoints and snapshots keep it, and how two configs differ."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from runner.config import Config
from runner.config.document import Document
from runner.config.text.emit import is_column_file_path, is_file_path
from runner.config.text.nodes import ListNode, MapNode, Node, Path, ScalarNode, dotted, plain

WITHOUT_BEARING = ("name", "description", "log", "snapshot", "on_nonfinite", "health")
"""Keys that no number of a run depends on."""
_IRRELEVANT_TO_ROWS = tuple(key for key in WITHOUT_BEARING if key != "log")
"""Keys that no row of a run depends on; `log` says which rows there are."""
LONGEST_TEXT = 60
_DIGEST = "sha256:"
_MOST_SHOWN = 3


def config_fields(document: Document) -> dict[str, str]:
    """Every field that a run's rows depend on, by its dotted path: its value as JSON, or a digest where that is long.

    A list is one field, unless it holds mappings, as `steps` does. Data files have their whole path.
    """
    entries = document.root.entries.items()
    fields = (
        field for key, entry in entries if key not in _IRRELEVANT_TO_ROWS for field in fields_of(entry.value, (key,))
    )
    return {dotted(path): _text(value_of(node, path, document)) for path, node in fields}


def config_digests(config: Config) -> dict[str, str]:
    """A digest of every top-level key of a config that a run's numbers depend on, as far as it says something.

    What is left at its default is left out, so that a key which a later version adds changes none.
    """
    relevant = config.model_dump(mode="python", exclude=set(WITHOUT_BEARING), exclude_defaults=True)
    return {key: hashlib.sha256(repr(value).encode()).hexdigest()[:16] for key, value in relevant.items()}


def difference(before: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """Which fields of two configs differ, and how; None where they are the same."""
    differences = []
    for name in [*before, *(name for name in now if name not in before)]:
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if old is None:
            differences.append(f"`{name}` is new")
        elif new is None:
            differences.append(f"`{name}` is gone")
        elif old.startswith(_DIGEST) or new.startswith(_DIGEST):
            differences.append(f"`{name}` is another")
        else:
            differences.append(f"`{name}` was `{old}` and is `{new}`")
    if len(differences) > _MOST_SHOWN:
        differences[_MOST_SHOWN:] = [f"{len(differences) - _MOST_SHOWN} more fields differ"]
    return ", ".join(differences) or None


def fields_of(node: Node, path: Path = ()) -> Iterator[tuple[Path, Node]]:
    """Every value below a node with its path; a list is one value, unless it holds mappings."""
    if isinstance(node, MapNode) and node.entries:
        for key, entry in node.entries.items():
            yield from fields_of(entry.value, (*path, key))
    elif isinstance(node, ListNode) and any(isinstance(item, MapNode) for item in node.items):
        for index, item in enumerate(node.items):
            yield from fields_of(item, (*path, index))
    else:
        yield path, node


def value_of(node: Node, path: Path, document: Document) -> Any:
    """What a node says; a data file by its whole path."""
    if isinstance(node, ScalarNode) and (is_file_path(path) or is_column_file_path(path, document.root)):
        return os.path.normpath(os.path.join(os.path.abspath(node.source.folder), str(node.value)))
    return plain(node)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) <= LONGEST_TEXT and "\n" not in text and not text.startswith(_DIGEST):
        return text
    return _DIGEST + hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]
