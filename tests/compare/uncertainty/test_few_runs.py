"""An uncertainty from few perturbed runs is itself uncertain, and allows for that."""

from __future__ import annotations

from pathlib import Path

import pytest
from scipy.stats import t as student

from runner.compare.numbers.bounds import FACTOR
from runner.compare.snapshots.capture import plan_of
from runner.compare.uncertainty.measuring import Measurement, measure
from runner.engine import execute

MODEL = """\
parameters: {w: 0.7}
expression: loss = (sin(3 * w) - 0.2) ** 2 / 0.7
optimizer: {sgd: {lr: 0.1}}
steps: 3
"""


@pytest.fixture
def measured(tmp_path: Path) -> dict[int, Measurement]:
    path = tmp_path / "model.yaml"
    path.write_text(MODEL, encoding="utf-8")
    plan = plan_of(path)
    rows = list(execute(plan))
    return {runs: measure(plan, rows, runs=runs) for runs in (3, 4, 5, 6, 7, 8)}


def test_few_runs_allow_as_much_as_students_t_says(
    measured: dict[int, Measurement], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("runner.compare.uncertainty.measuring._WIDENED", {})
    plan = plan_of(tmp_path / "model.yaml")
    rows = list(execute(plan))
    rare = student.sf(FACTOR, 8)
    for runs, measurement in measured.items():
        plain = measure(plan, rows, runs=runs).rows[3]["w"]
        wide = measurement.rows[3]["w"]
        assert plain.rms > 0
        assert wide.rms / plain.rms == pytest.approx(student.isf(rare, runs) / FACTOR, abs=0.006)
        assert wide.largest / plain.largest == pytest.approx(wide.rms / plain.rms)
