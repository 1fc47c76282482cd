"""The values of an axis: sequences, blocks with axes inside, and draws."""

from __future__ import annotations

import math
import statistics
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.sweep.points import values
from runner.sweep.points.axis import Axis
from runner.sweep.points.overlaps import overlaps
from runner.sweep.points.values import AxisFault, check_distribution, drawn, resolved, values_of
from tests.tables import over


@over(
    ("written", "expected"),
    [
        ([0.1, 0.03], [0.1, 0.03]),
        ("range(3)", [0, 1, 2]),
        ("range(2, 9, 3)", [2, 5, 8]),
        ("range(n)", [0, 1, 2, 3]),
        ("range(9, 2, -3)", [9, 6, 3]),
        ("range(-2, 3, 4)", [-2, 2]),
        ("logspace(1, -5, 1)", [10.0]),
        ("logspace(0.01, -5, 1)", [pytest.approx(1.023292992280754)]),
        (["a", None, True], ["a", None, True]),
        ([{"sgd": {"lr": 1, "momentum": {"grid": [0, 0.9]}}}, {"adam": {"lr": 2}}],
         [{"sgd": {"lr": 1, "momentum": 0}}, {"sgd": {"lr": 1, "momentum": 0.9}}, {"adam": {"lr": 2}}]),
        ([[1, {"grid": [2, 3]}]], [[1, 2], [1, 3]]),
        ([{"a": {"grid": [1, {"b": {"grid": "range(2)"}}]}}], [{"a": 1}, {"a": {"b": 0}}, {"a": {"b": 1}}]),
    ],
)  # fmt: skip
def test_an_axis_has_these_values(written: Any, expected: list[Any]) -> None:
    assert values_of(written, {"n": 4}) == expected


@over("count", [1, 2, 5, 11, 100])
def test_linspace_and_logspace_are_those_of_numpy(count: int) -> None:
    assert values_of(f"linspace(-1, 3, {count})", {}) == pytest.approx(numpy.linspace(-1, 3, count).tolist(), rel=1e-15)
    assert values_of(f"logspace(-5, -1, {count})", {}) == pytest.approx(
        numpy.logspace(-5, -1, count).tolist(), rel=1e-13
    )


@over(
    ("written", "message"),
    [
        ("range(0)", r"`range\(0\)` has no values"),
        ("range(1, 5, 0)", r"has a step of zero"),
        ("range(2.5)", r"needs one to three integers"),
        ("range(10 ** 12)", r"has 1,000,000,000,000 values"),
        ("range(-(2 ** 62) * 2 + 1, 2 ** 62)", r"has 13,835,058,055,282,163,711 values"),
        ("range(2 ** 62, -(2 ** 62) * 2 + 1, -1)", r"has 13,835,058,055,282,163,711 values"),
        ("range(5, 2)", r"has no values"),
        ("range(2, 5, -1)", r"has no values"),
        ("linspace(0, 1)", r"needs a start, an end and a count"),
        ("linspace(0, inf, 3)", r"needs a start, an end and a count"),
        ("arange(3)", r"there is no sequence `arange`"),
        ("0.1, 0.2", r"is not a list of values"),
        ("range(", r"is not a list of values"),
        ("range(x)", r"has an argument that is not a number"),
        ([], r"the axis has no values"),
        ([{"grid": []}], r"the axis has no values"),
    ],
)
def test_values_that_are_none_are_a_fault(written: Any, message: str) -> None:
    with pytest.raises(AxisFault, match=message):
        values_of(written, {})


SAMPLES = 4000
DISTRIBUTIONS: list[tuple[dict[str, Any], float, float, Any]] = [
    ({"uniform": [2, 6]}, 4, 4 / math.sqrt(12), float),
    ({"log_uniform": [math.exp(-4), math.exp(4)]}, 0, 8 / math.sqrt(12), math.log),
    ({"normal": [1, 3]}, 1, 3, float),
    ({"randint": [0, 10]}, 4.5, math.sqrt(99 / 12), float),
    ({"choice": [0, 10]}, 5, 5, float),
]


@over(("written", "mean", "deviation", "scale"), DISTRIBUTIONS)
def test_draws_have_the_moments_of_their_distribution(
    written: dict[str, Any], mean: float, deviation: float, scale: Any
) -> None:
    values = [scale(drawn(written, 0, "x", number, {})) for number in range(SAMPLES)]
    error = deviation / math.sqrt(SAMPLES)
    assert statistics.fmean(values) == pytest.approx(mean, abs=4 * error)
    assert statistics.stdev(values) == pytest.approx(deviation, rel=0.06)


@given(st.integers(-(2**31), 2**31), st.integers(1, 2**40))
def test_randint_excludes_its_end(low: int, span: int) -> None:
    assert all(low <= drawn({"randint": [low, low + span]}, 0, "x", number, {}) < low + span for number in range(20))


def test_a_draw_depends_on_seed_axis_and_number_alone() -> None:
    uniform = {"uniform": [0, 1]}
    first = drawn(uniform, 0, "x", 3, {})
    assert drawn(uniform, 0, "x", 3, {"n": 1}) == first
    assert (
        len({first, drawn(uniform, 1, "x", 3, {}), drawn(uniform, 0, "y", 3, {}), drawn(uniform, 0, "x", 4, {})}) == 4
    )


def test_a_choice_may_contain_a_distribution() -> None:
    written = {"choice": [{"sgd": {"lr": {"log_uniform": [1e-4, 1e-1]}}}, {"adam": {"lr": {"uniform": [0, 1]}}}]}
    found = [drawn(written, 0, "optimizer", number, {}) for number in range(50)]
    assert {next(iter(each)) for each in found} == {"sgd", "adam"}
    rates = [each["sgd"]["lr"] for each in found if "sgd" in each]
    assert len(set(rates)) == len(rates)
    assert all(1e-4 <= rate <= 1e-1 for rate in rates)


NESTED = {
    "choice": [
        {"sgd": {"lr": {"choice": "linspace(0, 1, 50)"}, "momentum": {"grid": [0, 0.9]}}},
        {"adam": {"lr": {"uniform": [0, 1]}, "betas": [{"choice": [0.8, 0.9]}, 0.99]}},
    ]
}


def test_the_values_of_a_choice_are_listed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [drawn(NESTED, 0, "optimizer", number, {}) for number in range(60)]
    assert {next(iter(each)) for each in expected} == {"sgd", "adam"}
    listed = resolved(NESTED, {})
    monkeypatch.setattr(values, "values_of", None)
    assert [drawn(listed, 0, "optimizer", number, {}) for number in range(60)] == expected


@over(
    ("written", "message"),
    [
        ({"uniform": [1, 0]}, r"`uniform` begins at 1 and ends at 0"),
        ({"uniform": [0]}, r"`uniform` needs a list of two numbers"),
        ({"uniform": [0, "x"]}, r"has an argument that is not a number"),
        ({"uniform": [0, math.inf]}, r"needs two finite numbers"),
        ({"uniform": [-1.7e308, 1.7e308]}, r"`uniform` spans more than a float64 can hold"),
        ({"normal": [0, 1e308]}, r"`normal` spans more than a float64 can hold"),
        ({"log_uniform": [0, 1]}, r"`log_uniform` needs two positive numbers"),
        ({"normal": [0, 0]}, r"`normal` has a standard deviation of 0"),
        ({"randint": [1, 1]}, r"`randint` needs two integers, the smaller first"),
        ({"randint": [0, 1.5]}, r"`randint` needs two integers, the smaller first"),
        ({"choice": 3}, r"`choice` needs a list, and has the number 3"),
        ({"choice": []}, r"the axis has no values"),
    ],
)
def test_arguments_that_do_not_fit_are_a_fault(written: dict[str, Any], message: str) -> None:
    with pytest.raises(AxisFault, match=message):
        drawn(written, 0, "x", 0, {})


@over(("start", "end"), [(-1, 1e-17), (0.1, 0.7), (1e300, -1e-300), (3, 3), (2**53, 1)])
def test_a_sequence_begins_and_ends_at_the_numbers_that_are_written(start: float, end: float) -> None:
    found = values_of(f"linspace({start!r}, {end!r}, 4)", {})
    assert (found[0], found[-1]) == (start, end)


@over("low", [0.1, 3.0, 7.0, 1e-300, 1e300])
def test_a_logarithmic_draw_lies_between_its_ends(low: float) -> None:
    assert [drawn({"log_uniform": [low, low]}, 0, "lr", number, {}) for number in range(3)] == [low] * 3


def test_the_least_and_the_largest_random_number_have_normal_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for bits in (0, 2**64 - 1):
        monkeypatch.setattr("runner.sweep.points.values._fraction", lambda *_, bits=bits: bits)
        found.append(drawn({"normal": [0, 1]}, 0, "x", 0, {}))
    assert 7 < found[1] < 9
    assert found[0] == -found[1]
    check_distribution({"normal": [0, 1]}, {})
    assert math.isfinite(drawn({"normal": [1e307, 1e307]}, 0, "x", 0, {}))


def test_axes_overlap_where_a_block_of_one_sets_what_the_other_sets() -> None:
    def found(choice: dict[str, Any], path: str) -> int:
        return len(list(overlaps([Axis(("optimizer",), [{"optimizer": choice}]), Axis((path,), [{path: 1}])])))

    assert found({"sgd": {"lr": 1}}, "optimizer.sgd.lr") == 1
    assert found({"sgd": {"lr": 1}}, "optimizer.sgd.momentum") == 0
    assert found({"sgd": {"lr": 1}}, "optimizers.sgd.lr") == 0
    assert found({"sgd": {"lr": 1}}, "optimizer") == 1
