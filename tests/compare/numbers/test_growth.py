"""The errors of many rows are followed at once as they are one after another."""

from __future__ import annotations

import math

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.compare.numbers.growth import Trace

ERRORS = st.sampled_from([0.0, 1e-9, 1e-8, 3e-8, 1e-6, 1e-4, 1e-3, 0.5, 70.0, math.inf, math.nan])


def followed(errors: list[float], at_once: int) -> Trace:
    trace = Trace(rounding=1e-8)
    numbers = list(range(3, 3 + len(errors)))
    for start in range(0, len(errors), at_once):
        part = slice(start, start + at_once)
        if at_once == 1:
            trace.add(numbers[start], errors[start])
        else:
            trace.add_many(numpy.array(numbers[part]), numpy.array(errors[part]))
    return trace


@given(st.lists(ERRORS, max_size=60), st.integers(2, 70))
def test_many_rows_leave_the_trace_of_single_rows(errors: list[float], at_once: int) -> None:
    assert followed(errors, at_once) == followed(errors, 1)


@pytest.mark.parametrize("spikes", [1, 7, 8, 9, 100])
def test_spikes_beyond_those_found_at_once_are_followed_too(spikes: int) -> None:
    errors = [1e-7, *[1.0, 1e-7] * spikes, 5.0]
    assert followed(errors, len(errors)) == followed(errors, 1)
    assert followed(errors, len(errors)).leap is not None
