"""Runs points of a sweep in this process, as lanes or alone, and writes their rows to part files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from runner.sweep.lanes.chunk import Stopped, run_chunk
from runner.sweep.points.outcome import Outcome
from runner.sweep.points.task import Task
from runner.sweep.record.part_files import PartFiles
from runner.sweep.single import Work, run_point


def run_tasks(
    work: Work, tasks: Sequence[Task], name: str, begun: Callable[[int], None], stopping: Callable[[], bool]
) -> Iterator[list[Outcome]]:
    """Run points one after another; yields the outcomes that are on disk, each once.

    Args:
        name: the name of the part files, which no other call uses.
        begun: called with the index of each point before it runs.
        stopping: returns whether to stop before the next point.
    Raises:
        OSError: a part file cannot be written.
    """
    files = PartFiles(work.directory, name)
    for chunk, points in groupby(tasks, key=lambda task: task.chunk):
        waiting = list(points)
        if chunk:
            for task in waiting:
                begun(task.index)
            waiting = _run_lanes(work, waiting, files, stopping)
        for task in waiting:
            if stopping():
                break
            begun(task.index)
            ended = run_point(work, task)
            outcome = replace(ended.outcome, alone=task.alone or None, warning=task.warning)
            files.add(replace(ended, outcome=outcome))
            if files.due:
                yield files.flush()
        if files.due:
            yield files.flush()
    yield files.flush()


def _run_lanes(work: Work, tasks: Sequence[Task], files: PartFiles, stopping: Callable[[], bool]) -> list[Task]:
    """Run the lanes of a chunk; returns the points that have to run alone."""
    try:
        found = run_chunk(work, tasks, stopping)
    except Stopped:
        return []
    if found.rows is not None and found.weights is not None:
        files.add_block(found.outcomes, found.columns, found.rows, found.weights, found.states)
    return list(found.alone)
