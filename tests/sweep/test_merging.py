"""Merging part files: no row is lost, doubled or moved, also if a kill leaves the sources beside the merged part."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from runner.config import loads
from runner.sweep.points.task import Task
from runner.sweep.record import merging
from runner.sweep.record.part_files import PartFiles
from runner.sweep.record.parts import outcomes_on_disk, part_paths, read_part
from runner.sweep.single import Work, run_point
from tests.sweep.configs import HEAD


def parts_of(folder: Path, points: int) -> None:
    """A part for each of some points, the first two of which pause at iteration 2 and go on to the end."""
    work = Work(loads(HEAD + "log: {every: 2}\n"), folder, objective="loss")
    number = itertools.count(1)
    for index in range(points):
        task = Task(index, (f"seed={index}",), f"id{index}", until=3 if index < 2 else None)
        state = _written(work, task, next(number))
        if index < 2:
            _written(work, Task(index, (f"seed={index}",), f"id{index}", rung=1, state=state), next(number))


def _written(work: Work, task: Task, number: int) -> str | None:
    files = PartFiles(work.directory, f"{number:06}")
    files.add(run_point(work, task))
    (outcome,) = files.flush()
    return outcome.state


def rows_of(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Every row on disk, without those that a later rung has computed again."""
    firsts = {
        (outcome.index, outcome.rung): outcome.first for rungs in outcomes_on_disk(folder).values() for outcome in rungs
    }
    found = []
    for path in part_paths(folder, kind):
        rungs = {outcome.index: outcome.rung for outcome in merging.outcomes_in(path)}
        for row in read_part(path, lambda file: file.read()).to_pylist():
            end = firsts.get((row["point"], rungs[row["point"]] + 1)) if kind == "rows" else None
            if end is None or row["row"] < end:
                found.append(row)
    return sorted(found, key=repr)


@pytest.mark.parametrize("leftover", [False, True])
def test_merged_parts_have_every_row_once(leftover: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    parts_of(tmp_path, 5)
    monkeypatch.setattr(merging, "MOST_PARTS", 3)
    before, outcomes = rows_of(tmp_path, "rows"), outcomes_on_disk(tmp_path)
    sources = {path: path.read_bytes() for path in part_paths(tmp_path)}
    assert len(sources) == 7
    numbers = itertools.count(100)
    merging.merge_parts(tmp_path, lambda: next(numbers))
    if leftover:  # a kill before the sources were removed
        for path, content in sources.items():
            path.write_bytes(content)
        merging.merge_parts(tmp_path, lambda: next(numbers))
    for _ in range(2):  # a merged part is merged again with later ones
        for place, (path, content) in enumerate(list(sources.items())[-2:]):
            path.with_name(f"{next(numbers):06}-{place}.parquet").write_bytes(content)
        merging.merge_parts(tmp_path, lambda: next(numbers))
    assert len(list(part_paths(tmp_path))) == len(list(part_paths(tmp_path, "weights"))) == 1
    assert rows_of(tmp_path, "rows") == before
    assert len(before) == 5 * 4  # rows 0, 2 and 4 of a log of every second iteration, and the last one
    assert outcomes_on_disk(tmp_path) == outcomes
