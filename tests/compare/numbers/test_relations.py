"""What a wrong tensor is to the right one: told where it is so, and never an exception."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.compare.numbers.relations import relation, update_relation
from tests.effort import tried
from tests.tables import over


def float64(numbers: list[float]) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


@over(
    ("found", "expected", "told"),
    [
        ([2.0, 4.0, 6.5], [1.0, 2.0, 3.25], "is 2 × the expected one"),
        ([0.5, 1.0, 2.0], [1.5, 3.0, 6.0], "is 1/3 × the expected one"),
        ([1.5, 3.0, 7.0], [1.0, 2.5, 6.5], "is the expected one + 0.5"),
        ([3.0, 1.0, 2.5], [1.0, 2.5, 3.0], "holds the expected numbers in another order"),
        ([1e200, 3e200], [1e200, 2e200], None),  # their squares are beyond float64
        ([1e-200, 3e-200], [1e-200, 2e-200], None),
    ],
)
def test_a_relation_is_told(found: list[float], expected: list[float], told: str | None) -> None:
    assert relation(float64(found), float64(expected)) == told


NUMBERS = st.one_of(st.floats(), st.sampled_from([0.0, -0.0, 1e-308, 5e-324, 1e308, 1e160, -1e160, math.nan, math.inf]))


@settings(max_examples=tried(300))
@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), max_size=4))
def test_any_numbers_have_a_relation_or_none(numbers: list[tuple[float, float, float]]) -> None:
    found, expected, before = (float64([each[side] for each in numbers]) for side in range(3))
    assert isinstance(relation(found, expected), str | None)
    assert isinstance(update_relation(found, expected, before), str | None)
