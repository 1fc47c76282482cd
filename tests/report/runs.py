"""Runs for the tests of reports, recorded once in a session."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import runner
import runner.errors
from runner.report.page import page
from runner.report.run.sections import report_of_run

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
