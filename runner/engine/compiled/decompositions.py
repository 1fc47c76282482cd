"""Decompositions of operations for inductor that refuse what torch refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor
from torch._inductor.decomposition import decompositions

_INDEX_SELECT = torch.ops.aten.index_select.default
_usual = decompositions[_INDEX_SELECT]


@contextmanager
def strict_decompositions() -> Iterator[None]:
    """Makes what is compiled within the block refuse a negative index of `index_select`.

    Inductor reads it as an index of `x[index]`, which counts from the end.
    """
    with mock.patch.dict(decompositions, {_INDEX_SELECT: _index_select}):
        yield


def _index_select(x: Tensor, dim: int, index: Tensor) -> Tensor:
    """`index_select` with an index that is out of bounds in place of a negative one."""
    size = x.shape[dim] if x.ndim else 1
    found: Tensor = _usual(x, dim, torch.where(index < 0, size, index))
    return found
