"""Runs that differ, and the report of their difference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest

from runner.compare.runs.difference import compare_runs
from runner.record import open_run
from runner.report.difference.pages import report_of
from runner.report.difference.recorder import Recorder
from runner.report.difference.sources import difference_of_runs
from runner.report.section import Report
from tests.report.runs import record

NETWORK = """\
parameters: {w: {shape: [4, 6], init: normal}, b: {shape: [6], init: zeros}}
constants: {x: {shape: [5, 4], init: normal}}
expression: |
  h = tanh(x @ w + b)
  loss = h.square().mean()
optimizer: {sgd: {lr: 0.1}}
steps: [{repeat: {times: 40, steps: [train]}}]
"""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(NETWORK, tmp_path_factory.mktemp("network"))


def report_of_runs(found: Path, expected: Path) -> Report:
    after, before = open_run(found), open_run(expected)
    recorder = Recorder(after.columns, before.columns)
    difference = compare_runs(after, before, observe=recorder)
    return report_of(difference_of_runs(difference, after, before, recorder.result()))


def section(report: Report, name: str) -> Any:
    return next((each for each in report.sections if each.name == name), None)


BOTH = """\
parameters: {w: {shape: [4, 6], init: normal}}
data: {train: {file: x.csv, columns: {x: [a, b, c, d]}, dtype: {x: float32}, batch_size: 4}}
constants: {c: 2.0}
expression: loss = SQUARE
metrics: {rows: "1.0 * x.shape[0]"}
optimizer: {sgd: {lr: 0.1DECAY}}
steps: [{for_each: {data: train, epochs: 4, steps: [train, {evaluate: train, every: 2}]}}]
"""


@pytest.fixture(scope="module")
def two_changes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs: a square that is written in another way, and a weight decay that came with it."""
    folder = tmp_path_factory.mktemp("two-changes")
    numbers = numpy.random.default_rng(5).normal(size=(8, 4))
    (folder / "x.csv").write_text("\n".join(["a,b,c,d", *(",".join(map(str, row)) for row in numbers)]))
    written = [("(x @ w).square().mean()", ""), ("(x @ w).pow(3 - 1).mean() * 1.0000001", ", weight_decay: 0.001")]
    runs = []
    for place, (square, decay) in enumerate(written):
        text = BOTH.replace("SQUARE", square).replace("DECAY", decay).replace("x.csv", str(folder / "x.csv"))
        runs.append(record(text, folder / str(place), allowed=[folder]))
    return runs[0], runs[1]
