"""Manifests that tests edit as a person may: without their digest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def manifest_fields(path: Path) -> dict[str, Any]:
    """The fields of `run.json` or `sweep.json`, but its digest."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    content.pop("digest", None)
    return content
