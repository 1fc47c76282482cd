"""How uncertain rows are: against closed forms and float64, and what is out of the ordinary in perturbed runs."""

from __future__ import annotations

import math

import pytest
import torch

import runner
from runner.compare.numbers.bounds import UNKNOWN, Uncertainty, floored
from runner.compare.numbers.ulp import same_bits
from runner.compare.uncertainty.discrete import discrete_columns
from runner.compare.uncertainty.meaning import check_meaning, doubts
from runner.compare.uncertainty.measuring import Measurement, measure
from runner.engine import Row
from runner.errors import SnapshotError
from runner.plan import Plan

LOGISTIC = """\
parameters: {{a: {{init: 0.3, requires_grad: false, dtype: {dtype}}}}}
expression: {expression}
steps:
  - repeat: {{times: {times}, steps: [forward, {{assign: {{a: f}}}}]}}
"""
"""Chaotic: an error grows by about two in each step."""

TRAINED = """\
parameters: {w: {shape: [6, 3], init: {normal: {std: 0.5}}}}
constants:
  x: {shape: [20, 6], init: {normal: {}}}
  y: {shape: [20, 3], init: {normal: {}}}
expression: |
  p = x @ w
  loss = ((p - y) ** 2).mean()
metrics: {close: ((p - y).abs() < 0.5).float().mean()}
optimizer: {adam: {lr: 0.01}}
steps: 10
"""


def run(text: str) -> tuple[Plan, list[Row]]:
    plan = runner.compile(runner.loads(text))
    return plan, list(runner.execute(plan))


def measured(text: str, runs: int = 8) -> tuple[list[Row], Measurement]:
    plan, rows = run(text)
    return rows, measure(plan, rows, runs=runs)


def logistic(expression: str = "f = 3.9 * a * (1 - a)", times: int = 20, dtype: str = "float32") -> str:
    return LOGISTIC.format(expression=expression, times=times, dtype=dtype)


def test_the_uncertainty_of_a_chaotic_computation_is_that_of_its_error() -> None:
    rows, measurement = measured(logistic())
    exact = [float(row["a"]) for row in run(logistic(dtype="float64"))[1] if row["a"] is not None]
    errors = [abs(float(row["a"]) - right) for row, right in zip(rows, exact, strict=True)]
    spreads = [measurement.rows[row.number]["a"].rms for row in rows]
    assert spreads[0] == 0.0
    assert all(error <= 10 * max(spread, 2**-24) for error, spread in zip(errors, spreads, strict=True))
    assert max(spreads) < 1000 * max(errors)  # and not just large
    assert spreads[-1] > 100 * spreads[3]


def test_another_way_to_write_it_lies_within_the_uncertainty() -> None:
    rows, measurement = measured(logistic())
    other = run(logistic("f = 3.9 * a - 3.9 * a * a"))[1]
    apart = [abs(float(a["a"]) - float(b["a"])) for a, b in zip(rows, other, strict=True)]
    assert max(apart) > 1e-4  # 16 units of rounding after 5 steps, tens of thousands after 20
    assert all(far <= 5 * max(measurement.rows[n]["a"].rms, 2**-24) for n, far in enumerate(apart))


def test_measuring_changes_nothing_and_gives_the_same_twice() -> None:
    plan, rows = run(TRAINED)
    first, second = measure(plan, rows, runs=3), measure(plan, rows, runs=3)
    assert first == second
    for row, again in zip(rows, runner.execute(plan), strict=True):
        for name in row:
            a, b = row[name], again[name]
            assert (a is None and b is None) or (a is not None and b is not None and same_bits(a, b))


def test_whole_numbers_are_certain() -> None:
    rows, measurement = measured("parameters: {w: {init: 3}}\nexpression: n = (w > 2).sum()\nsteps: [forward]\n")
    assert measurement.rows[1]["n"].largest == 0.0
    assert measurement.rows[1]["w"].largest == 0.0
    assert len(rows) == 2


def test_the_largest_difference_of_one_element_is_kept_beside_the_mean() -> None:
    text = "parameters: {w: {init: {expression: 'cat([ones(999), 1e4 * ones(1)])'}}}\nexpression: f = (w / 3).sum()\n"
    text = text.replace("f = (w / 3).sum()", "'v = w / 3'").replace("'v = w / 3'", '"v = w / 3"') + "steps: [forward]\n"
    _, measurement = measured(text)
    found = measurement.rows[1]["v"]
    assert found.largest > 20 * found.rms


def test_a_value_that_comes_of_a_comparison_is_as_uncertain_as_its_neighbours() -> None:
    plan, _ = run(TRAINED)
    assert discrete_columns(plan) == {"close"}
    flips = "where(f > edge, 1.0, 0.0)"
    plan, _ = run(
        f"parameters: {{w: {{init: 1}}}}\nexpression: |\n  f = w * 2\n  edge = 2\n  g = {flips}\nsteps: [forward]\n"
    )
    assert discrete_columns(plan) == {"g"}


def test_the_statistics_of_a_digest_are_as_uncertain_as_those_of_its_neighbours() -> None:
    edges = "constants: {far: {init: [9.0, 0.0, 9.0, 9.0]}}"
    flips = "expression: g = where(w / 3 * 3 - 1 > far[iteration - 1], 1.0, 0.0)"
    steps = "steps: [{repeat: {times: 4, steps: [forward]}}]"
    text = f"parameters: {{w: {{shape: [65], init: 1}}}}\n{edges}\n{flips}\n{steps}\n"
    _, measurement = measured(text)
    before, jumping, after, later = (measurement.rows[number]["g"] for number in (1, 2, 3, 4))
    assert jumping.largest == 1
    assert set(jumping.statistics) == {"mean", "std", "min", "max", "norm"}
    assert before == after == jumping
    assert later == Uncertainty(0.0, 0.0)


def test_an_expectation_that_rounding_breaks_does_not_stop_a_perturbed_run() -> None:
    text = TRAINED.replace("steps: 10", "steps: [backward, {expect: {loss: {value: LOSS, ulp: 0}}}]")
    loss = float(run(TRAINED.replace("steps: 10", "steps: [backward]"))[1][1]["loss"])
    text = text.replace("{value: LOSS, ulp: 0}", f"{{value: {loss!r}, rtol: 0, atol: 1e-30}}")
    rows, measurement = measured(text)
    assert measurement.notes == ()
    assert measurement.rows[1]["loss"].rms > 0
    assert len(rows) == 2


STOPS = """\
parameters: {w: {init: 1}}
expression: f = w / 3 * 3 - 1
steps:
  - repeat: {times: 3, steps: [forward, {stop: , when: f != 0}]}
"""


def test_a_run_that_takes_other_steps_leaves_the_rows_after_uncertain_and_says_so() -> None:
    rows, measurement = measured(STOPS)
    assert [row.path for row in rows] == ["start", "repeat[1].1.forward", "repeat[2].1.forward", "repeat[3].1.forward"]
    assert measurement.rows[1]["f"] != UNKNOWN
    assert measurement.rows[2]["f"] == measurement.rows[3]["f"] == UNKNOWN
    (note,) = measurement.notes
    assert note.endswith("perturbed runs ended before row 2")


def test_what_is_finite_in_some_perturbed_runs_only_is_uncertain() -> None:
    text = "parameters: {w: {init: 1}}\nexpression: f = log(w / 3 * 3 - 1)\nsteps: [forward]\non_nonfinite: ignore\n"
    _, measurement = measured(text)
    assert measurement.rows[1]["f"] == UNKNOWN
    assert measurement.notes == (
        "`f` is finite in some perturbed runs only, from row 1 on: any number is accepted there",
    )


def test_a_budget_makes_fewer_runs_but_never_under_three() -> None:
    plan, rows = run(TRAINED)
    begun: list[tuple[int, int]] = []
    assert measure(plan, rows, runs=8, budget=0.0, progress=lambda at, of: begun.append((at, of))).runs == 3
    assert begun[0] == (1, 8)
    assert [at for at, _ in begun] == [1, 2, 3]
    assert begun[-1] == (3, 3)


def test_the_drawn_initial_values_are_uncertain_and_the_given_ones_are_not() -> None:
    text = TRAINED.replace("x: {shape: [20, 6], init: {normal: {}}}", "x: {init: {expression: 'ones(20, 6)'}}")
    _, measurement = measured(text)
    assert measurement.rows[0]["w"].rms > 0
    uniform = TRAINED.replace("{normal: {std: 0.5}}", "{uniform: {a: -1, b: 1}}")
    assert measured(uniform)[1].rows[0]["w"].rms == 0.0


# --- what a person is told


def test_a_number_that_means_little_is_told_with_the_row_from_which_on() -> None:
    plan, rows = run(logistic(times=60))
    measurement = measure(plan, rows, runs=8)
    told = list(doubts(plan, rows, measurement))
    assert any(line.startswith("from row ") and line.endswith(": keep earlier rows") for line in told)
    first = int(told[0].split()[2])
    relative = [measurement.rows[n]["a"].rms / abs(float(rows[n]["a"])) for n in range(len(rows))]
    assert relative[first - 1] < 0.01 or relative[first - 2] < 0.01
    assert min(relative[first + 2 :]) >= 0.01 or math.isinf(max(relative))


def test_a_config_of_noise_is_refused_as_a_snapshot() -> None:
    text = "parameters: {w: {shape: [5], init: {normal: {}}}}\nexpression: f = (w.exp().log() - w).sum()\n"
    text += "log: {include: [f]}\nsteps: [forward]\n"
    plan, rows = run(text)
    measurement = measure(plan, rows, runs=8)
    with pytest.raises(SnapshotError, match=r"every number of noise\.yaml is uncertain by more than a tenth") as caught:
        check_meaning("noise.yaml", rows, measurement)
    assert caught.value.problems[0].hint is not None
    assert "dtype: float64" in caught.value.problems[0].hint
    plan, rows = run(TRAINED)
    check_meaning("trained.yaml", rows, measure(plan, rows, runs=3))


def test_lbfgs_and_every_dtype_can_be_measured() -> None:
    text = TRAINED.replace("{adam: {lr: 0.01}}", "{lbfgs: {}}").replace("steps: 10", "steps: 3")
    assert measured(text, 3)[1].rows[3]["loss"].rms > 0
    complex_sum = "parameters: {w: {shape: [3], init: 0.5}}\nexpression: f = (w * w.conj()).real.sum() / 3\n"
    for dtype, config in (("float64", TRAINED), ("bfloat16", TRAINED), ("complex64", complex_sum)):
        rows, measurement = measured(f"dtype: {dtype}\n{config}", 3)
        assert any(each.rms > 0 for row in measurement.rows.values() for each in row.values()), dtype
        assert len(rows) > 1


def test_an_endless_budget_makes_every_run() -> None:
    plan, rows = run(logistic(times=2))
    assert measure(plan, rows, runs=4, budget=math.inf).runs == 4


def test_statistics_whose_squared_differences_overflow_are_uncertain_without_bound() -> None:
    text = "dtype: float64\nparameters: {w: {shape: [100], init: {normal: {}}}}\nexpression: h = exp(w) * 1e200\n"
    rows, measurement = measured(text + "steps: [forward]\n", 3)
    assert measurement.rows[rows[-1].number]["h"].statistics["max"] == math.inf


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_two_subnormal_neighbours_are_within_the_least_uncertainty(dtype: torch.dtype) -> None:
    least = float(torch.nextafter(torch.zeros((), dtype=dtype), torch.ones((), dtype=dtype)))
    assert floored(Uncertainty(0.0, 0.0), dtype, least, least) == (least, least)
