"""Runs the points of a sweep in a pool of processes.

Each process imports torch once and runs chunks of points. If a process dies, the point that it was running has failed;
the finished points of its chunk that were not on disk yet run again in another process.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import runner
from runner.sweep.executors.executor import Begun, Event, lost
from runner.sweep.executors.settings import Settings
from runner.sweep.lanes.grouping import DIED, LATE
from runner.sweep.points.outcome import Outcome
from runner.sweep.points.task import Task

CHUNK_SECONDS = 1.0
"""Seconds of work that a process gets at a time, by the mean of the points so far."""

MOST_POINTS = 1024
STOP_SECONDS = 2.0
"""Seconds that processes have to write their finished points when the sweep is interrupted."""


@dataclass(slots=True)
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection
    lifeline: int  # the process ends when this end of a pipe closes
    tasks: dict[int, Task] = field(default_factory=dict)  # of its chunk, not ended yet, by index
    running: int | None = None
    since: float = 0.0


class Processes:
    """A pool of processes that run points.

    Args:
        first: the number of the first chunk; part files are named after chunks.
        jobs: the number of processes.
        time_limit: seconds after which a point has failed.
    """

    def __init__(
        self, directory: Path, settings: Settings, *, first: int, jobs: int, time_limit: float | None = None
    ) -> None:
        self._directory = directory
        self._settings = settings
        self._next = first
        self._jobs = jobs
        self._time_limit = time_limit
        self._workers: list[_Worker] = []
        self._waiting: deque[Task] = deque()
        self._seconds = 0.0
        self._ended = 0

    def run(self, tasks: Sequence[Task]) -> Iterator[Event]:
        """Run points; yields as each begins, and the outcomes of those whose rows are on disk.

        Raises:
            OSError: a process cannot write, for instance because the disk is full.
        """
        self._waiting.extend(tasks)
        while self._waiting or any(worker.tasks for worker in self._workers):
            self._hand_out()
            yield from self._collect()

    def take_number(self) -> int:
        """A number that no chunk has."""
        self._next += 1
        return self._next - 1

    def close(self) -> list[Outcome]:
        """End the processes; returns the outcomes that they still wrote."""
        for worker in self._workers:
            with suppress(OSError):
                worker.connection.send(None)
        found: list[Outcome] = []
        deadline = time.monotonic() + STOP_SECONDS
        for worker in self._workers:
            with suppress(EOFError, OSError):
                while worker.connection.poll(max(0.0, deadline - time.monotonic())):
                    kind, content = _received(worker.connection)
                    found += content if kind == "ended" else []
            _end(worker, max(0.0, deadline - time.monotonic()))
        self._workers.clear()
        return found

    def _hand_out(self) -> None:
        """Give a chunk to each idle process; start processes while there is work for them."""
        idle = [worker for worker in self._workers if not worker.tasks]
        while self._waiting and (idle or len(self._workers) < self._jobs):
            worker = idle.pop() if idle else self._start()
            chunk = self._take_chunk()
            worker.tasks = {task.index: task for task in chunk}
            with suppress(OSError):  # it has died, which `_collect` notices
                worker.connection.send((f"{self.take_number():06}", chunk))

    def _take_chunk(self) -> list[Task]:
        """The next points of the queue: the lanes of one computation, or some that run alone."""
        first = self._waiting[0].chunk
        most = len(self._waiting) if first else self._chunk_size()
        chunk: list[Task] = []
        while self._waiting and len(chunk) < most and self._waiting[0].chunk == first:
            chunk.append(self._waiting.popleft())
        return chunk

    def _chunk_size(self) -> int:
        if not self._ended:
            return 1
        fitting = int(CHUNK_SECONDS * self._ended / max(self._seconds, 1e-9))
        fair = -(-len(self._waiting) // (2 * self._jobs))
        return max(1, min(fitting, fair, MOST_POINTS))

    def _start(self) -> _Worker:
        ours, theirs = multiprocessing.Pipe()
        read_end, lifeline = os.pipe()
        root = str(Path(runner.__file__).parent.parent)
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        # -P: a module in the working directory must not shadow one of ours
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "runner.sweep.executors.worker", str(theirs.fileno()), str(read_end)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), read_end),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        theirs.close()
        os.close(read_end)
        worker = _Worker(process, ours, lifeline)
        with suppress(OSError):
            ours.send((self._directory, self._settings))
        self._workers.append(worker)
        return worker

    def _collect(self) -> Iterator[Event]:
        ready = wait([worker.connection for worker in self._workers], timeout=0.2)
        for worker in [*self._workers]:
            if worker.connection in ready:
                yield from self._receive(worker)
        for worker in [*self._workers]:
            if self._is_late(worker):
                worker.process.kill()
                yield from self._died(worker, f"took longer than {self._time_limit:g} s")

    def _receive(self, worker: _Worker) -> Iterator[Event]:
        try:
            while worker.connection.poll():
                kind, content = _received(worker.connection)
                if kind == "begun":
                    worker.running, worker.since = content, time.monotonic()
                    yield Begun(content)
                elif kind == "ended":
                    yield self._note(worker, content)
                else:
                    raise content
        except EOFError:
            yield from self._died(worker)

    def _note(self, worker: _Worker, outcomes: list[Outcome]) -> list[Outcome]:
        for outcome in outcomes:
            worker.tasks.pop(outcome.index, None)
            self._seconds += outcome.seconds
            self._ended += 1
        return outcomes

    def _is_late(self, worker: _Worker) -> bool:
        late = self._time_limit is not None and time.monotonic() - worker.since > self._time_limit
        return late and worker.running in worker.tasks

    def _died(self, worker: _Worker, reason: str | None = None) -> Iterator[Event]:
        """A process has died: its current point has failed, and its other points run again."""
        if worker not in self._workers:
            return
        self._workers.remove(worker)
        _end(worker, STOP_SECONDS)
        tasks, running = worker.tasks, worker.running
        if any(task.chunk for task in tasks.values()):  # which lane has ended it is not known: each runs alone
            alone = DIED if reason is None else LATE
            self._waiting.extend(replace(task, chunk=0, alone=alone) for task in tasks.values())
            worker.tasks = {}
            return
        if running is None and tasks:  # it died before it began: do not try for ever
            running = next(iter(tasks))
        failed = tasks.pop(running, None) if running is not None else None
        self._waiting.extendleft(reversed(tasks.values()))
        worker.tasks = {}
        if failed is not None:
            yield [lost(failed, reason or f"its process {_death(worker.process.returncode)}")]


def _received(connection: Connection) -> tuple[str, Any]:
    """The next message of a process.

    Raises:
        EOFError: it has died, perhaps while it sent this message.
    """
    try:
        kind, content = connection.recv()
    except (OSError, pickle.UnpicklingError) as error:
        raise EOFError from error
    return kind, content


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        with suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def _end(worker: _Worker, patience: float) -> None:
    """End a process, at once if it does not end by itself."""
    try:
        worker.process.wait(patience)
    except subprocess.TimeoutExpired:
        worker.process.kill()
        worker.process.wait()
    worker.connection.close()
    os.close(worker.lifeline)
