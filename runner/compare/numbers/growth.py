"""How the error of one tensor goes on from row to row: it stays, drifts, or jumps."""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from runner.plan.rows.columns import Column

ROUNDING_UNITS = 64.0
"""Units of rounding up to which an error is rounding rather than a mistake."""

GROWN = 4.0
"""How many times an earlier error a later one must be to have grown."""

LEAP = 100.0
"""How many times all errors before it one is that no rounding has grown to in a row."""

_GRADUAL = 10.0
_RECENT = 9

GrowthKind = Literal["drift", "rounding", "jump"]


@dataclass(frozen=True, slots=True)
class Leap:
    """A row from which on the error is of another size than in all rows before."""

    number: int
    before: float  # the largest error until then
    error: float


@dataclass(frozen=True, slots=True)
class Growth:
    """How the error of one tensor goes on: norm of the difference relative to that of what is expected.

    `drift`: it begins as rounding, or within the tolerance, and grows. `rounding`: it begins so and stays, but for rows
    here and there. `jump`: it is there at once, or begins so and leaps.
    """

    column: Column
    kind: GrowthKind
    before: float  # in the last row that held; 0 where the bits were equal
    first: float  # in the first row that differs
    last: float
    last_number: int
    largest: float
    largest_number: int
    leap: Leap | None = None  # of a jump that is not there at once


@dataclass(slots=True)
class Trace:
    """Errors as they come, and what of them tells a leap from a spike and growth from noise."""

    rounding: float  # the unit of it; see `bounds.rounding`
    level: float = 0.0  # the largest so far, but for a leap
    leap: Leap | None = None
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))

    def add(self, number: int, error: float) -> None:
        if math.isnan(error):
            return
        self.recent.append(error)
        if self.leap is not None:
            if error <= GROWN * self.leap.before:
                self.leap = None  # it was a spike
        elif self.level and error > LEAP * self.level and not self.is_rounding(error):
            self.leap = Leap(number, self.level, error)
        else:
            self.level = max(self.level, error)

    def is_rounding(self, error: float) -> bool:
        return error <= ROUNDING_UNITS * self.rounding

    def kind(self, before: float, first: float) -> GrowthKind:
        """What these errors are, given the one of the first row that differs and that of the row before."""
        gradual = before > 0 and first <= _GRADUAL * before
        if self.leap is not None or not (gradual or self.is_rounding(first)):
            return "jump"
        grown = self.level > GROWN * first and not self.is_rounding(self.level)
        return "drift" if gradual or grown or statistics.median(self.recent) > GROWN * first else "rounding"
