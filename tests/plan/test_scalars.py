# ruff: noqa: E501 — configs in one line
"""Scalar constants: numbers, and expressions over the others, in any order."""

from __future__ import annotations

import math
import sys

import pytest

import runner
from runner.faults import Faults
from runner.plan.scalars import scalar_constants
from tests.engine.running import compiled
from tests.tables import over


def scalars(constants: str) -> dict[str, float]:
    text = f"{{parameters: {{x: 1}}, constants: {{{constants}}}, expression: x * 1}}"
    return dict(compiled(text).scalars)


def test_constants_are_computed_from_one_another_in_any_order() -> None:
    found = scalars("a: b * 2, b: c + 1, c: 3, width: a // 3, half: a / 2, flag: true, t: 1e-3")
    assert found == {"a": 8, "b": 4, "c": 3, "width": 2, "half": 4.0, "flag": True, "t": 0.001}
    assert [type(found[name]) for name in ("width", "half", "flag")] == [int, float, bool]


def test_constants_know_pythons_math() -> None:
    found = scalars(
        "a: sqrt(2), b: 'max(3, floor(4.5))', c: pi / 2, d: int(7 / 2), e: 'round(2.5)', f: 1 if 2 > 1 else 0"
    )
    assert found == {"a": math.sqrt(2), "b": 4, "c": math.pi / 2, "d": 3, "e": 2, "f": 1}


def test_constants_stay_in_the_order_of_the_file() -> None:
    assert list(scalars("z: a, a: m, m: 1")) == ["z", "a", "m"]


@over(
    ("constants", "message"),
    [
        ("a: b, b: a", "depend on each other: `a`, `b`"),
        ("a: a + 1", "depend on each other: `a`"),
        ("a: nothing + 1", "`nothing` is not a scalar constant"),
        ("a: 9 ** 9 ** 9", "larger than 2\\^63"),
        ("a: 1 / 0", "division by zero"),
        ("a: sqrt(-1)", "sqrt"),
        ("a: x + 1", "`x`"),
        ("a: 'randn(3)'", "randn"),
    ],
)
def test_a_constant_that_is_no_number_is_refused(constants: str, message: str) -> None:
    with pytest.raises(runner.ConfigError, match=message):
        scalars(constants)


def test_every_fault_of_the_constants_is_told_and_none_that_follows_from_it() -> None:
    text = (
        "{parameters: {x: {shape: [c], init: ones}}, constants: {a: nothing, b: 1 / 0, c: a + b}, expression: x.sum()}"
    )
    with pytest.raises(runner.ConfigError, match="nothing") as caught:
        compiled(text)
    assert [problem.path for problem in caught.value.problems] == ["constants.a", "constants.b"]


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ("1.5", "expected an integer, found 1.5"),
        ("n / 4", "expected an integer, found 0.75"),
        ("-1", "at least 0"),
        ("inf", "integer"),
        ("nan", "integer"),
    ],
)
def test_counts_need_integers(times: str, message: str) -> None:
    with pytest.raises(runner.ConfigError, match=message):
        compiled(
            f"{{parameters: {{x: 1}}, constants: {{n: 3}}, expression: x, steps: [{{repeat: {{times: {times}, steps: [backward]}}}}]}}"
        )


def test_a_float_that_is_whole_counts() -> None:
    plan = compiled(
        "{parameters: {x: 1}, constants: {n: 4}, expression: x, steps: [{repeat: {times: n / 2, steps: [backward]}}]}"
    )
    assert plan.estimates.rows == 3


@pytest.mark.slow
def test_a_chain_of_constants_is_computed_in_linear_time() -> None:
    def work(length: int) -> int:
        chain = ", ".join(f"c{n}: c{n + 1} + 1" for n in range(length))
        config = runner.loads(f"{{parameters: {{x: 1}}, constants: {{{chain}, c{length}: 1}}, expression: x * c0}}")
        faults, calls = Faults(config.document), 0

        def count(frame: object, event: str, argument: object) -> None:
            nonlocal calls
            calls += 1

        sys.setprofile(count)
        try:
            found = scalar_constants(config, faults)
        finally:
            sys.setprofile(None)
        assert found["c0"] == length + 1
        return calls

    assert work(4000) < 5 * work(1000)


def test_what_reads_a_constant_with_a_fault_is_no_circle() -> None:
    with pytest.raises(runner.ConfigError, match=r"`1 / 0`: division by zero") as caught:
        scalars("a: 1 / 0, b: a + 1, c: b + 1, d: c + b")
    assert len(caught.value.problems) == 1
