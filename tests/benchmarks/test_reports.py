"""What W10 and P10 measure: the curves are those of torch, and what is missing is said; nothing is timed here."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import torch

import runner
from benchmarks import reports
from benchmarks.reports import Needed
from tests.report.runs import record

NETWORK = """\
parameters:
  w1: {shape: [2, 3], init: normal}
  b1: {shape: [1], init: ones}
  w2: {shape: [3], init: normal}
  b2: {shape: [1], init: ones}
constants: {x: {shape: [5, 2], init: normal}}
expression: loss = (tanh(x @ w1 + b1) @ w2 + b2).square().mean()
optimizer: {sgd: {lr: 0.1}}
steps: 4
"""


@pytest.fixture
def curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, reports.Numbers]]:
    run = record(NETWORK, tmp_path)
    monkeypatch.setattr(reports, "network", lambda: run)
    monkeypatch.setattr(reports, "scratch", lambda: tmp_path)
    reports.curves.cache_clear()
    return run, reports.curves()


def test_the_curves_of_peers_are_the_loss_and_the_norms(curves: tuple[Path, dict[str, reports.Numbers]]) -> None:
    run, found = curves
    assert sorted(found) == ["b1", "b1.grad", "b2", "b2.grad", "loss", "w1", "w1.grad", "w2", "w2.grad"]
    rows = list(runner.open_run(run))
    weights = [float(torch.linalg.vector_norm(row["w1"].double())) for row in rows]  # type: ignore[union-attr]
    numpy.testing.assert_allclose(found["w1"], weights)
    losses = [float(row["loss"]) for row in rows[1:]]  # type: ignore[arg-type]
    numpy.testing.assert_allclose(found["loss"][-len(losses) :], losses)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "PLOTLY", Needed("plotly", "no_such_module_anywhere", "benchmarks"))
    assert "plotly is not installed: pip install 'steprun[benchmarks]'" in list(reports.missing())
    assert not any("plotly" in workload.against for workload in reports.workloads())
