# ruff: noqa: E501 — configs in one line
"""`expect` holds where `torch.testing.assert_close` does, and says what differs where it does not."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing._comparison import default_tolerances

import runner
from runner.engine.steps.expectations import TOLERANCES, mismatch
from tests.engine.running import rows_of
from tests.tables import over

FLOATING = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
SPECIAL = [0.0, 1.0, -1.0, 1e-6, 100.0, math.inf, -math.inf, math.nan]


def agrees(found: torch.Tensor, expected: torch.Tensor, rtol: float | None, atol: float | None) -> bool:
    """torch's own verdict with the tolerances of the dtype, reached in float64 so that no tolerance is rounded."""
    given = default_tolerances(found.dtype) if rtol is None and atol is None else (rtol or 0.0, atol or 0.0)
    sides = found.double(), expected.expand(found.shape).double()
    try:
        torch.testing.assert_close(*sides, equal_nan=True, rtol=given[0], atol=given[1])
    except AssertionError:
        return False
    return True


@given(
    st.sampled_from(FLOATING),
    st.lists(st.sampled_from(SPECIAL) | st.floats(-10, 10), min_size=1, max_size=4),
    st.lists(st.sampled_from([0.0, 1e-8, 1e-7, 1e-6, 2e-6, 1e-5, 1e-3, 1.0]), min_size=4, max_size=4),
    st.sampled_from([None, 0.0, 1e-6, 1e-2]),
    st.sampled_from([None, 0.0, 1e-6, 1e-2]),
)
def test_tolerances_are_those_of_torch_testing(
    dtype: torch.dtype, values: list[float], shifts: list[float], rtol: float | None, atol: float | None
) -> None:
    expected = torch.tensor(values, dtype=dtype)
    found = torch.tensor([value + shift for value, shift in zip(values, shifts, strict=False)], dtype=dtype)
    assert (mismatch(found, expected, rtol, atol) is None) == agrees(found, expected, rtol, atol)


@over("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128])
def test_the_table_is_torchs(dtype: torch.dtype) -> None:
    assert TOLERANCES[dtype] == default_tolerances(dtype)


@over("value", [0.1, 1e-3, -2.7, 1e30, 1 / 3])
@over("dtype", FLOATING)
def test_a_number_stands_for_the_nearest_one_of_the_dtype(dtype: torch.dtype, value: float) -> None:
    assert mismatch(torch.tensor(value, dtype=dtype), value, 0.0, 0.0) is None
    assert mismatch(torch.tensor(value, dtype=dtype), value * 1.05, 0.0, 0.0) is not None or value == 1e30


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental:UserWarning")
@over("dtype", [*FLOATING, torch.float8_e4m3fn, torch.float8_e5m2, torch.complex32, torch.complex64, torch.complex128])
def test_a_value_is_itself_in_every_dtype(dtype: torch.dtype) -> None:
    found = torch.tensor([0.5, -2.0, float("nan")]).to(dtype)
    assert mismatch(found[:2], found[:2].clone(), 0.0, 0.0) is None
    assert mismatch(found, found.clone(), 0.0, 0.0) is None
    told = mismatch(found[:2], found[1:2].clone(), 0.0, 0.0)
    assert told is not None
    assert (told.index, told.count) == ((0,), 1)


def test_integers_and_booleans_are_exact() -> None:
    big = 2**53 + 1
    assert mismatch(torch.tensor(big), torch.tensor(big), None, None) is None
    assert mismatch(torch.tensor(big), torch.tensor(big - 1), None, None) is not None
    assert mismatch(torch.tensor([True, False]), torch.tensor([True, True]), None, None) is not None
    assert mismatch(torch.tensor(3), 3.0000001, None, None) is not None


def test_a_mismatch_names_the_worst_element() -> None:
    found = mismatch(torch.tensor([[1.0, 2.0], [3.0, 7.0]]), torch.tensor([[1.0, 2.5], [3.0, 4.0]]), None, None)
    assert found is not None
    assert (found.index, found.found, found.expected, found.count, found.elements) == ((1, 1), 7.0, 4.0, 2, 4)


HELD = """\
parameters: {x: [1.0, 2.0, 3.0], n: {init: 4, dtype: int64, requires_grad: false}, d: {init: 0.1, dtype: float64}}
constants: {c: [[1.0, 2.0, 3.0]], nothing: .nan, many: {init: inf, shape: [2]}}
expression: |
  positive = x > 0
  both = x * d + n
  f = both.sum()
steps:
  - forward
  - backward
"""


def held(entries: str) -> list[runner.Row]:
    return rows_of(HELD + f"  - expect: {entries}\n")


@over(
    "entries",
    [
        "{x: [1, 2, 3]}",
        "{x: [1.0, 2, 3.0]}",
        "{x: 'c[0]'}",
        "{x.mean(): 2}",
        "{'x[0]': 1.000001}",
        "{positive: true}",
        "{x > 5: false}",
        "{n: 4}",
        "{d: 0.1}",
        "{d: {value: 0.1, rtol: 0}}",
        "{'stack([d, d])': [0.1, 0.1]}",
        "{x.grad: 'd.to(float32)'}",
        "{x.grad: 0.1}",
        "{c.grad: null}",
        "{c: [[1, 2, 3]]}",
        "{c: {value: [1.1, 2.1, 3.1], atol: 0.2}}",
        "{c: {value: [1.01, 2.02, 3.03], rtol: 0.02}}",
        "{many: inf}",
        "{sqrt(-x): .nan}",
        "{'x.shape[0]': 3}",
        "{x.sum(): x.sum()}",
        "{f: {value: 12.6, rtol: 1e-6, atol: 1e-6}}",
        "{'sqrt(2)': 1.4142135623730951}",
        "{'x[0]': 'log(exp(1))'}",
        "{iteration: 1}",
        "{'x.argmax()': 2}",
        "{'stack([x[0], x[1]])': [1, 2]}",
    ],
)
def test_an_expectation_that_holds_says_nothing_and_logs_no_row(entries: str) -> None:
    assert [row.step for row in held(entries)] == ["start", "forward", "backward"]


@over(
    ("entries", "message"),
    [
        ("{x: [1, 2, 4]}", r"`x`: expected 4.0, found 3.0 at \[2\], a difference of 1; 1 of 3 elements differ"),
        ("{x: 1}", r"expected 1.0, found 3.0 at \[2\], a difference of 2; 2 of 3 elements differ"),
        ("{'x[0]': 1.00002}", r"`x\[0\]`: expected 1.00002\d*, found 1.0, a difference of 2e-05"),
        ("{x > 1: true}", r"expected True, found False at \[0\]; 1 of 3 elements differ"),
        ("{n: 5}", "expected 5, found 4"),
        ("{n: 4.5}", "expected 4.5, found 4"),
        ("{x.grad: null}", "`x.grad`: expected no gradient, and `x.grad` exists"),
        ("{x: .nan}", "expected nan, found 1.0"),
        ("{c: {value: [1.1, 2.1, 3.1], rtol: 0.001}}", r"found 1.0 at \[0, 0\]"),
        ("{d: {value: 0.1001, rtol: 0.0001}}", "expected 0.1001, found 0.1"),
        ("{x: {value: 'x * 1.000001', rtol: 0}}", "3 of 3 elements differ"),
        ("{x: {value: 'x + 0.5', atol: 0.4}}", "expected 1.5, found 1.0"),
    ],
)
def test_an_expectation_that_does_not_hold_stops_the_run(entries: str, message: str) -> None:
    with pytest.raises(runner.ExpectationError, match=message) as caught:
        held(entries)
    assert caught.value.exit_code == 3
    (problem,) = caught.value.problems
    assert (problem.line, problem.hint) == (10, "after row 2")


def test_giving_one_tolerance_makes_the_other_0() -> None:
    text = "{parameters: {x: 1e-6}, expression: f = x, steps: [backward, expect: {x: {value: 2e-6, %s}}]}"
    rows_of(text % "atol: 1e-5")
    with pytest.raises(runner.ExpectationError, match="expected 2e-06, found 1e-06"):
        rows_of(text % "rtol: 1.3e-6")


def test_all_expectations_of_a_step_that_fail_are_told() -> None:
    with pytest.raises(runner.ExpectationError, match="`x`") as caught:
        held("{x: 0, n: 4, d: 7, f: 1}")
    assert [problem.message.partition("`:")[0] for problem in caught.value.problems] == ["`x", "`d", "`f"]


def test_the_rows_before_a_failure_are_given() -> None:
    from tests.engine.running import compiled

    rows = runner.execute(compiled(HELD + "  - expect: {x: 0}\n  - forward\n"))
    assert [next(rows).step for _ in range(3)] == ["start", "forward", "backward"]
    with pytest.raises(runner.ExpectationError, match="`x`"):
        next(rows)


def test_no_gradient_is_not_a_gradient_of_zero() -> None:
    text = "{parameters: {x: 0.0}, expression: f = x ** 2, steps: [%s, expect: {x.grad: %s}]}"
    rows_of(text % ("forward", "null"))
    rows_of(text % ("backward", "0"))
    with pytest.raises(runner.ExpectationError, match=r"`x\.grad`: there is no gradient"):
        rows_of(text % ("forward", "0"))
    with pytest.raises(runner.ExpectationError, match="expected no gradient"):
        rows_of(text % ("backward", "null"))


def test_a_tolerance_may_be_an_expression_of_scalar_constants() -> None:
    text = "{parameters: {x: 1.0}, constants: {eps: %s}, expression: f = x, steps: [backward, expect: {x: {value: 1.4, atol: eps}}]}"
    rows_of(text % "0.5")
    with pytest.raises(runner.ExpectationError, match="`x`"):
        rows_of(text % "0.3")


def test_a_list_is_rounded_to_nothing_coarser_than_what_it_is_held_against() -> None:
    text = """
dtype: bfloat16
parameters: {x: 1.0}
constants: {z: {init: [0.1, 0.2], dtype: complex64}, n: [257, 1001]}
expression: f = x * 2
steps: [forward, expect: {z: [0.1, 0.2], n: [%s, 1001.0]}]
"""
    rows_of(text % "257.0")
    with pytest.raises(runner.ExpectationError, match="`n`"):
        rows_of(text % "256.0")  # as bfloat16, 257 is 256


def test_a_gradient_within_an_expectation_is_by_what_it_writes_out() -> None:
    text = """
parameters: {x: [1.0, 2.0]}
expression: |
  y = x * x
  f = y.sum()
steps: [backward, expect: {"grad((x * x).sum(), x)": x.grad, "grad((y ** 2).sum(), y)": %s * y}]
"""
    rows_of(text % 2)
    with pytest.raises(runner.ExpectationError, match=r"`grad\(\(y \*\* 2\)\.sum\(\), y\)`"):
        rows_of(text % 3)


@over(
    ("entries", "message"),
    [
        ("{n: {value: 4, atol: 1}}", "`n` is int64, and compared exactly"),
        ("{positive: {value: true, rtol: 0.1}}", "`positive` is bool, and compared exactly"),
        ("{x: [1, 2]}", r"the expected value has shape \(2,\), `x` has \(3,\)"),
        ("{x.sum(): [1, 2]}", r"the expected value has shape \(2,\)"),
        ("{x: null}", "`null` means that there is no gradient"),
        ("{q: 1}", "`q` is not declared"),
        ("{x: y}", "`y` is not declared"),
        ("{x.exp_avg: 1}", "exp_avg"),
        ("{n.grad: 1}", "n.grad|`n` has no"),
        ("{x: {value: 1, rtol: -1}}", "a tolerance cannot be negative, found -1"),
        ("{x: {value: 1, atol: .nan}}", "a tolerance cannot be negative, found nan"),
        ("{'grad(f, x)': 0}", "`f` is the last computed value here, and has no autograd history"),
        (
            "{'grad(f if iteration == 1 else x.sum(), x) if iteration < 2 else x': 0}",
            "`f` is the last computed value here",
        ),
    ],
)
def test_an_expectation_that_means_nothing_is_refused_before_the_run(entries: str, message: str) -> None:
    with pytest.raises(runner.ConfigError, match=message):
        held(entries)
