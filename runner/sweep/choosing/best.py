"""The best of some numbers while points run: a point that goes on has another number later."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field

from runner.sweep.choosing.objective import Objective


@dataclass(slots=True)
class Best:
    """The best of the newest numbers; among equal ones that of the lowest index."""

    objective: Objective
    _values: dict[int, float] = field(default_factory=dict)
    _queue: list[tuple[tuple[bool, float], int]] = field(default_factory=list)  # also of numbers that were replaced

    def add(self, index: int, value: float | None) -> None:
        """Replace the number of an index; None and NaN are no numbers."""
        if value is None or math.isnan(value):
            self._values.pop(index, None)
            return
        self._values[index] = value
        heapq.heappush(self._queue, (self.objective.key(value), index))

    @property
    def found(self) -> tuple[float, int] | None:
        """The best number and its index; None without a number."""
        while self._queue:
            key, index = self._queue[0]
            value = self._values.get(index)
            if value is not None and self.objective.key(value) == key:
                return value, index
            heapq.heappop(self._queue)
        return None
