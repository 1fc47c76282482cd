"""Runs points as lanes where they qualify, and the others in a pool of processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from runner.sweep.executors.executor import Event, Executor
from runner.sweep.executors.here import Here
from runner.sweep.lanes.grouping import Grouping
from runner.sweep.points.outcome import Outcome
from runner.sweep.points.task import Task


class Lanes:
    """Gives points to this process or to a pool.

    A single chunk runs here, because a new process takes seconds to import torch. Several run in the pool.

    Args:
        here: runs chunks in this process; None if each has to run in a process that can be ended.
    """

    def __init__(self, grouping: Grouping, here: Here | None, pool: Executor) -> None:
        self._grouping = grouping
        self._pool = pool
        self._here = here

    def run(self, tasks: Sequence[Task]) -> Iterator[Event]:
        """Run points, and yield what happens to them.

        Raises:
            OSError: a file cannot be written.
        """
        grouped = self._grouping.grouped(tasks)
        stacked = [task for task in grouped if task.chunk]
        if self._here is not None and (self._grouping.jobs == 1 or len({task.chunk for task in stacked}) == 1):
            yield from self._here.run(stacked)
            grouped = grouped[len(stacked) :]
        if grouped:
            yield from self._pool.run(grouped)

    def take_number(self) -> int:
        """A number that no part file has."""
        return self._pool.take_number()

    def close(self) -> Sequence[Outcome]:
        """End what still runs."""
        return self._pool.close()
