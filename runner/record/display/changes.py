"""What a step changed: which columns of a row have another value than before, and by how much."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runner.engine.rows import Row

_DIGITS = 4
"""Significant digits of a change."""


@dataclass(frozen=True, slots=True)
class Change:
    """How the value of a column differs from the one before."""

    differs: bool | None  # None: there is none before
    by: str = ""  # of a single number, as `-0.1`


FIRST, UNCHANGED, CHANGED = Change(None), Change(False), Change(True)


class Changes:
    """Compares each row with the rows before it; nothing in the first row counts as a change.

    A value that a row lacks, because its step does not compute it, leaves the known value as it is. A weight or a
    gradient that is missing is a change.
    """

    def __init__(self, lasting: Sequence[bool]) -> None:
        """`lasting`: of each column, whether a missing value means that there is none."""
        self._lasting = lasting
        self._known: list[Tensor | None] | None = None

    def of(self, row: Row) -> list[Change]:
        """The change of each column of the next row."""
        values = row.values
        if self._known is None:
            self._known = list(values)
            return [FIRST] * len(values)
        found = []
        for position, value in enumerate(values):
            if value is None and not self._lasting[position]:
                found.append(UNCHANGED)
                continue
            found.append(_change(self._known[position], value))
            self._known[position] = value
        return found


def _change(before: Tensor | None, now: Tensor | None) -> Change:
    if before is now:
        return UNCHANGED
    if before is None or now is None:
        return CHANGED
    if _bits_equal(before, now):
        return UNCHANGED
    return Change(True, _difference(before, now))


def _bits_equal(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    return one.numel() == 0 or bool(torch.equal(_bytes(one), _bytes(other)))


def _bytes(value: Tensor) -> Tensor:
    return value.detach().resolve_conj().resolve_neg().reshape(-1).contiguous().view(torch.uint8)


def _difference(before: Tensor, now: Tensor) -> str:
    """The change of a single real number; empty for anything else, or if it is not finite."""
    if now.numel() != 1 or now.is_complex() or now.dtype == torch.bool:
        return ""
    first, second = before.item(), now.item()
    change = second - first
    if not math.isfinite(change) or not change:
        return ""
    return f"{change:+,d}" if isinstance(change, int) else f"{change:+.{_DIGITS}g}"
