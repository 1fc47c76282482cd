"""The sides of `growth` compute the same, at small sizes; nothing is timed here."""

from __future__ import annotations

import numpy
import torch

from benchmarks import growth
from benchmarks.measure import Result, Workload, measured, table


def test_a_step_on_a_table_has_the_loss_of_numpy() -> None:
    found = growth.trained_on_table(200, 5)
    with growth.table_file(200, 5).open(encoding="utf-8") as file:
        values = numpy.loadtxt(file, delimiter=",", skiprows=1)[:64]
    torch.testing.assert_close(found, torch.tensor(((values[:, 1:].sum(1) - values[:, 0]) ** 2).mean()).float())


def test_a_streamed_pass_ends_near_that_of_a_memory_map() -> None:
    torch.testing.assert_close(growth.streamed(4000), growth.mapped_by_hand(4000), rtol=1e-3, atol=0)


def test_evaluate_has_the_loss_of_the_loop() -> None:
    for accuracy in (False, True):
        found, expected = (side(95, accuracy=accuracy) for side in (growth.evaluated, growth.evaluated_by_hand))
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
        assert len(found) == 1 + accuracy


def test_a_loaded_checkpoint_has_the_weights_of_safetensors() -> None:
    assert torch.equal(growth.load(3000), growth.load_by_safetensors(3000))


def test_the_growth_of_a_time_is_its_exponent_over_a_decade() -> None:
    workload = Workload("W", "ours", "theirs", int, int, reach=2.0, tenth=int)
    result = Result(workload, ours=(1.0, 100.0, 10.0), theirs=(5.0,), tenth=(0.1, 9.0, 0.05))
    assert result.exponent == 2.0
    assert "| 2.00; grows as n^2.00 | ≤ 2.00 | reached |" in list(table([result]))[-1]
    assert Result(workload, (1.0,), (1.0,)).exponent is None


def test_a_tenth_of_the_size_is_measured_as_often() -> None:
    calls: list[str] = []
    sides = Workload(
        "W", "ours", "theirs", lambda: calls.append("ours"), int, reach=None, tenth=lambda: calls.append("tenth")
    )
    assert len(measured(sides, repeats=1).tenth) == 1
    assert calls == ["ours", "tenth", "ours", "tenth"]


def test_more_memory_is_in_mebibytes() -> None:
    workload = Workload("W", "ours", "theirs", int, int, reach=64.0, measure="more memory")
    result = Result(workload, ours=(float(300 << 20),), theirs=(float(200 << 20),))
    cells = [cell.strip() for cell in list(table([result]))[-1].strip("|").split("|")]
    assert cells[2:] == ["300 MiB", "theirs", "200 MiB", "+100.00 MiB", "≤ +64.00 MiB", "not reached"]
