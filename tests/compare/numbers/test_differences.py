"""Differences of tensors, against torch.testing and arithmetic by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from runner.compare.numbers import differences
from runner.compare.numbers.differences import deviation, difference
from runner.compare.numbers.tolerances import BITWISE, BY_DTYPE, CHUNK, Tolerance, Tolerances, root_mean_square
from runner.plan.rows.columns import Column, Role
from tests.tables import over

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
DTYPES = [
    *FLOATS,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.complex64,
    torch.complex128,
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint16,
    torch.uint32,
    torch.uint64,
]


def explicit(rtol: float = 0.0, atol: float = 0.0) -> Tolerance:
    return Tolerance("explicit", rtol, atol)


@over("dtype", DTYPES)
@over("tolerance", [BITWISE, BY_DTYPE, Tolerance("ulp", ulp=3), explicit(1e-3, 1e-3)])
def test_a_tensor_does_not_differ_from_its_copy(dtype: torch.dtype, tolerance: Tolerance) -> None:
    for shape in ((), (0,), (5,), (2, 3)):
        value = (torch.arange(math.prod(shape)).reshape(shape) + 1).to(dtype)
        assert difference(value.clone(), value, tolerance) is None


@over("dtype", DTYPES)
def test_one_changed_element_is_found_in_any_dtype(dtype: torch.dtype) -> None:
    expected = torch.ones(2, 3, 4).to(dtype)
    found = expected.clone()
    found[1, 2, 0] = 0
    told = difference(found, expected, BY_DTYPE)
    assert told is not None
    assert told.kind == "value"
    assert told.values is not None
    assert (told.values.worst.index, told.values.first.index) == ((1, 2, 0), (1, 2, 0))
    assert (told.values.count, told.values.elements, told.values.share) == (1, 24, 1 / 24)
    assert (told.values.worst.expected, told.values.worst.found) == (1, 0)
    assert told.values.worst.absolute == told.values.worst.relative == 1


def test_the_worst_element_is_the_farthest_and_the_first_comes_first() -> None:
    expected = torch.tensor([1.0, 10.0, 100.0, 1000.0])
    found = torch.tensor([1.0, 10.5, 101.0, 1000.25])
    told = difference(found, expected, BITWISE)
    assert told is not None
    assert told.values is not None
    assert told.values.first.index == (1,)
    assert told.values.worst.index == (2,)
    assert told.values.worst.absolute == 1.0
    assert told.values.worst.relative == 0.01
    assert told.values.worst.ulps == 1 << 17  # the numbers from 64 to 128 are 2**-17 apart
    assert told.values.count == 3
    assert told.values.error == pytest.approx(math.sqrt(0.5**2 + 1 + 0.25**2) / math.sqrt(1 + 100 + 1e4 + 1e6))


def test_elements_beyond_the_first_chunk_have_their_own_places() -> None:
    expected = torch.zeros(2, CHUNK + 3)
    found = expected.clone()
    found[1, 5] = 1.0
    found[1, CHUNK + 1] = -2.0
    told = difference(found, expected, BITWISE)
    assert told is not None
    assert told.values is not None
    assert (told.values.first.index, told.values.worst.index) == ((1, 5), (1, CHUNK + 1))
    assert told.values.count == 2


ELEMENTS = st.one_of(
    st.floats(width=32), st.sampled_from([0.0, -0.0, 1.0, 1.0000001, math.inf, -math.inf, math.nan, 1e-40])
)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    expected = draw(st.lists(ELEMENTS, min_size=1, max_size=8))
    found = [draw(st.one_of(st.just(number), ELEMENTS, st.just(number * 1.000001))) for number in expected]
    return torch.tensor(found, dtype=torch.float32), torch.tensor(expected, dtype=torch.float32)


@given(pairs(), st.sampled_from([0.0, 1e-6, 0.1]), st.sampled_from([0.0, 1e-7, 0.5]))
def test_it_holds_where_torch_testing_holds(pair: tuple[Tensor, Tensor], rtol: float, atol: float) -> None:
    found, expected = (tensor.to(torch.float64) for tensor in pair)  # torch rounds the allowance in the own dtype
    assert (difference(found, expected, explicit(rtol, atol)) is None) == is_close(found, expected, rtol, atol)


@given(pairs())
def test_the_smallest_tolerances_pass_and_a_smaller_one_does_not(pair: tuple[Tensor, Tensor]) -> None:
    found, expected = pair
    told = difference(found, expected, explicit())
    if told is None:
        return
    assert told.values is not None
    passing = told.values.passing
    for needed, make in (
        (passing.rtol, lambda number: explicit(rtol=number)),
        (passing.atol, lambda number: explicit(atol=number)),
    ):
        if needed is not None:
            assert difference(found, expected, make(needed)) is None
            assert difference(found, expected, make(needed * (1 - 1e-9))) is not None
    if passing.ulp is not None:
        assert difference(found, expected, Tolerance("ulp", ulp=passing.ulp)) is None
        assert passing.ulp == 0 or difference(found, expected, Tolerance("ulp", ulp=passing.ulp - 1)) is not None
    unlike = found.isnan() ^ expected.isnan()
    unlike |= (found.isinf() | expected.isinf()) & (found != expected) & ~(found.isnan() & expected.isnan())
    assert (passing.atol is None) == bool(unlike.any())


def test_the_smallest_rtol_is_that_beside_the_given_atol() -> None:
    told = difference(torch.tensor([1.5]), torch.tensor([1.0]), explicit(rtol=0.1, atol=0.25))
    assert told is not None
    assert told.values is not None
    assert told.values.passing.rtol == pytest.approx(0.25)
    assert told.values.passing.beside_atol == 0.25
    assert told.values.passing.atol == pytest.approx(0.5)


@pytest.mark.parametrize("tolerance", [BY_DTYPE, Tolerance("ulp", ulp=1000), explicit(1.0, 1.0)], ids=str)
def test_nan_must_stand_in_its_place(tolerance: Tolerance) -> None:
    expected = torch.tensor([math.nan, 1.0, math.inf])
    assert difference(expected.clone(), expected, tolerance) is None
    for place, number in ((0, 1.0), (1, math.nan), (2, math.nan), (2, -math.inf), (1, math.inf)):
        found = expected.clone()
        found[place] = number
        told = difference(found, expected, tolerance)
        assert told is not None
        assert told.values is not None
        assert told.values.worst.index == (place,)
        assert told.values.passing.atol is None


def test_zeros_of_either_sign_and_payloads_of_nan_differ_bit_for_bit_alone() -> None:
    payload = torch.tensor([0, 0x7FC00001], dtype=torch.int32).view(torch.float32)
    found, expected = torch.tensor([-0.0, math.nan]), payload
    assert difference(found, expected, explicit()) is None
    assert difference(found, expected, Tolerance("ulp")) is None
    told = difference(found, expected, BITWISE)
    assert told is not None
    assert told.values is not None
    assert (told.values.count, told.values.unequal) == (2, 0)
    assert told.values.passing.atol == 0.0
    assert told.values.worst.absolute == 0.0


@pytest.mark.parametrize(
    ("expected", "found"),
    [(2**62, 2**62 + 1), (-(2**63), -(2**63) + 3), (-(2**63), 2**63 - 1), (0, -(2**40))],
)
def test_large_integers_are_told_apart_exactly(expected: int, found: int) -> None:
    told = difference(torch.tensor([7, found]), torch.tensor([7, expected]), BY_DTYPE)
    assert told is not None
    assert told.values is not None
    assert (told.values.worst.expected, told.values.worst.found) == (expected, found)
    assert told.values.worst.absolute == float(abs(found - expected))
    assert told.values.worst.ulps is None


@pytest.mark.parametrize(
    ("found", "expected", "kind", "told"),
    [
        (None, torch.zeros(2, 3), "missing", ("float32 [2, 3]", None)),
        (torch.zeros(()), None, "new", (None, "float32 []")),
        (torch.zeros(2), torch.zeros(2, dtype=torch.float64), "dtype", ("float64 [2]", "float32 [2]")),
        (torch.zeros(2), torch.zeros(3, dtype=torch.float64), "shape", ("float64 [3]", "float32 [2]")),
        (torch.zeros(2, 1), torch.zeros(1, 2), "shape", ("float32 [1, 2]", "float32 [2, 1]")),
    ],
)
def test_being_there_dtype_and_shape_come_before_values(found: Any, expected: Any, kind: str, told: Any) -> None:
    for tolerance in (BITWISE, BY_DTYPE, explicit(math.inf, math.inf)):
        seen = difference(found, expected, tolerance)
        assert seen is not None
        assert (seen.kind, seen.values, (seen.expected, seen.found)) == (kind, None, told)


def test_nothing_in_both_places_is_no_difference() -> None:
    assert difference(None, None, BITWISE) is None


# --- tolerances


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_the_dtype_tolerance_is_five_times_that_of_torch_testing(dtype: torch.dtype) -> None:
    one = torch.ones(4, dtype=torch.float64)
    bounds = BY_DTYPE.bounds(one.to(dtype))
    for factor, holds in ((0.999, True), (1.001, False)):
        rtol, atol = bounds.rtol / 5, bounds.atol / 5
        found = one + factor * (rtol + atol)
        if holds:
            torch.testing.assert_close(found, one, rtol=rtol, atol=atol)
        else:
            with pytest.raises(AssertionError, match="not close"):
                torch.testing.assert_close(found, one, rtol=rtol, atol=atol)
    table = rf"up to {bounds.atol / 5:g} allowed\)[\s\S]*up to {bounds.rtol / 5:g} allowed"
    with pytest.raises(AssertionError, match=table):
        torch.testing.assert_close(one.to(dtype) * 2, one.to(dtype))


def test_a_small_gradient_cannot_hide_under_an_absolute_tolerance() -> None:
    expected = torch.full((100,), 1e-7)
    found = expected * 1.01
    column = Column("w.grad", "gradient", torch.float32, (100,))
    assert difference(found, expected, BY_DTYPE) is None
    assert difference(found, expected, Tolerances(BY_DTYPE)(column)) is not None
    assert difference(found, expected, Tolerances(explicit(atol=1e-3))(column)) is not None


def test_cancellation_in_a_large_gradient_is_allowed_for() -> None:
    expected = torch.tensor([1e6, 1.0])
    found = torch.tensor([1e6, 1.05])
    assert difference(found, expected, BY_DTYPE) is not None
    assert difference(found, expected, Tolerance("dtype", scaled=True)) is None


def test_a_gradient_at_a_minimum_is_measured_by_what_it_was() -> None:
    scaled = Tolerance("dtype", scaled=True)
    expected, found = torch.tensor([1e-8, -2e-8]), torch.tensor([3e-8, 1e-8])
    assert difference(found, expected, scaled) is not None
    assert difference(found, expected, scaled, largest=1.0) is None


ROLES: list[tuple[str, Role]] = [("w", "weight"), ("w.grad", "gradient"), ("loss", "value"), ("w.exp_avg", "state")]


def test_the_first_glob_that_matches_gives_the_tolerance() -> None:
    tolerances = Tolerances(BY_DTYPE, [("w.grad", explicit(atol=1.0)), ("w*", Tolerance("ulp", ulp=2)), ("*", BITWISE)])
    given_for = {name: tolerances(Column(name, role, torch.float32, ())) for name, role in ROLES}
    assert given_for == {
        "w": Tolerance("ulp", ulp=2),
        "w.grad": explicit(atol=1.0),  # meant as it is written
        "loss": BITWISE,
        "w.exp_avg": Tolerance("ulp", ulp=2),
    }


def test_only_gradients_are_scaled() -> None:
    for default in (BY_DTYPE, explicit(atol=0.1)):
        scaled = [name for name, role in ROLES if Tolerances(default)(Column(name, role, torch.float32, ())).scaled]
        assert scaled == ["w.grad"]
    assert not Tolerances(BITWISE)(Column("w.grad", "gradient", torch.float32, ())).scaled
    assert Tolerances(BITWISE, [("*.grad", BY_DTYPE)])(Column("w.grad", "gradient", torch.float32, ())).scaled


def test_statistics_are_held_by_the_dtype_of_their_tensor() -> None:
    of = Column("w.grad", "gradient", torch.float32, (3,), "stats")
    mean = Column("w.grad.mean", "gradient", torch.float64, (), of=of)
    found = Tolerances(BY_DTYPE)(mean)
    assert (found.mode, found.scaled) == ("explicit", True)
    assert (found.rtol, found.atol) == pytest.approx((5 * 1.3e-6, 5 * 1e-5))
    assert Tolerances(BY_DTYPE)(Column("w.zeros", "weight", torch.int64, (), of=of)) == BY_DTYPE
    digest = Column("w.digest", "weight", torch.uint8, (8,), of=Column("w", "weight", torch.float32, (3,), "digest"))
    assert Tolerances(explicit(atol=300.0))(digest) == BITWISE


@over("dtype", [*FLOATS, torch.complex64, torch.int32])
def test_the_root_mean_square_is_the_norm_over_the_root_of_the_count(dtype: torch.dtype) -> None:
    value = torch.tensor([3, -4, 0, 12]).to(dtype)
    assert root_mean_square(value) == pytest.approx(13 / 2)
    assert root_mean_square(torch.zeros(0, dtype=dtype)) == 0.0


def test_the_root_mean_square_leaves_out_what_is_not_finite() -> None:
    assert root_mean_square(torch.tensor([3.0, math.nan, 4.0, math.inf])) == pytest.approx(5 / math.sqrt(2))


@given(pairs(), st.sampled_from([BITWISE, BY_DTYPE, Tolerance("ulp", ulp=4), explicit(0.1), explicit(0.0, 0.1)]))
def test_a_deviation_says_what_the_difference_says(pair: tuple[Tensor, Tensor], tolerance: Tolerance) -> None:
    told, deviates = difference(*pair, tolerance), deviation(*pair, tolerance)
    assert deviates.beyond == (told is not None)
    assert told is None or told.values is None or told.values.error == deviates.error


@over(
    ("found", "expected", "error"),
    [
        ([3.0, 4.5], [3.0, 4.0], 0.1),
        ([math.nan, 1.0], [math.nan, 1.0], 0.0),
        ([math.nan, 1.0], [1.0, 1.0], math.inf),
        ([math.inf, 4.0], [math.inf, 2.0], 1.0),
        ([1.0], [0.0], math.inf),
        ([0.0], [0.0], 0.0),
    ],
)
def test_the_error_is_a_ratio_of_norms(found: list[float], expected: list[float], error: float) -> None:
    deviates = deviation(torch.tensor(found), torch.tensor(expected), BY_DTYPE)
    assert deviates.error == pytest.approx(error)


def test_what_is_not_there_deviates_beyond_any_number() -> None:
    one = torch.ones(2)
    assert deviation(None, None, BITWISE).beyond is False
    for found, expected in ((None, one), (one, None), (one, torch.ones(3)), (one, one.double())):
        assert deviation(found, expected, explicit(math.inf, math.inf)).error == math.inf


def is_close(found: Tensor, expected: Tensor, rtol: float, atol: float) -> bool:
    try:
        torch.testing.assert_close(found, expected, rtol=rtol, atol=atol, equal_nan=True)
    except AssertionError:
        return False
    return True


def test_a_large_difference_is_looked_through_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = differences.absolute_differences

    def counted(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        seen.append(left.numel())
        return original(left, right)

    monkeypatch.setattr(differences, "absolute_differences", counted)
    expected = torch.ones(20 * CHUNK)
    assert difference(expected * 2, expected, BITWISE) is not None
    assert sum(seen) == 20 * CHUNK + 2  # once over all, then the worst element and the first
    assert max(seen) == CHUNK
    seen.clear()
    found = expected.clone()
    found[7 * CHUNK] = 3
    assert difference(found, expected, BITWISE) is not None
    assert sum(seen) == CHUNK + 2  # parts whose bits agree are not looked at


def test_of_elements_that_are_as_far_off_the_first_is_the_worst() -> None:
    for expected in (torch.zeros(5), torch.zeros(2 * CHUNK)):
        found = expected.clone()
        found[1], found[-1] = 1.0, -1.0
        told = difference(found, expected, BITWISE)
        assert told is not None
        assert told.values is not None
        assert told.values.worst.index == (1,)
