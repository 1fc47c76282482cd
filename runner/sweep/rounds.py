"""Which points run next: all at once, or batches that depend on earlier results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from runner.config import Config, overridden
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
        return AllAtOnce(plan)
    scalars = plan.first.scalars
    return Sampled(plan.base, sampler_of(plan.sampler, plan.declared, plan.objective, scalars, plan.total, plan.batch))
