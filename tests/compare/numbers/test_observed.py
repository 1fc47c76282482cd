"""A tensor against one of which a digest and statistics are stored."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from runner.compare.numbers.digested import condense
from runner.compare.numbers.observed import deviation, difference, is_same
from runner.compare.numbers.tolerances import BITWISE, BY_DTYPE

STORED = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])

OTHERS = [
    (STORED.double(), "dtype", "float32 [2, 3]", "float64 [2, 3]"),
    (STORED.T.contiguous(), "shape", "float32 [2, 3]", "float32 [3, 2]"),
    (STORED.double().flatten(), "shape", "float32 [2, 3]", "float64 [6]"),
    (None, "missing", "float32 [2, 3]", None),
]


@pytest.mark.parametrize("statistics", [False, True])
@pytest.mark.parametrize(("found", "kind", "expected", "shown"), OTHERS)
def test_another_shape_or_dtype_differs_whatever_the_values(
    found: Tensor | None, kind: str, expected: str, shown: str | None, statistics: bool
) -> None:
    stored = condense(STORED, statistics=statistics)
    for tolerance in (BITWISE, BY_DTYPE):
        told = difference(found, stored, tolerance, 6.0)
        assert told is not None
        assert (told.kind, told.expected, told.found) == (kind, expected, shown)
    assert found is None or not is_same(found, stored)


def test_a_stored_digest_is_of_every_bit() -> None:
    stored = condense(STORED, statistics=True)
    assert is_same(STORED.clone(), stored)
    assert difference(STORED.clone(), stored, BITWISE, 6.0) is None
    near = STORED.clone()
    near[1, 2] = 6.000001
    assert not is_same(near, stored)
    told = difference(near, stored, BITWISE, 6.0)
    assert told is not None
    assert told.kind == "digest"
    assert difference(near, stored, BY_DTYPE, 6.0) is None
    assert deviation(near, stored, BITWISE, 6.0).beyond
