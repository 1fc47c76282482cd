"""What the shell completes: config files, and the names an override may set. Imports no torch."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from runner.errors import SteprunError

CONFIG_SUFFIXES = (".yaml", ".yml")


def complete_config(incomplete: str) -> list[str]:
    """Folders and YAML files that begin with `incomplete`."""
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
    """The constants of the config and its keys, dotted, each with its `=`."""
    config = context.params.get("config") or next(iter(context.args), "")  # there, while an option waits for its value
    if "=" in incomplete or not Path(config).is_file():
        return []
    from runner.config import load

    try:
        loaded = load(config)
    except SteprunError:
        return []  # a shell asks while the person types: there is nobody to tell
    names = [*loaded.constants, *_dotted(loaded.model_dump(exclude_unset=True))]
    return sorted({f"{name}=" for name in names if name.startswith(incomplete)})


def _dotted(document: dict[str, object], prefix: str = "", depth: int = 3) -> list[str]:
    """The dotted names of the mappings' keys, down to `depth`."""
    names = []
    for key, value in document.items():
        names.append(f"{prefix}{key}")
        if isinstance(value, dict) and depth > 1:
            names.extend(_dotted(value, f"{prefix}{key}.", depth - 1))
    return names
