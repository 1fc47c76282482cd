"""Sweeps for the tests of reports, recorded in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow
import pyarrow.parquet

from runner.config import load
from runner.report.page import page
from runner.report.sweep.sections import report_of_sweep
from runner.sweep import running
from runner.sweep.planning import plan_sweep
from runner.sweep.record.table import POINTS_FILE, write_table
from runner.sweep.running import How, run_sweep, start_sweep
from tests.manifests import manifest_fields
from tests.sweep.inline import Inline

EVIL = "<script>alert(1)</script>"

HEAD = f"""\
description: "</pre>{EVIL}"
parameters: {{w: {{shape: [3], init: ones}}}}
constants: {{rate: 0.1, power: 2.0}}
expression: loss = (w.abs() ** power).sum()
optimizer: {{sgd: {{lr: rate}}}}
steps: [{{repeat: {{times: 20, steps: [train]}}}}]
"""

GRID = """\
sweep:
  grid: {rate: [0.001, 0.01, 0.1, 0.3, 1e20], power: [2.0, 3.0]}  # the last rate fails
  objective: {minimize: loss}
"""

HALVED = """\
sweep:
  grid: {rate: [0.001, 0.01, 0.1, 0.2]}
  objective: {minimize: loss}
  halving: {at: [5, 10], keep: 1/2}
"""


class Silent:
    """A watch that sees nothing."""

    def begun(self, index: int) -> None: ...
    def known(self, outcomes: Any) -> None: ...
    def ended(self, outcomes: Any) -> None: ...


def record_sweep(folder: Path, sweep: str = GRID, head: str = HEAD, *, runs: bool = True) -> Path:
    """Write a config with a sweep, run it, and return the directory; without `runs`, no point has run."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "swept.yaml"
    path.write_text(head + sweep, encoding="utf-8")
    config = load(path)
    plan = plan_sweep(config, {})
    directory = start_sweep(config, plan, {}, folder / "sweeps", How(jobs=1))
    if runs:
        with mock.patch.object(running, "Processes", Inline):
            run_sweep(directory, plan, How(jobs=1), Silent())
    else:
        write_table(directory, plan.tasks, plan.points, {}, plan.objective)
    return directory


def write_sweep_page(sweep: Path, path: Path) -> Path:
    path.write_bytes(page(report_of_sweep(sweep)))
    return path


def with_points(directory: Path, columns: dict[str, Any]) -> Path:
    """Give a sweep other points: columns by name, besides those that each table has."""
    count = len(next(iter(columns.values())))
    fixed: dict[str, Any] = {
        "point": pyarrow.array(range(count), pyarrow.int64()),
        "status": columns.pop("status", None) or ["finished"] * count,
        "identity": [f"point {number}" for number in range(count)],
    }
    after = {name: columns.pop(name) for name in ("objective", "failure") if name in columns}
    table = pyarrow.table({"point": fixed.pop("point"), **columns, **fixed, **after})
    table = table.select([name for name in table.column_names if name != "identity"] + ["identity"])
    pyarrow.parquet.write_table(table, directory / POINTS_FILE)
    manifest = manifest_fields(directory / "sweep.json")
    (directory / "sweep.json").write_text(json.dumps({**manifest, "points": count}))
    return directory
