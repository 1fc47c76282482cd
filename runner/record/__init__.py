"""Records runs: the run directory, rows as Parquet and on the console, and reading them back.

In: a plan and its rows. Out: a run directory that can be read at any moment, and a `Run` that reads it.
Names are imported on first use: listing runs does not import torch, and printing rows does not import pyarrow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runner.record.directory import create_run_directory
    from runner.record.display.whole_rows import RowPrinter
    from runner.record.listing.runs import RunSummary, list_runs
    from runner.record.manifest import RunDescription, fingerprint, read_manifest
    from runner.record.reading import Run, open_run
    from runner.record.recorder import Recording, recording
    from runner.record.resuming import resume
    from runner.record.rows.row_json import row_json
    from runner.record.rows.writer import RowWriter
    from runner.record.running import run

_HOMES = {
    "Recording": "recorder",
    "RowPrinter": "display.whole_rows",
    "RowWriter": "rows.writer",
    "Run": "reading",
    "RunDescription": "manifest",
    "RunSummary": "listing.runs",
    "create_run_directory": "directory",
    "fingerprint": "manifest",
    "list_runs": "listing.runs",
    "open_run": "reading",
    "read_manifest": "manifest",
    "recording": "recorder",
    "resume": "resuming",
    "row_json": "rows.row_json",
    "run": "running",
}

__all__ = [
    "Recording",
    "RowPrinter",
    "RowWriter",
    "Run",
    "RunDescription",
    "RunSummary",
    "create_run_directory",
    "fingerprint",
    "list_runs",
    "open_run",
    "read_manifest",
    "recording",
    "resume",
    "row_json",
    "run",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
