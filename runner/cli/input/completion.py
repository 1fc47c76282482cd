"""Shell completion: config files, and the keys that an override may set. Does not import torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import typer

from runner.errors import SteprunError

CONFIG_SUFFIXES = (".yaml", ".yml")


def complete_config(incomplete: str) -> list[str]:
    """Folders and YAML files that start with `incomplete`."""
    folder, prefix = os.path.split(incomplete)
    try:
        entries = sorted(os.scandir(folder or "."), key=lambda entry: entry.name)
    except OSError:
        return []
    found = []
    for entry in entries:
        if not entry.name.startswith(prefix) or (entry.name.startswith(".") and not prefix):
            continue
        if entry.is_dir():
            found.append(os.path.join(folder, entry.name) + "/")
        elif entry.name.endswith(CONFIG_SUFFIXES):
            found.append(os.path.join(folder, entry.name))
    return found


def complete_override(context: typer.Context, incomplete: str) -> list[str]:
    """The keys that an override of the config may set, each with `=`."""
    config = context.params.get("config") or next(
        iter(context.args), ""
    )  # while an option is incomplete, click leaves the config here
    if "=" in incomplete or not Path(config).is_file():
        return []
    from runner.config import load
    from runner.config.text.nodes import plain

    try:
        document = load(config).document
    except SteprunError:
        return []  # completion runs while the user types: do not report errors
    names = _names(plain(document.root))
    return sorted({f"{name}=" for name in names if name.startswith(incomplete)})


def _names(document: dict[str, Any]) -> list[str]:
    """Keys that may be set: top-level keys, scalar constants, keys of the config, and its optimizers' arguments."""
    from runner.catalogue import optimizers
    from runner.config.keys import RESERVED, TOP_LEVEL_KEYS

    constants = document.get("constants") or {}
    names = [key for key in TOP_LEVEL_KEYS if key not in ("extends", "sweep", *RESERVED)]
    names += [name for name, value in constants.items() if not isinstance(value, (dict, list))]
    names += _dotted({key: value for key, value in document.items() if key in names})
    for name in tuple(names):
        kind = optimizers().get(name.rpartition(".")[2]) if name.startswith("optimizer") else None
        if kind is not None:
            names += [f"{name}.{argument.name}" for argument in kind.arguments]
    return names


def _dotted(document: dict[str, Any], prefix: str = "", depth: int = 4) -> list[str]:
    """The dotted names of the mappings' keys, down to `depth`, without keys that are expressions."""
    names = []
    for key, value in document.items():
        if key.isidentifier():
            names.append(f"{prefix}{key}")
            if isinstance(value, dict) and depth > 1:
                names.extend(_dotted(value, f"{prefix}{key}.", depth - 1))
    return names
