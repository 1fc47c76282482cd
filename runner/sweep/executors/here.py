"""Runs the points of a sweep in this process: lanes of a single chunk need no other one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from runner.sweep.executors.executor import Begun, Event
from runner.sweep.executors.settings import Settings
from runner.sweep.executors.work import run_tasks
from runner.sweep.points.outcome import Outcome
from runner.sweep.points.task import Task


class Here:
    """This process.

    Args:
        take_number: returns a number that no part file has.
    """

    def __init__(self, directory: Path, settings: Settings, take_number: Callable[[], int]) -> None:
        self._directory = directory
        self._settings = settings
        self.take_number = take_number

    def run(self, tasks: Sequence[Task]) -> Iterator[Event]:
        """Run points; yields the outcomes of those whose rows are on disk.

        Raises:
            OSError: a file cannot be written.
        """
        if not tasks:
            return
        before = torch.get_num_threads()
        torch.set_num_threads(self._settings.threads)
        try:
            yield from (Begun(task.index) for task in tasks)
            work, name = self._settings.work(self._directory), f"{self.take_number():06}"
            yield from run_tasks(work, tasks, name, lambda index: None, lambda: False)
        finally:
            torch.set_num_threads(before)

    def close(self) -> Sequence[Outcome]:
        """Nothing runs any more."""
        return []
