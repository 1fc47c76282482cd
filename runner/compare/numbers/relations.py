"""Simple relations between a wrong tensor and the expected one: a multiple, a transpose, a sum with an earlier one.

Each relation is a hint for the reader. It is reported only if it explains the whole of a difference larger than
rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from runner.compare.numbers.bounds import rounding

EXPLAINED = 1e-3
"""The fraction of a difference that a relation may leave unexplained."""
LARGEST_SORTED = 1 << 20
"""Larger tensors are not sorted to find whether they hold the same numbers in another order."""
_PART = 1 << 14
_LARGEST_COUNT = 1 << 24

Relation = Callable[[Tensor, Tensor], str | None]


def relation(found: Tensor, expected: Tensor) -> str | None:
    """The relation of `found` to `expected`, of one dtype, as the end of a sentence: "is 2 × the expected one".

    None if nothing simple explains the difference, or if it is rounding.
    """
    if not _is_real(found) or found.dtype != expected.dtype:
        return None
    if found.dim() == expected.dim() == 2 and found.shape == expected.shape[::-1] and torch.equal(found, expected.mT):
        return None if torch.equal(found, expected) else "is the expected one, transposed"
    if found.shape != expected.shape or found.numel() == 0:
        return None
    if found.numel() > LARGEST_SORTED and _related(_part(found), _part(expected)) is None:
        return None  # a relation that fails for a part fails for the whole
    return _related(found, expected)


def _part(tensor: Tensor) -> Tensor:
    return tensor.detach().reshape(-1)[:_PART]


def _related(found: Tensor, expected: Tensor) -> str | None:
    a, b = found.detach().to(torch.float64).reshape(-1), expected.detach().to(torch.float64).reshape(-1)
    if not (a.isfinite().all() and b.isfinite().all()) or _is_rounding(a, b, rounding(found.dtype)):
        return None
    return next((text for text in (each(a, b) for each in _RELATIONS) if text is not None), None)


def accumulated(found: Tensor, expected: Tensor, before: Tensor) -> bool:
    """Whether `found` is `expected + before`, as when gradients accumulate; `(*s)` of one real floating dtype."""
    if not (found.shape == expected.shape == before.shape) or not bool(before.any()):
        return False
    summed = expected.detach().to(torch.float64) + before.detach().to(torch.float64)
    return _explains(summed, found.detach().to(torch.float64), expected.detach().to(torch.float64))


def update_relation(found: Tensor, expected: Tensor, before: Tensor) -> str | None:
    """The relation of a weight's update to the expected update, both from `before`; all `(*s)` of one dtype."""
    if not _is_real(found) or not (found.shape == expected.shape == before.shape):
        return None
    if found.numel() > LARGEST_SORTED and _related_update(*map(_part, (found, expected, before))) is None:
        return None
    return _related_update(found, expected, before)


def _related_update(found: Tensor, expected: Tensor, before: Tensor) -> str | None:
    a, b, start = (tensor.detach().to(torch.float64).reshape(-1) for tensor in (found, expected, before))
    if torch.equal(a, start):
        return "there was no update"
    if torch.equal(b, start):
        return "there was an update where none was expected"
    if not all(bool(each.isfinite().all()) for each in (a, b, start)) or _is_rounding(a, b, rounding(found.dtype)):
        return None
    factor = _factor(a - start, b - start)
    if factor is not None and _explains(start + factor * (b - start), a, b):
        return f"the update is {_shown(factor)} × the expected one"
    share = _factor(a - b, start)
    if share is not None and start.numel() > 1 and _explains(b + share * start, a, b):
        return f"the updates differ by {share:.3g} × the weight itself, as weight decay does"
    return None


def _multiple(a: Tensor, b: Tensor) -> str | None:
    factor = _factor(a, b)
    if factor is None or not _explains(factor * b, a, b):
        return None
    if a.numel() == 1 and not _is_simple(factor):
        return None
    if factor == 0:
        return "is zero"
    return "is the expected one with the other sign" if factor == -1 else f"is {_shown(factor)} × the expected one"


def _shifted(a: Tensor, b: Tensor) -> str | None:
    shift = float((a - b).mean())
    if a.numel() < 3 or not _explains(b + shift, a, b):
        return None
    return f"is the expected one {'+' if shift > 0 else '-'} {abs(shift):.6g}"


def _reordered(a: Tensor, b: Tensor) -> str | None:
    if not 1 < a.numel() <= LARGEST_SORTED or not torch.equal(a.sort().values, b.sort().values):
        return None
    return "holds the expected numbers in another order"


_RELATIONS: tuple[Relation, ...] = (_multiple, _shifted, _reordered)


def _factor(a: Tensor, b: Tensor) -> float | None:
    """The factor that brings `b` nearest to `a`, rounded if it is almost round; None if float64 cannot represent it."""
    size = float(b @ b)
    factor = float(a @ b) / size if size else math.nan
    if not math.isfinite(factor):
        return None  # `b` is zero, or its squared norm is beyond the largest float64
    return next((round_one for round_one in _rounded(factor) if abs(round_one - factor) <= 1e-5 * abs(factor)), factor)


def _rounded(factor: float) -> Iterator[float]:
    yield float(round(factor))
    if factor and abs(1 / factor) < _LARGEST_COUNT:
        yield 1 / round(1 / factor) if round(1 / factor) else 0.0


def _is_simple(factor: float) -> bool:
    """Whether a factor between two single numbers is unlikely to be chance: an integer, or one over an integer."""
    return any(factor == each for each in _rounded(factor))


def _explains(candidate: Tensor, found: Tensor, expected: Tensor) -> bool:
    """Whether `candidate` equals `found`, up to a small fraction of the difference between `expected` and `found`."""
    distance = float(torch.linalg.vector_norm(found - expected))
    return float(torch.linalg.vector_norm(found - candidate)) <= EXPLAINED * distance


def _is_rounding(a: Tensor, b: Tensor, unit: float) -> bool:
    return float(torch.linalg.vector_norm(a - b)) <= 100 * unit * float(torch.linalg.vector_norm(b))


def _is_real(tensor: Tensor) -> bool:
    return tensor.dtype.is_floating_point


def _shown(factor: float) -> str:
    if 1 / _LARGEST_COUNT < abs(factor) < 1 and abs(1 / factor - round(1 / factor)) < 1e-9:
        return f"{'-' if factor < 0 else ''}1/{round(abs(1 / factor))}"
    return f"{factor:.5g}"
