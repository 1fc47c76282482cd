"""Where what was found stands: indices, against torch."""

from __future__ import annotations

import math

import pytest
import torch

from runner.engine.watch.reports import index_of


@pytest.mark.parametrize("shape", [(5,), (2, 3), (3, 1, 4, 2)])
def test_an_index_is_that_of_torch(shape: tuple[int, ...]) -> None:
    for place in range(math.prod(shape)):
        assert index_of(place, shape) == tuple(map(int, torch.unravel_index(torch.tensor(place), shape)))


def test_a_number_has_an_index_of_nothing() -> None:
    assert index_of(0, ()) == ()
