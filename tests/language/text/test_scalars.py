"""Scalar expressions: Python's own numbers, and never one that grows without bound."""

from __future__ import annotations

import math
import re
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.language.text.arithmetic import FUNCTIONS
from runner.language.text.faults import LanguageError
from runner.language.text.scalars import compile_scalar, evaluate, names_in
from tests.effort import tried
from tests.tables import over

NAMES = {"d": 64, "heads": 4, "rate": 0.5, "flag": True, "rates": (0.5, 0.25, 0.125)}


@over(
    "text",
    [
        "1 + 2 * 3 - 4 / 5",
        "7 // 2 + 7 % 4 + 2 ** 10",
        "-7 // 2 + -7 % 4",
        "d // heads",
        "3 * d / heads ** 0.5",
        "rate if flag else 1",
        "1 < heads <= 4",
        "1 < heads <= 3",
        "flag and rate or d",
        "not flag",
        "~d & 12 | 3 ^ 5",
        "abs(-3) + min(1, d) + max(2, heads, 3)",
        "round(2.5) + round(3.14159, 2) + int(2.9) + float(3)",
        "round(1234, -2)",
        "pi * rate",
        "math.pi",
        "sqrt(d) + math.log(heads) + exp(rate)",
        "factorial(5) + comb(10, 3) + gcd(12, d)",
        "pow(2, 10)",
        "rates[0] + rates[-1]",
        "rates[heads // 2]",
        "inf",
        "-inf",
        "1e3 + 1_000",
        "True + True",
        "2 ** -1",
        "floor(2.7) + ceil(2.1) + trunc(-2.7)",
        "hypot(3, 4) + atan2(1, 2)",
    ],
)
def test_scalar_arithmetic_is_pythons(text: str) -> None:
    expected = eval(text, {"__builtins__": {}, "math": math, **vars(math), **_BUILTINS}, dict(NAMES))
    found = evaluate(text, NAMES)
    assert (type(found), found) == (type(expected), expected)


_BUILTINS = {"abs": abs, "min": min, "max": max, "round": round, "int": int, "float": float, "pow": pow}


def test_nan_is_a_number() -> None:
    assert math.isnan(evaluate("nan", {}))


NUMBERS = "change the numbers in it"
LARGE = "the result is an integer larger than 2^63"


@over(
    ("text", "message", "hint"),
    [
        ("9 ** 9 ** 9", f"`9 ** 9 ** 9`: {LARGE}", NUMBERS),
        ("2 ** 64", f"`2 ** 64`: {LARGE}", NUMBERS),
        ("2 ** 62 * 4", f"`2 ** 62 * 4`: {LARGE}", NUMBERS),
        ("-(2 ** 62) - 2 ** 62 - 2 ** 62", f"`-(2 ** 62) - 2 ** 62 - 2 ** 62`: {LARGE}", NUMBERS),
        ("2.0 ** 5000", "`2.0 ** 5000`: the result is too large", NUMBERS),
        ("factorial(21)", "`factorial(21)`: `factorial` takes numbers up to 20 here", NUMBERS),
        ("comb(100, 50)", f"`comb(100, 50)`: {LARGE}", NUMBERS),
        ("comb(10 ** 9, 5)", "`comb(10 ** 9, 5)`: `comb` takes numbers up to 10000 here", NUMBERS),
        ("perm(2000, 1000)", f"`perm(2000, 1000)`: {LARGE}", NUMBERS),
        ("lcm(2 ** 61 - 1, 2 ** 60 - 1)", f"`lcm(2 ** 61 - 1, 2 ** 60 - 1)`: {LARGE}", NUMBERS),
        ("int(1e300)", f"`int(1e300)`: {LARGE}", NUMBERS),
        ("floor(1e300)", f"`floor(1e300)`: {LARGE}", NUMBERS),
        ("round(1e300)", f"`round(1e300)`: {LARGE}", NUMBERS),
        ("round(7, -10 ** 9)", "`round(7, -10 ** 9)`: `round` takes at most 400 digits", NUMBERS),
        ("int(inf)", "`int(inf)`: the result is too large", NUMBERS),
        ("int(nan)", "`int(nan)`: cannot convert float NaN to integer", NUMBERS),
        ("1 / 0", "`1 / 0`: division by zero", NUMBERS),
        ("1 // 0", "`1 // 0`: division by zero", NUMBERS),
        ("1 % 0", "`1 % 0`: division by zero", NUMBERS),
        ("0.0 ** -1", "`0.0 ** -1`: division by zero", NUMBERS),
        ("sqrt(-1)", "`sqrt(-1)`: outside the function's domain", NUMBERS),
        ("log(0)", "`log(0)`: outside the function's domain", NUMBERS),
        ("(-8) ** 0.5", "`(-8) ** 0.5`: a negative number to a fractional power is not real", NUMBERS),
        ("2.0 ^ 3", "`2.0 ^ 3`: `^` does not take a float and an int", NUMBERS),
        ("1 @ 2", "`@` needs tensors", "multiply numbers with `*`"),
        ("'text'", "`'text'` is not a number", "use numbers and scalar constants"),
        ("None", "`None` is not a number", "use numbers and scalar constants"),
        ("1j", "`1j` is not a number", "use numbers and scalar constants"),
        ("head", "`head` is not a scalar constant", "did you mean `heads`?"),
        ("relu(1)", "`relu` is not a scalar function", "scalar functions are"),
        ("sqr(4)", "`sqr` is not a scalar function", "did you mean `sqrt`?"),
        ("d.bit_length()", "`d.bit_length` is not a scalar function", "scalar functions are"),
        ("d.real", "`d.real` is not a scalar", "use numbers and scalar constants"),
        ("math.prod", "`math.prod` is not a scalar", "use numbers and scalar constants"),
        ("fsum((1, 2))", "`fsum` is not a scalar function", "scalar functions are"),
        ("sqrt(x=4)", "`sqrt` takes no argument by name", "write it by position"),
        ("rates[3]", "`rates[3]`: index 3 is outside 0 … 2", NUMBERS),
        ("rates[0.5]", "`rates[0.5]`: an index is an integer", NUMBERS),
        ("rates[0:2]", "a scalar is indexed by one number", "write for instance `rates[t - 1]`"),
        ("d[0]", "`d[0]`: a number cannot be indexed", NUMBERS),
        ("rates", "`rates` is not a number", "take an element of it: `rates[0]`"),
        ("(1, 2)", "`(1, 2)` is not a number", "write a number or an expression over scalar constants"),
    ],
)
def test_what_is_no_number_is_told(text: str, message: str, hint: str) -> None:
    with pytest.raises(LanguageError, match=re.escape(message)) as caught:
        evaluate(text, NAMES)
    assert caught.value.message == message
    assert (caught.value.hint or "").startswith(hint)


def test_a_fault_stands_at_its_part_of_the_text() -> None:
    with pytest.raises(LanguageError, match="division by zero") as caught:
        evaluate("1 + 2 *\n (3 / (d - 64))", NAMES)
    assert caught.value.place.as_tuple() == (2, 2, 12)


def test_running_names_are_read_with_each_call() -> None:
    rate = compile_scalar("0.1 * 0.5 ** ((t - 1) // d)", {"d": 10}, ["t"])
    assert [rate({"t": t}) for t in (1, 10, 11, 21)] == [0.1, 0.1, 0.05, 0.025]


def test_a_running_fault_is_told_with_the_call() -> None:
    rate = compile_scalar("1 / (t - 3)", {}, ["t"])
    assert rate({"t": 1}) == -0.5
    with pytest.raises(LanguageError, match="division by zero"):
        rate({"t": 3})


def test_the_side_that_is_not_chosen_is_not_computed() -> None:
    rate = compile_scalar("1 / (t - 1) if t > 1 else 0", {}, ["t"])
    assert [rate({"t": 1}), rate({"t": 2})] == [0, 1.0]


def test_names_of_values_are_told_from_names_of_functions() -> None:
    assert names_in("sqrt(d) * rates[t] + min(a, b)") == {"d", "rates", "t", "a", "b"}


@pytest.mark.parametrize("text", ["1" + "+1" * 5_000, "(" * 500 + "1" + ")" * 500, "-" * 300 + "1", "9" * 60_000])
def test_a_scalar_expression_without_end_is_refused(text: str) -> None:
    with pytest.raises(LanguageError, match=r"nested too deeply|larger than 2\^63"):
        evaluate(text, {})


@pytest.mark.parametrize("limit", [1_000, 2_000, 4_000])
def test_whoever_sets_the_limit_of_recursion_an_endless_sum_is_refused(limit: int) -> None:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(limit)
    try:
        with pytest.raises(LanguageError, match="nested too deeply"):
            evaluate("1" + "+1" * 5_000, {})
    finally:
        sys.setrecursionlimit(before)


ATOMS = st.one_of(
    st.integers(-100, 100).map(str),
    st.floats(-1e3, 1e3, allow_nan=False).map(repr),
    st.sampled_from(["d", "heads", "rate", "flag", "pi", "inf", "2 ** 62", "10 ** 18", "nan"]),
)


def _composed(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    operators = ["+", "-", "*", "/", "//", "%", "**", "&", "|", "^", "<", "==", ">=", "and", "or"]
    return st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from(operators), inner),
        st.builds("({} if {} else {})".format, inner, inner, inner),
        st.builds("({}{})".format, st.sampled_from(["-", "+", "not ", "~"]), inner),
        st.builds("{}({})".format, st.sampled_from(sorted(FUNCTIONS)), inner),
        st.builds("{}({}, {})".format, st.sampled_from(sorted(FUNCTIONS)), inner, inner),
    )


EXPRESSIONS = st.recursive(ATOMS, _composed, max_leaves=12)


@settings(max_examples=tried(300))
@given(EXPRESSIONS)
def test_any_scalar_expression_is_pythons_number_or_a_language_error(text: str) -> None:
    try:
        found = evaluate(text, NAMES)
    except LanguageError:
        return
    names = {name: function for name, function in FUNCTIONS.items() if name not in _BUILTINS}
    expected = eval(
        text, {"__builtins__": {}, "pi": math.pi, "inf": math.inf, "nan": math.nan, **names, **_BUILTINS}, dict(NAMES)
    )
    assert type(found) is type(expected)
    assert found == expected or (math.isnan(found) and math.isnan(expected))


@given(st.text(max_size=40))
def test_any_text_is_a_number_or_a_language_error(text: str) -> None:
    try:
        found = evaluate(text, NAMES)
    except LanguageError:
        return
    assert isinstance(found, (int, float))
