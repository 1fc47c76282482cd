"""Which points run next: all at once, or batches that depend on earlier results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Protocol

from runner.config import Config, overridden
from runner.sweep.choosing.objective import Objective, means
from runner.sweep.choosing.sampling import Sampler, sampler_of
from runner.sweep.planning import SweepPlan
from runner.sweep.points.identity import Identities
from runner.sweep.points.outcome import Outcome
from runner.sweep.points.space import Point
from runner.sweep.points.task import Task

Pairs = list[tuple[Point, Task]]


class Rounds(Protocol):
    """Gives the points of a sweep, round by round."""

    def next(self, outcomes: Mapping[int, Outcome]) -> Pairs:
        """The points of the next round; empty after the last.

        Args:
            outcomes: those of all points of earlier rounds, by index.
        """
        ...


@dataclass(slots=True)
class AllAtOnce:
    """One round with every point of a plan."""

    plan: SweepPlan
    given: bool = False

    def next(self, outcomes: Mapping[int, Outcome]) -> Pairs:
        """Every point, the first time."""
        pairs = [] if self.given else list(zip(self.plan.points, self.plan.tasks, strict=True))
        self.given = True
        return pairs


@dataclass(slots=True)
class Halved:
    """Rounds between which the worse points stop.

    Points are compared after an iteration of their last loop, all together. So the same points survive with any number
    of processes. Among equal points those with the lower index survive; failed and unmeasured points never do.
    """

    plan: SweepPlan
    objective: Objective
    at: tuple[int, ...]
    keep: Fraction
    rung: int = 0

    def next(self, outcomes: Mapping[int, Outcome]) -> Pairs:
        """The points that are left, until the next iteration at which they are compared."""
        if self.rung > len(self.at):
            return []
        pairs = list(zip(self.plan.points, self.plan.tasks, strict=True))
        if self.rung:
            alive = survivors(self.objective, self.plan.points, outcomes, self.rung - 1, self.keep)
            pairs = [(point, task) for point, task in pairs if point.index in alive]
        until = self.at[self.rung] if self.rung < len(self.at) else None
        rung = self.rung
        self.rung += 1
        return [
            (point, replace(task, rung=rung, until=until, state=outcomes[task.index].state if rung else None))
            for point, task in pairs
        ]


def survivors(
    objective: Objective, points: Sequence[Point], outcomes: Mapping[int, Outcome], rung: int, keep: Fraction
) -> set[int]:
    """The points that go on after a rung: the best `ceil(keep * n)` of those that took part.

    With `mean_over`, points that differ in these axes alone are compared by their mean, and stop together.
    """
    values = {point.index: point.values for point in points}
    there = {index: outcome for index, outcome in outcomes.items() if outcome.rung == rung}
    groups = means(objective, values, there)
    ranked = sorted(groups.values(), key=lambda group: (objective.key(group[0]), min(group[2])))
    kept = ranked[: math.ceil(keep * len(ranked))]
    return {index for _, _, members in kept for index in members if there[index].status == "paused"}


@dataclass(slots=True)
class Sampled:
    """Rounds that a sampler asks for."""

    base: Config
    sampler: Sampler
    identities: Identities = field(default_factory=Identities)

    def next(self, outcomes: Mapping[int, Outcome]) -> Pairs:
        """The next batch of the sampler."""
        return [(point, self._task(point)) for point in self.sampler.next(outcomes)]

    def _task(self, point: Point) -> Task:
        config = overridden(self.base, point.overrides)
        return Task(point.index, point.overrides, self.identities.of(config))


def rounds_of(plan: SweepPlan) -> Rounds:
    """The rounds of a sweep.

    Raises:
        UsageError: its sampler cannot be used.
    """
    if plan.sampler is None:
        return AllAtOnce(plan) if plan.halving is None else Halved(plan, *plan.halving)
    scalars = plan.first.scalars
    return Sampled(plan.base, sampler_of(plan.sampler, plan.declared, plan.objective, scalars, plan.total, plan.batch))
