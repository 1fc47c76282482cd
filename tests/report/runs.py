"""Runs for the tests of reports, recorded once in a session."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

import runner
import runner.errors
from runner.plan.rows.columns import Column
from runner.record.rows.arrow import schema_of
from runner.record.rows.storage import column_json, stored_column
from runner.report.page import page
from runner.report.run.sections import report_of_run
from tests.manifests import manifest_fields

CONFIGS = Path(runner.__file__).parents[1] / "configs"
LINEAR = CONFIGS / "linear.yaml"

FAILING = """\
description: The loss grows until exp overflows.
parameters: {w: {shape: [3, 4], init: ones}, b: {shape: [4], init: zeros}}
constants: {x: {shape: [5, 3], init: ones}}
expression: |
  h = exp(x @ w + b)
  loss = (h * h).sum()
optimizer: {sgd: {lr: 0.001, maximize: true}}
steps: [{repeat: {times: 40, steps: [zero_grad, backward, step]}}]
"""


def record(config: str, folder: Path, *overrides: str, allowed: Sequence[Path] = (), fails: bool = False) -> Path:
    """Write a config, run it, and return its run directory."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.yaml"
    path.write_text(config, encoding="utf-8")
    runs = folder / "runs"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", runner.errors.HealthWarning)
        if not fails:
            return runner.run(path, overrides, runs_dir=runs, allowed_folders=allowed).path
        try:
            runner.run(path, overrides, runs_dir=runs, allowed_folders=allowed)
        except runner.RunError:
            return next(found for found in runs.glob("*/2*") if not found.is_symlink())
    raise AssertionError("the run did not fail")


def write_page(run: Path, path: Path, *allowed: Path) -> Path:
    """Write the page of a run."""
    path.write_bytes(page(report_of_run(run, allowed)))
    return path


def data_of(run: Path, name: str, *allowed: Path) -> dict[str, Any]:
    """The data of one section of a run's report."""
    report = report_of_run(run, allowed)
    return dict(next(section.data for section in report.sections if section.name == name))


def change(run: Path, **changes: Any) -> None:
    """Change fields of a manifest."""
    manifest = manifest_fields(run / "run.json")
    (run / "run.json").write_text(json.dumps({**manifest, **changes}))


def rewrite(run: Path, columns: list[Column], values: Callable[[Column, int], list[Any]], rows: int) -> None:
    """Give a run other columns."""
    schema = schema_of([stored_column(column) for column in columns])
    fixed = {"row": list(range(rows)), "iteration": [1] * rows, "step": ["start"] * rows, "path": ["start"] * rows}
    arrays = [pyarrow.array(fixed[name]).cast(schema.field(name).type) for name in schema.names[: len(fixed)]]
    for column, field in zip(columns, list(schema)[len(fixed) :], strict=True):
        arrays.append(pyarrow.array(values(column, rows), pyarrow.float32()).cast(field.type))
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(arrays, schema=schema), run / "rows" / "00000.parquet")
    (run / "rows.json").unlink()
    change(run, columns=[column_json(column) for column in columns])
