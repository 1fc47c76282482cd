"""The error of two variants, row by row, against closed forms: each step multiplies the weights by a number."""

from __future__ import annotations

import math

import pytest

import runner
from runner.compare.numbers.tolerances import Tolerance, Tolerances
from runner.compare.variants.error_report import errors_json, errors_page
from runner.compare.variants.error_table import ErrorTable, tabulate_errors
from runner.compare.variants.lockstep import WHOLE_LOG, Side, lockstep, without_stops
from runner.config import overridden

SHRINKING = """\
parameters: {x: [4.0, 0.5]}
constants: {rate: 0.25}
expression: |
  h = x ** 2
  loss = h.sum()
optimizer: {sgd: {lr: rate}}
steps: 8
"""
"""x[n] = x[0] * (1 - 2 * rate) ** n, without a rounding where the rate is 1/4 or 1/8."""


def course_of(text: str, *overrides: str, reinject: bool = False, **more: object) -> ErrorTable:
    config = runner.loads(text, overrides=WHOLE_LOG)
    plans = [without_stops(runner.compile(each)) for each in (config, overridden(config, overrides))]
    besides = lockstep(Side(plans[0]), Side(plans[1]), reinject=reinject)
    return tabulate_errors(besides, *plans, reinjected=reinject, **more)  # type: ignore[arg-type]


def test_the_error_is_that_of_the_closed_form_in_every_row() -> None:
    table = course_of(SHRINKING, "rate=0.125")
    assert [line.place.number for line in table.lines] == list(range(9))
    for line in table.lines:
        n = line.place.number
        assert line.cells["x"].error == pytest.approx(1.5**n - 1)
        if n:
            assert line.cells["x.grad"].error == pytest.approx(1.5 ** (n - 1) - 1)
            assert line.cells["loss"].error == pytest.approx(2.25 ** (n - 1) - 1)
    assert set(table.lines[0].cells) == {"x"}


def test_a_step_begun_anew_makes_its_own_error_alone() -> None:
    table = course_of(SHRINKING, "rate=0.125", reinject=True)
    for line in table.lines[1:]:
        assert line.cells["x"].local == pytest.approx(0.5)
        assert (line.cells["x.grad"].local, line.cells["h"].local) == (0, 0)
    assert table.lines[0].cells["x"].local == 0
    assert {trend.name: (trend.local, trend.local_number) for trend in table.trends} == {
        "h": (0, None),
        "loss": (0, None),
        "x.grad": (0, None),
        "x": (pytest.approx(0.5), 1),
    }


def test_distances_are_counted_in_the_narrower_dtype() -> None:
    forward = SHRINKING.replace("steps: 8", "steps: [forward]").replace("optimizer: {sgd: {lr: rate}}\n", "")
    beside = "dtype=float64", f"parameters.x.init=[4.0, {0.5 + 2**-24 + 2**-40}]"  # nearest to the next of float32
    x = course_of(forward.replace("constants: {rate: 0.25}\n", ""), *beside).trends[-1]
    assert (x.name, x.born, x.ulp) == ("x", 0, 1)
    exact = course_of(SHRINKING, "dtype=float64")
    assert (exact.trends, exact.rows, exact.tensors) == ((), 9, 4)


def test_a_fault_amid_rounding_is_a_jump_in_its_row() -> None:
    program = "steps: [{repeat: {times: 60, steps: [train, {assign: {x: x * FACTOR}, when: iteration == 40}]}}]"
    config = SHRINKING.replace("[4.0, 0.5]", "[0.3, 0.7]").replace("rate: 0.25", "rate: 0.013")
    config = config.replace("steps: 8", program.replace("FACTOR", "1.0"))
    clean = course_of(config, "dtype=float64")
    faulty = course_of(config, "dtype=float64", "steps.0.repeat.steps.1.assign.x=x * 1.01", most=12)
    kinds = [{trend.name: trend.growth for trend in table.trends} for table in (clean, faulty)]
    assert {growth.kind for growth in kinds[0].values() if growth} <= {"drift", "rounding"}
    told = kinds[1]["x"]
    assert told is not None
    assert told.leap is not None
    assert (told.kind, told.leap.number) == ("jump", 41)  # the row after that of train 40
    assert told.leap.error == pytest.approx(0.01, rel=1e-3)
    assert "jump in row 41" in "\n".join(errors_page(faulty, width=120, height=40))


def test_a_difference_is_a_jump_or_a_drift() -> None:
    kinds = {trend.name: trend.growth and trend.growth.kind for trend in course_of(SHRINKING, "rate=0.125").trends}
    assert kinds == {"h": "jump", "loss": "jump", "x.grad": "jump", "x": "jump"}
    unstable = SHRINKING.replace("rate: 0.25", "rate: 1.1").replace("[4.0, 0.5]", "[0.1, 0.3]").replace("8", "30")
    drifting = course_of(unstable, "rate=1.1000003")
    assert {trend.growth.kind for trend in drifting.trends if trend.growth} == {"drift"}


def test_tensors_of_other_shapes_have_the_shapes_and_no_errors() -> None:
    config = "parameters: {x: {shape: [3], init: ones}}\nexpression: loss = x.sum()\nsteps: [backward]\n"
    table = course_of(config, "parameters.x.shape=[4]")
    growths = {trend.name: (trend.shapes, trend.growth and trend.growth.largest) for trend in table.trends}
    shapes = "shape [3] → [4]"
    assert growths == {"loss": (None, pytest.approx(1 / 3)), "x.grad": (shapes, None), "x": (shapes, None)}
    assert errors_page(table, width=120, height=40)[2:12] == [
        "relative error",
        "  row  step         loss  x.grad      x",
        "    0  start                      shape",
        "    1  backward  3.3e-01   shape  shape",
        "",
        "  tensor  born    first     last          largest  in row        ULP  growth",
        "  loss       1  3.3e-01  3.3e-01          3.3e-01       1  4,194,304  jump",
        "  x.grad     1                    shape [3] → [4]",
        "  x          0                    shape [3] → [4]",
        "",
    ]
    assert [trend["growth"] for trend in errors_json(table)["tensors"]] == ["jump", None, None]


def test_the_kept_rows_are_the_first_the_last_and_the_worst_of_each_stretch() -> None:
    text = SHRINKING.replace("steps: 8", "steps: [{repeat: {times: 60, steps: [backward]}}]").replace(
        "h = x ** 2", "h = x ** 2 * (bump if iteration == 17 or iteration == 44 else 1)"
    )
    text = text.replace("constants: {", "constants: {bump: 2, ").replace("optimizer: {sgd: {lr: rate}}\n", "")
    text = text.replace("rate: 0.25", "").replace("bump: 2, ", "bump: 2")
    kept = [line.place.number for line in course_of(text, "bump=3", most=6).lines]
    assert kept == [0, 1, 17, 44, 59, 60]
    assert len(course_of(text, "bump=3").lines) == 61


def test_a_tolerance_that_was_asked_for_is_held() -> None:
    wide = Tolerances(Tolerance("explicit", rtol=0.5))
    one = course_of(SHRINKING, "rate=0.125", "steps=1", tolerances=wide)
    assert one.within is not None
    assert one.within.holds is False  # it has fewer rows
    text = SHRINKING.replace("steps: 8", "steps: 1")
    held = course_of(text, "rate=0.125", tolerances=wide).within
    assert held is not None
    assert held.holds
    passed = course_of(SHRINKING, "rate=0.125", tolerances=wide).within
    assert passed is not None
    assert passed.first_difference is not None
    assert (passed.first_difference.place.number, passed.first_difference.divergences[0].column.name) == (2, "h")


@pytest.mark.slow
def test_the_page_of_many_tensors_fits_a_narrow_screen() -> None:
    names = [f"weight_{number:02}" for number in range(30)]
    text = (
        f"parameters: {{{', '.join(f'{name}: {number + 1}' for number, name in enumerate(names))}}}\n"
        f"constants: {{rate: 0.25}}\nexpression: {' + '.join(f'{name} ** 2' for name in names)}\n"
        "optimizer: {sgd: {lr: rate}}\nsteps: 50\n"
    )
    page = errors_page(course_of(text, "rate=0.125", reinject=True, most=6), width=60, height=23)
    assert len(page) <= 23
    assert all(len(line) <= 60 for line in page)
    assert "  and 59 more tensors that do not fit on the screen" in page


def test_numbers_that_are_not_finite_are_text_in_json() -> None:
    told = errors_json(course_of("parameters: {x: 0}\nexpression: x * 2\n", "parameters.x.init=1"))
    assert told["steps"][0]["tensors"]["x"] == {"error": "inf", "ulp": 1065353216, "local": None}
    assert math.isinf(float(told["tensors"][0]["largest"]))
