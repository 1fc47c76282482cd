"""Results of torch operations: their shape as names, and whether two are the same bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def target(value: Any, names: list[str]) -> str:
    """Names for the values of a result, as the left side of an assignment."""
    if isinstance(value, (tuple, list)) and not isinstance(value, torch.Size):
        return f"({''.join(target(item, names) + ', ' for item in value)})"
    names.append(f"y{len(names)}")
    return names[-1]


def leaves(value: Any) -> list[Any]:
    if isinstance(value, (tuple, list)) and not isinstance(value, torch.Size):
        return [leaf for item in value for leaf in leaves(item)]
    return [tuple(value) if isinstance(value, torch.Size) else value]


def like(value: Any, leaves: Iterator[Any]) -> Any:
    """`leaves` in the shape of `value`, a named tuple as one of its own kind."""
    if isinstance(value, torch.Size) or not isinstance(value, (tuple, list)):
        return next(leaves)
    items = [like(item, leaves) for item in value]
    return type(value)(items)


def requires_grad(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def same(left: Any, right: Any) -> bool:
    """Bit-equal: dtype, shape, every element, the sign of zeros; NaN equals NaN."""
    if not isinstance(left, Tensor) or not isinstance(right, Tensor):
        return type(left) is type(right) and bool(left == right)
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if left.is_complex():
        parts = [torch.view_as_real(x.detach().resolve_conj()) for x in (left, right)]
        return same(*parts)
    if not left.is_floating_point():
        return torch.equal(left, right)
    left, right = left.detach(), right.detach()
    nan = left.isnan() & right.isnan()
    return bool((((left == right) & (left.signbit() == right.signbit())) | nan).all())
