"""How the error of a tensor develops from row to row: it stays at rounding, drifts, or jumps."""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

import numpy

from runner.plan.rows.columns import Column

ROUNDING_UNITS = 64.0
"""An error of at most this many units of rounding is rounding rather than a mistake."""

GROWN = 4.0
"""A later error counts as grown if it is more than this many times an earlier one."""

LEAP = 100.0
"""An error this many times larger than every earlier one is a jump: rounding does not grow so much in one row."""

_GRADUAL = 10.0
_RECENT = 9
_FEW = 16
"""The most jumps and returns of some rows that are found in all of them at once; further ones row by row."""

GrowthKind = Literal["drift", "rounding", "jump"]


@dataclass(frozen=True, slots=True)
class Leap:
    """The row at which an error becomes much larger than in all earlier rows."""

    number: int
    before: float  # the largest error in earlier rows
    error: float


@dataclass(frozen=True, slots=True)
class Growth:
    """How the error of one tensor develops: the norm of the difference relative to that of the expected tensor.

    `drift`: the error begins as rounding, or within the tolerance, and grows. `rounding`: it begins so and does not
    grow, except in isolated rows. `jump`: it is large in the first row that differs, or begins as rounding and jumps.
    """

    column: Column
    kind: GrowthKind
    before: float  # the error in the last row within the tolerance; 0 if the bits were equal
    first: float  # the error in the first row that differs
    last: float
    last_number: int
    largest: float
    largest_number: int
    leap: Leap | None = None  # the jump, if it is after the first row that differs


@dataclass(slots=True)
class Trace:
    """The errors of a tensor so far: separates a jump from a spike, and growth from noise."""

    rounding: float  # the unit of rounding; see `bounds.rounding`
    level: float = 0.0  # the largest error so far, except after a jump
    leap: Leap | None = None
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))

    def add(self, number: int, error: float) -> None:
        if not math.isnan(error):
            self.recent.append(error)
            self._follow(number, error)

    def add_many(self, numbers: numpy.ndarray, errors: numpy.ndarray) -> None:
        """Add many rows: int64 and float64 `(rows,)`."""
        known = ~numpy.isnan(errors)
        numbers, errors = numbers[known], errors[known]
        self.recent.extend(errors[-_RECENT:].tolist())
        start = 0
        for _ in range(_FEW):
            rest = errors[start:]
            if self.leap is not None:
                ends = rest <= GROWN * self.leap.before
                if not ends.any():
                    return
                self.leap = None
                start += int(ends.argmax()) + 1
                continue
            levels = numpy.maximum.accumulate(numpy.concatenate(([self.level], rest)))
            before = levels[:-1]
            leaps = (before > 0) & (rest > LEAP * before) & (rest > ROUNDING_UNITS * self.rounding)
            if not leaps.any():
                self.level = float(levels[-1])
                return
            first = int(leaps.argmax())
            self.level = float(before[first])
            self.leap = Leap(int(numbers[start + first]), self.level, float(rest[first]))
            start += first + 1
        for number, error in zip(numbers[start:].tolist(), errors[start:].tolist(), strict=True):
            self._follow(number, error)

    def _follow(self, number: int, error: float) -> None:
        if self.leap is not None:
            if error <= GROWN * self.leap.before:
                self.leap = None  # the error went back: it was a spike
        elif self.level and error > LEAP * self.level and not self.is_rounding(error):
            self.leap = Leap(number, self.level, error)
        else:
            self.level = max(self.level, error)

    def add_zeros(self, rows: int) -> None:
        """Add rows without an error."""
        self.recent.extend([0.0] * min(rows, _RECENT))
        self.leap = None  # as in `add`

    def is_rounding(self, error: float) -> bool:
        return error <= ROUNDING_UNITS * self.rounding

    def kind(self, before: float, first: float) -> GrowthKind:
        """Classifies the errors so far; `first` is that of the first differing row, `before` that of the row before."""
        gradual = before > 0 and first <= _GRADUAL * before
        if self.leap is not None or not (gradual or self.is_rounding(first)):
            return "jump"
        grown = self.level > GROWN * first and not self.is_rounding(self.level)
        return "drift" if gradual or grown or statistics.median(self.recent) > GROWN * first else "rounding"
