"""Reads `from_run`: a path, or a mapping that says which weights of the run are taken."""

from __future__ import annotations

import re
from typing import Any

from runner.config.record_models import FromRun
from runner.config.sections.faults import Faults
from runner.config.text.nodes import describe

_DIGEST = re.compile(r"[0-9a-f]{64}")
_EXAMPLE = "write `from_run: runs/base/latest`, or `from_run: {run: runs/base/latest, at: best}`"


def read_from_run(written: Any, faults: Faults) -> FromRun | None:
    """Returns the declaration with its short form expanded; None if there is none, or if it is not valid."""
    if written is None:
        return None
    within = {}
    if isinstance(written, str):
        written, within = {"run": written}, {"run": ("from_run",)}
    if not isinstance(written, dict):
        faults.add(("from_run",), f"expected the path of a run, found {describe(written)}", _EXAMPLE)
        return None
    found = faults.build(FromRun, written, ("from_run",), within)
    if found is None:
        return None
    if not found.run.strip():
        faults.add(within.get("run", ("from_run", "run")), "expected the path of a run, found empty text", _EXAMPLE)
        return None
    if found.sha256 is not None and not _DIGEST.fullmatch(found.sha256):
        message = f"expected 64 hexadecimal digits, found {describe(found.sha256)}"
        faults.add(("from_run", "sha256"), message, "copy it from the `config.yaml` of a run, or remove it")
        return None
    return found
