"""The rules that steprun ships: optimizers as equations, to paste into a config or to name under `extends`."""

from __future__ import annotations

import functools
from pathlib import Path

_FOLDER = Path(__file__).parent / "rules"


@functools.cache
def shipped_rules() -> dict[str, str]:
    """The shipped rules by name, each as YAML with its constants and its optimizer."""
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(_FOLDER.glob("*.yaml"))}
