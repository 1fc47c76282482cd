"""The objective of a sweep: a number for each point, and which is better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.config.sweep_models import SweepObjective
from runner.sweep.points.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Objective:
    """What a sweep looks for."""

    column: str
    minimize: bool
    over: str = "last"  # last, best or mean(n)
    mean_over: tuple[str, ...] = ()

    @property
    def recent(self) -> int:
        """The number of last values that `over: mean(n)` needs."""
        return int(self.over.removeprefix("mean(").removesuffix(")")) if self.over.startswith("mean(") else 0

    def of(self, outcome: Outcome) -> float | None:
        """The objective of a point; None if it failed or was not measured."""
        if outcome.status == "failed":
            return None
        if self.recent:
            recent = outcome.recent[-self.recent :]
            return math.fsum(recent) / len(recent) if recent else None
        last, least, most = outcome.scalars.get(self.column, (None, None, None))
        return last if self.over == "last" else least if self.minimize else most

    def key(self, value: float | None) -> tuple[bool, float]:
        """A key that sorts the best first; NaN and None last."""
        if value is None or math.isnan(value):
            return (True, 0.0)
        return (False, value if self.minimize else -value)


def objective_of(declared: SweepObjective | None) -> Objective | None:
    """The objective that a config declares."""
    if declared is None:
        return None
    return Objective(declared.column, declared.smaller_is_better, declared.over, declared.mean_over or ())


def means(
    objective: Objective, values: Mapping[int, Mapping[str, Any]], outcomes: Mapping[int, Outcome]
) -> dict[tuple[Any, ...], tuple[float | None, float | None, Sequence[int]]]:
    """The mean and standard deviation of the objective over the axes in `mean_over`, for each remaining setting.

    Args:
        values: the values of each point, by index.
    Returns:
        for each setting, as pairs of path and value, the mean, the deviation (n - 1) and the points. Both are None
        if a point of the setting was not measured.
    """
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index in outcomes:
        setting = tuple(
            (path, repr(value)) for path, value in values[index].items() if not averaged(path, objective.mean_over)
        )
        groups.setdefault(setting, []).append(index)
    found: dict[tuple[Any, ...], tuple[float | None, float | None, Sequence[int]]] = {}
    for setting, members in groups.items():
        found[setting] = (*mean_of([objective.of(outcomes[index]) for index in members]), members)
    return found


def mean_of(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """The mean of the objectives of some points, and their sample standard deviation; None if one is missing."""
    numbers = [value for value in values if value is not None]
    mean = math.fsum(numbers) / len(numbers) if len(numbers) == len(values) and numbers else None
    return mean, deviation(numbers, mean)


def averaged(path: str, axes: Sequence[str]) -> bool:
    """Whether an axis is one of some names: its path, or the last part of it."""
    return path in axes or path.rpartition(".")[2] in axes


def deviation(numbers: Sequence[float], mean: float | None) -> float | None:
    """The sample standard deviation; None for less than two numbers."""
    if mean is None or len(numbers) < 2:
        return None
    return math.sqrt(math.fsum((number - mean) ** 2 for number in numbers) / (len(numbers) - 1))
