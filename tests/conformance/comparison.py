"""Whether what a run found is what a case's source states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Difference:
    """One result that is not within its tolerance."""

    key: str
    reason: str

    def __str__(self) -> str:
        return f"{self.key}: {self.reason}"


def differences(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: Mapping[str, Any]
) -> list[Difference]:
    """Every expected result that `found` misses: absent, of another shape, or too far away.

    An element is near enough where |found - expected| <= atol + rtol * |expected|; booleans are exact,
    NaN equals NaN, and an infinity only itself. `tolerance["items"][key]` stands before `tolerance`.
    """
    missed = []
    for key, value in expected.items():
        limits = (tolerance.get("items") or {}).get(key, tolerance)
        reason = _fault(found[key], value, limits) if key in found else "not found"
        if reason is not None:
            missed.append(Difference(key, reason))
    return missed


def _fault(found: Tensor, expected: Tensor, limits: Mapping[str, float]) -> str | None:
    if tuple(found.shape) != tuple(expected.shape):
        return f"shape {tuple(found.shape)}, expected {tuple(expected.shape)}"
    if torch.bool in (found.dtype, expected.dtype):
        return None if torch.equal(found.bool(), expected.bool()) else f"{found.tolist()}, expected {expected.tolist()}"
    found, expected = found.double(), expected.double()
    same = (found == expected) | (found.isnan() & expected.isnan())
    near = (found - expected).abs() <= limits["atol"] + limits["rtol"] * expected.abs()
    wrong = ~(same | (near & found.isfinite() & expected.isfinite()))
    if not wrong.any():
        return None
    where = tuple(int(index) for index in wrong.nonzero()[0])
    return f"{int(wrong.sum())} of {wrong.numel()} elements, first {where}: {found[where]}, expected {expected[where]}"


def same_bits(found: Tensor, expected: Tensor) -> bool:
    """Whether two tensors agree in dtype, shape and every element, NaN equal to NaN, 0.0 apart from -0.0."""
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    if not found.is_floating_point():
        return torch.equal(found, expected)
    same = (found == expected) & (found.signbit() == expected.signbit()) | (found.isnan() & expected.isnan())
    return bool(same.all())
