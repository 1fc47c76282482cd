"""What runs the points of a sweep: the interface of all executors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from runner.sweep.points.outcome import Outcome
from runner.sweep.points.task import Task


@dataclass(frozen=True, slots=True)
class Begun:
    """A point has begun."""

    index: int


Event = Begun | Sequence[Outcome]
"""A point has begun, or points have ended and their rows are on disk."""


def lost(task: Task, reason: str) -> Outcome:
    """The outcome of a point whose process has ended or was ended: it has failed, without rows of this rung."""
    alone = task.alone or None
    return Outcome(
        task.index,
        task.identity,
        task.overrides,
        "failed",
        0.0,
        failure=reason,
        warning=task.warning,
        alone=alone,
        rung=task.rung,
    )


class Executor(Protocol):
    """Runs points, and writes their rows to part files of the sweep directory."""

    def run(self, tasks: Sequence[Task]) -> Iterator[Event]:
        """Run points, and yield what happens to them.

        Raises:
            OSError: a file cannot be written, for instance because the disk is full.
        """
        ...

    def take_number(self) -> int:
        """A number that no part file has."""
        ...

    def close(self) -> Sequence[Outcome]:
        """End what still runs; returns the outcomes that were still written."""
        ...
