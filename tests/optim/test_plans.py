"""Plans of optimizers: which shapes of a state broadcast."""

from __future__ import annotations

import itertools

import pytest
import torch

from runner.optim.plans import broadcasts

SHAPES = [shape for length in range(4) for shape in itertools.product((1, 2, 3), repeat=length)]


@pytest.mark.parametrize("target", [(), (1,), (3,), (2, 3), (1, 3), (3, 1, 2)])
def test_a_shape_broadcasts_where_torch_expands_it(target: tuple[int, ...]) -> None:
    for shape in SHAPES:
        try:
            torch.empty(shape).expand(target)
            expands = True
        except RuntimeError:
            expands = False
        assert broadcasts(shape, target) == expands, shape
