"""Runs the points of a sweep as tasks of a Ray cluster. Its nodes share the file system of the sweep directory.

Only paths and outcomes travel through Ray; rows go to part files, as everywhere.
"""

from __future__ import annotations

import importlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from runner.errors import Problem, UsageError
from runner.sweep.executors.executor import Event, lost
from runner.sweep.executors.settings import Settings
from runner.sweep.executors.work import run_tasks
from runner.sweep.lanes.grouping import DIED, Grouping
from runner.sweep.points.outcome import Outcome
from runner.sweep.points.task import Task

IN_FLIGHT = 2
"""Chunks in the cluster for each of its cores, so that no core waits for the next one."""

CHUNK_POINTS = 16


class RayTasks:
    """A Ray cluster that runs points.

    Args:
        grouping: decides which points are lanes; the lanes of one computation are one task of the cluster.
        first: the number of the first chunk; part files are named after chunks.
        address: `auto`, `HOST:PORT`, or None for a cluster on this machine alone.
    Raises:
        UsageError: Ray is not installed, or the cluster cannot be reached.
    """

    def __init__(
        self, directory: Path, settings: Settings, grouping: Grouping, *, first: int, address: str | None
    ) -> None:
        self._ray = _import_ray()
        self._directory = directory.resolve()
        self._settings = settings
        self._next = first
        self._waiting: deque[list[Task]] = deque()
        self._flying: dict[Any, list[Task]] = {}
        _connect(self._ray, address)
        self._remote = self._ray.remote(max_retries=0)(_run_chunk)
        self._grouping = grouping
        self._slots = max(1, IN_FLIGHT * int(self._ray.cluster_resources().get("CPU", 1)))

    def take_number(self) -> int:
        """A number that no chunk has."""
        self._next += 1
        return self._next - 1

    def run(self, tasks: Sequence[Task]) -> Iterator[Event]:
        """Run points; yields the outcomes of those whose rows are on disk.

        Raises:
            OSError: a node cannot write.
        """
        self._grouping.jobs = self._slots
        grouped = self._grouping.grouped(tasks)
        size = max(1, min(CHUNK_POINTS, -(-len(tasks) // self._slots)))
        for chunk, points in groupby(grouped, key=lambda task: task.chunk):
            together = list(points)
            most = len(together) if chunk else size
            self._waiting.extend(together[start : start + most] for start in range(0, len(together), most))
        while self._waiting or self._flying:
            while self._waiting and len(self._flying) < self._slots:
                self._submit(self._waiting.popleft())
            ready, _ = self._ray.wait(list(self._flying), num_returns=1)
            for reference in ready:
                yield self._result(reference, self._flying.pop(reference))

    def close(self) -> Sequence[Outcome]:
        """Cancel what still runs, and leave the cluster."""
        for reference in self._flying:
            self._ray.cancel(reference, force=True)
        self._flying.clear()
        self._ray.shutdown()
        return []

    def _submit(self, tasks: list[Task]) -> None:
        name = f"{self.take_number():06}"
        self._flying[self._remote.remote(str(self._directory), self._settings, tasks, name)] = tasks

    def _result(self, reference: Any, tasks: list[Task]) -> list[Outcome]:
        errors = self._ray.exceptions
        try:
            found: list[Outcome] = self._ray.get(reference)
        except errors.RayTaskError as error:
            raise error.cause if isinstance(error.cause, OSError) else error from error
        except (errors.WorkerCrashedError, errors.OutOfMemoryError, errors.NodeDiedError) as error:
            return self._crashed(tasks, error)
        return found

    def _crashed(self, tasks: list[Task], error: Exception) -> list[Outcome]:
        """A process of the cluster has died: run the points of its chunk one by one, to find the one that fails."""
        if len(tasks) > 1:
            again = [replace(task, chunk=0, alone=DIED if task.chunk else task.alone) for task in tasks]
            self._waiting.extendleft([task] for task in reversed(again))
            return []
        (task,) = tasks
        return [lost(task, f"its process died: {type(error).__name__}")]


def _run_chunk(directory: str, settings: Settings, tasks: list[Task], name: str) -> list[Outcome]:
    """Run a chunk on a node of the cluster."""
    import torch

    torch.set_num_threads(settings.threads)
    folder = Path(directory)
    found: list[Outcome] = []
    for outcomes in run_tasks(settings.work(folder), tasks, name, lambda index: None, lambda: False):
        found += outcomes
    return found


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise UsageError(Problem("--on ray needs Ray", "install it: `pip install 'steprun[ray]'`")) from error


def _connect(ray: Any, address: str | None) -> None:
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="error")
    except (ConnectionError, RuntimeError, ValueError, PermissionError) as error:
        raise UsageError(_reason(str(error), address)) from error


def _reason(text: str, address: str | None) -> Problem:
    first = text.strip().splitlines()[0] if text.strip() else "unknown reason"
    if "uthenticat" in text or "token" in text.lower():
        hint = "set RAY_AUTH_MODE=token and the same RAY_AUTH_TOKEN on every node"
        return Problem(f"the Ray cluster refuses the connection: {first}", hint)
    if "ersion mismatch" in text:
        return Problem(f"the Ray cluster has other versions: {first}", "install the same ray and Python on every node")
    where = "on this machine" if address in (None, "auto") else f"at {address}"
    return Problem(f"no Ray cluster answers {where}: {first}", "start one with `ray start --head`")
