"""Operations that torch traces not at all or wrongly, in a form that a trace can contain.

Torch reads a number back for an index that is a tensor without dimensions, and for a covariance.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional

from runner.language.graph.covariance import corrcoef, cov
from runner.language.graph.multilabel import multilabel_margin_loss

_INTEGERS = frozenset((torch.int8, torch.int16, torch.int32, torch.int64))
"""Dtypes of an index; torch takes uint8 for a mask."""


def traceable(node: fx.Node) -> Callable[..., Any] | str:
    """The target of a node, or a function that computes the same and that torch traces."""
    if node.target is functional.multilabel_margin_loss:
        return multilabel_margin_loss
    name = node.target if isinstance(node.target, str) else _NAMES.get(node.target, "")
    if name in _READ_BACK and node.kwargs.get("fweights") is None and node.kwargs.get("aweights") is None:
        return _READ_BACK[name]
    if node.target is not operator.getitem or not isinstance(node.args[0], fx.Node):
        return node.target
    indexed = isinstance(node.args[0].meta["example"], Tensor) and any(map(_is_integer, _parts(node.args[1])))
    return at if indexed else node.target


_READ_BACK: Mapping[str, Callable[..., Tensor]] = {"cov": cov, "corrcoef": corrcoef}
"""Operations and methods without weights, and what computes the same."""

_NAMES: Mapping[Any, str] = {torch.cov: "cov", torch.corrcoef: "corrcoef"}


def is_index(node: fx.Node, number: fx.Node) -> bool:
    """Whether a running number, as an index of a tensor, is all that a node makes of it."""
    if traceable(node) is not at or type(number.meta["example"]) is not int:
        return False
    index = node.args[1]
    others = [part for part in _parts(index) if part is not number]
    within: list[fx.Node] = []
    fx.node.map_arg(others, within.append)
    return number not in within


def at(x: Tensor, index: Any) -> Tensor:
    """Computes `x[index]`. Integers in the index may be tensors without dimensions.

    Raises:
        IndexError, RuntimeError: such an integer is out of range.
    """
    parts = _parts(index)
    taken = [0 if _is_tensor(part) else part for part in parts]
    after = next((place for place, part in enumerate(parts) if part is ...), len(parts))
    for place, part in enumerate(parts):
        if _is_tensor(part):
            counted = parts[place:] if place > after else parts[:place]
            dim = sum(map(_dimensions, counted))
            x = _only(x, x.ndim - dim if place > after else dim, part)
    return x[tuple(taken)]


def _only(x: Tensor, dim: int, index: Tensor) -> Tensor:
    """The element at `index` of a dimension, which has size 1 in the result."""
    if not 0 <= dim < x.ndim:
        raise IndexError(f"too many indices for tensor of dimension {x.ndim}")
    number = index.to(torch.int64)
    return x.index_select(dim, torch.where(number < 0, number + x.shape[dim], number).reshape(1))


def _parts(index: Any) -> tuple[Any, ...]:
    """The parts of an index. A list is one part: it is an index of one dimension."""
    return index if isinstance(index, tuple) else (index,)


def _dimensions(part: Any) -> int:
    """How many dimensions of a tensor a part of an index takes."""
    if part is None or part is ... or isinstance(part, bool):
        return 0
    return part.ndim if isinstance(part, Tensor) and part.dtype in (torch.bool, torch.uint8) else 1


def _is_integer(part: Any) -> bool:
    """Whether a part of an index is a node of one integer."""
    if not isinstance(part, fx.Node):
        return False
    example = part.meta["example"]
    return type(example) is int or _is_tensor(example)


def _is_tensor(part: Any) -> bool:
    return isinstance(part, Tensor) and part.ndim == 0 and part.dtype in _INTEGERS
