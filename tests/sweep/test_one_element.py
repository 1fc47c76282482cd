"""Tensors of one element are numbers in the table of a sweep, and objectives, as tensors without a dimension are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from runner.config import load
from runner.sweep.planning import plan_sweep
from runner.sweep.record.reading import open_sweep
from runner.sweep.running import How, run_sweep, start_sweep
from tests.sweep.configs import written
from tests.sweep.test_running import Seen

HEAD = """\
parameters: {w: {shape: [1], init: [3.0]}, v: {shape: [2], init: ones}, z: {shape: [1], init: ones, dtype: complex64}}
constants: {rate: 0.1}
expression: f = w ** 2 + v.sum() ** 2 + abs(z) ** 2
optimizer: {sgd: {lr: rate}}
steps: 3
"""


def loss(rate: float) -> tuple[float, float, float]:
    """The last, least and largest loss of a loop written by hand."""
    w, v = torch.tensor([3.0], requires_grad=True), torch.ones(2, requires_grad=True)
    z = torch.ones(1, dtype=torch.complex64, requires_grad=True)
    optimizer, values = torch.optim.SGD([w, v, z], lr=rate), []
    for _ in range(3):
        optimizer.zero_grad()
        f = w**2 + v.sum() ** 2 + abs(z) ** 2
        f.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        values.append(f.item())
    return values[-1], min(values), max(values)


@pytest.mark.parametrize("lanes", ["exact", pytest.param("off", marks=pytest.mark.slow)])
def test_a_tensor_of_one_element_is_an_objective_and_has_statistics(lanes: str, tmp_path: Path) -> None:
    sweep = "sweep: {grid: {rate: [0.1, 0.2, 0.3, 0.01]}, objective: {minimize: f, over: best}}\n"
    config = load(written(tmp_path, sweep, HEAD))
    plan, how = plan_sweep(config, {}), How(jobs=1, lanes=lanes)
    directory = start_sweep(config, plan, {}, tmp_path / "sweeps", how)
    run_sweep(directory, plan, how, Seen())
    table = open_sweep(directory).table()
    names = [name for name in table.column_names if name.endswith(".last")]
    assert names == ["f.last", "w.last", "w.grad.last"]  # no vector, and no complex number
    for row in table.to_pylist():
        last, least, largest = loss(row["rate"])
        assert row["f.last"] == pytest.approx(last, rel=1e-6)
        assert (row["f.min"], row["f.max"]) == pytest.approx((least, largest), rel=1e-6)
        assert row["objective"] == pytest.approx(least, rel=1e-6)
