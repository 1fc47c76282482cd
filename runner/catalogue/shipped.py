"""The rules that come with steprun: optimizers as equations, to paste into a config or to name under `extends`."""

from __future__ import annotations

import functools
from pathlib import Path

_FOLDER = Path(__file__).parent / "rules"


@functools.cache
def shipped_rules() -> dict[str, str]:
    """The text of each by its name: its constants and its optimizer, as YAML."""
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(_FOLDER.glob("*.yaml"))}
