"""Perturbed rounding leaves alone what nothing rounds: whole numbers that come of whole numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from runner.compare.numbers.tolerances import root_mean_square
from runner.compare.snapshots.capture import measured, plan_of
from runner.compare.uncertainty.perturbation import Perturbation
from runner.engine import execute

FLOAT64 = """\
dtype: float64
constants: {x: {shape: [20, 4], init: {uniform: {}}}}
parameters: {w: {shape: [4], init: {uniform: {}}}}
expression: loss = ((sin(x @ w) - 0.3) ** 2).mean()
optimizer: {OPTIMIZER: {lr: 0.01}}
steps: 5
"""


def moved(given: torch.Tensor, other: torch.Tensor | float) -> bool:
    """Whether 64 perturbed sums and products of the two are ever anything else than the plain ones."""
    with Perturbation(0):
        found = [(given + other, given * other, given - other) for _ in range(64)]
    plain = (given + other, given * other, given - other)
    return any(not torch.equal(a, b) for each in found for a, b in zip(each, plain, strict=True))


def test_whole_numbers_stay_and_others_move() -> None:
    counts = torch.tensor([3.0, 17.0, -2.0])
    assert not moved(counts, 5)
    assert not moved(counts, torch.tensor([2.0, 1.0, 40.0]))
    assert not moved(counts, torch.tensor([2, 1, 40]))
    assert moved(counts, 0.3)
    assert moved(counts + 0.3, 5)
    assert moved(torch.tensor([2.0**24, 3.0]), torch.tensor([3.0, 0.1]))


def test_whole_numbers_beyond_what_the_dtype_counts_move() -> None:
    assert moved(torch.tensor([2.0**25]), 3.0)


def test_counts_in_place_and_in_lists_stay() -> None:
    steps = [torch.tensor(1.0), torch.tensor(4.0)]
    with Perturbation(0):
        for _ in range(64):
            torch._foreach_add_(steps, 1)
            steps[0] += 1
    assert [float(step) for step in steps] == [129, 68]


@pytest.mark.parametrize("optimizer", ["adamax", "radam", "adafactor", "adam"])
def test_a_count_of_steps_in_float32_leaves_float64_as_certain_as_it_is(tmp_path: Path, optimizer: str) -> None:
    path = tmp_path / "model.yaml"
    path.write_text(FLOAT64.replace("OPTIMIZER", optimizer), encoding="utf-8")
    plan = plan_of(path)
    rows = list(execute(plan))
    measurement = measured(plan, rows)
    assert measurement is not None
    last = rows[-1]
    assert last["w"] is not None
    assert measurement.rows[last.number]["w"].rms < 1e-12 * root_mean_square(last["w"])
