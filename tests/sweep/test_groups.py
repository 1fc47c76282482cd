"""Groups of points whose objective is a mean over some axes."""

from __future__ import annotations

import math

import numpy
import pyarrow
import pytest

from runner.sweep.choosing.groups import groups_of
from runner.sweep.choosing.objective import Objective

RATES = [0.1, 0.2, 0.3, 0.4, 0.5]
LOSSES: dict[float, list[float | None]] = {
    0.1: [3.0, 5.0],
    0.2: [1.0, 2.0],
    0.3: [None, 0.0],
    0.4: [1.5, 1.5],
    0.5: [math.nan, 1.0],
}


@pytest.mark.parametrize(("minimize", "order"), [(True, [0.2, 0.4, 0.1]), (False, [0.1, 0.2, 0.4])])
def test_groups_are_ordered_by_their_means_and_equal_ones_by_their_first_point(
    minimize: bool, order: list[float]
) -> None:
    table = pyarrow.table(
        {
            "rate": [rate for seed in range(2) for rate in RATES],
            "seed": [seed for seed in range(2) for _ in RATES],
            "objective": [LOSSES[rate][seed] for seed in range(2) for rate in RATES],
        }
    )
    found = groups_of(table, ["rate", "seed"], Objective("loss", minimize, mean_over=("seed",)))
    assert found is not None
    assert (found.axes, found.over) == (("rate",), ("seed",))
    assert [group.values for group in found.groups[:3]] == [(rate,) for rate in order]
    assert {group.values for group in found.groups[3:]} == {(0.3,), (0.5,)}
    for group in found.groups[:3]:
        values = LOSSES[group.values[0]]
        assert group.mean == numpy.mean(values)
        assert group.deviation == pytest.approx(numpy.std(values, ddof=1))
        assert group.places == (RATES.index(group.values[0]), 5 + RATES.index(group.values[0]))
    assert {group.values: group.missing for group in found.groups if group.missing} == {(0.3,): 1}
