"""Merging part files: no row is lost, doubled or moved, also if a kill leaves the sources beside the merged part."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pyarrow
import pytest
import torch
from torch import Tensor

import runner
from runner.config import load, loads, overridden
from runner.errors import UsageError
from runner.sweep.planning import plan_sweep
from runner.sweep.points.outcome import Outcome
from runner.sweep.points.task import Task
from runner.sweep.record import merging, parts, reading
from runner.sweep.record.part_files import PartFiles
from runner.sweep.record.parts import outcomes_on_disk, part_paths, read_part
from runner.sweep.record.reading import Sweep, open_sweep
from runner.sweep.record.table import write_table
from runner.sweep.running import How, resume_sweep, run_sweep, start_sweep
from runner.sweep.single import Work, run_point
from tests.sweep.configs import HEAD, written
from tests.sweep.inline import inline
from tests.sweep.test_running import Seen

__all__ = ["inline"]


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


def test_a_sweep_that_is_open_is_read_while_its_parts_are_merged(
    whole_sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = whole_sweep
    before = [sweep.rows(point) for point in range(3)]
    weights = [sweep.weights(point)["w"].tolist() for point in range(3)]
    merging.merge_parts(sweep.path, itertools.count(100).__next__)
    assert len(list(part_paths(sweep.path))) == 1
    assert [sweep.rows(point) for point in range(3)] == before
    assert [sweep.weights(point)["w"].tolist() for point in range(3)] == weights


def test_a_part_that_is_merged_between_listing_and_reading_is_found_again(
    whole_sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, expected = whole_sweep.path, outcomes_on_disk(whole_sweep.path)
    listed, left = parts.part_paths, [1]

    def merged_once(directory: Path, folder: str = "rows") -> list[Path]:
        paths = list(listed(directory, folder))
        if left and left.pop():
            merging.merge_parts(directory, itertools.count(100).__next__)
        return paths

    for module in (parts, reading):
        monkeypatch.setattr(module, "part_paths", merged_once)
    assert outcomes_on_disk(directory) == expected
    gone = next(listed(directory)).with_name("000001-0.parquet")
    with pytest.raises(UsageError) as caught:
        read_part(gone, lambda file: file.read())
    (problem,) = caught.value.problems
    assert problem.message == f"{gone} is not there any more: its points are in another part now"
    assert problem.hint == "read the sweep again"


@pytest.mark.parametrize("merged", [False, True])
def test_rows_and_weights_that_are_computed_again_replace_the_others(merged: bool, tmp_path: Path) -> None:
    """Of two points that go on, the second part of one and both parts of the other disappear."""
    parts_of(tmp_path, 5)
    rows, weights = rows_of(tmp_path, "rows"), rows_of(tmp_path, "weights")
    first = outcomes_on_disk(tmp_path)["id0"][1].first
    if merged:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(merging, "MOST_PARTS", 3)
            merging.merge_parts(tmp_path, itertools.count(100).__next__)
    merging.remove_superseded(tmp_path, {"id0": 1, "id1": 0, "id9": 0}, itertools.count(200).__next__)
    left = {identity: [each.rung for each in rungs] for identity, rungs in outcomes_on_disk(tmp_path).items()}
    assert left == {"id0": [0], "id2": [0], "id3": [0], "id4": [0]}
    # the first part of a point that is not merged ends with a row that the second one had computed again
    found = [row for row in rows_of(tmp_path, "rows") if row["point"] > 0 or row["row"] < first]
    assert found == [row for row in rows if row["point"] > 1 or (row["point"] == 0 and row["row"] < first)]
    assert {row["row"] for row in found if row["point"] == 0} == {0, 1}
    of_parts = [row for row in weights if row["point"] == 0]
    assert len(of_parts) == 2
    expected = [min(of_parts, key=lambda row: int(row["row"])), *(row for row in weights if row["point"] > 1)]
    assert rows_of(tmp_path, "weights") == expected


def test_equal_points_of_a_sampler_keep_rows_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work(loads(HEAD), tmp_path, objective="loss")
    for number, index in enumerate((0, 7, 3), 1):
        _written(work, Task(index, ("seed=1",), "same"), number)
    before = rows_of(tmp_path, "rows")
    assert {row["point"] for row in before} == {0, 3, 7}
    monkeypatch.setattr(merging, "MOST_PARTS", 3)
    merging.merge_parts(tmp_path, lambda: 100)
    assert len(list(part_paths(tmp_path))) == 1
    assert rows_of(tmp_path, "rows") == before
    assert len(rows_of(tmp_path, "weights")) == 3
    for index in (0, 3, 7, 5, 99):  # points 5 and 99 are finished by one of the others
        ((outcome, _),) = reading._parts_of(tmp_path, "rows", index, "same", {})
        assert outcome.identity == "same"
    merging.remove_superseded(tmp_path, {"other": 0}, lambda: 200)
    assert rows_of(tmp_path, "rows") == before


def test_a_large_part_does_not_keep_the_others_from_being_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts_of(tmp_path, 5)
    first, *others = part_paths(tmp_path)
    monkeypatch.setattr(merging, "MOST_PARTS", 3)
    monkeypatch.setattr(merging, "LARGEST_MERGED", sum(path.stat().st_size for path in others))
    first.write_bytes(first.read_bytes())
    sizes = {first: merging.LARGEST_MERGED + 1}
    stat = Path.stat
    monkeypatch.setattr(
        Path, "stat", lambda path, **more: SimpleNamespace(st_size=sizes[path]) if path in sizes else stat(path, **more)
    )
    before = rows_of(tmp_path, "rows")
    merging.merge_parts(tmp_path, lambda: 100)
    assert [path.name for path in part_paths(tmp_path)] == [first.name, "000100-0.parquet"]
    assert rows_of(tmp_path, "rows") == before


def test_rows_of_very_many_points_that_go_on_are_chosen_at_once() -> None:
    count = 20_000
    points, rows = numpy.repeat(numpy.arange(count), 3), numpy.tile(numpy.arange(3), count)
    table = pyarrow.table({"point": pyarrow.array(points), "row": pyarrow.array(rows)})
    outcomes = [Outcome(index, str(index), (), "paused", 0.0) for index in range(0, count, 2)]
    found = merging._rows_of(table, outcomes, dict.fromkeys(range(0, count, 4), 2) | {count + 5: 0})
    expected = (points % 2 == 0) & ((points % 4 != 0) | (rows < 2))
    assert found.column("point").to_pylist() == points[expected].tolist()
    assert found.column("row").to_pylist() == rows[expected].tolist()


def other_part(sweep: Sweep, number: int) -> None:
    """A part of point 1 with the numbers of another training."""
    plan, _ = resume_sweep(sweep.path, How())
    files = PartFiles(sweep.path, f"{number:06}")
    files.add(run_point(Work(plan.base, sweep.path), replace(plan.tasks[1], overrides=("seed=1", "rate=0.3"))))
    files.flush()


def trained(rate: float) -> tuple[list[float], Tensor]:
    """The losses of point 1 and its weights, from torch alone."""
    w = load_initial(1)
    optimizer, losses = torch.optim.SGD([w], lr=rate, momentum=0.5), []
    for _ in range(5):
        optimizer.zero_grad()
        loss = (w**2).sum()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses, w.detach()


def load_initial(seed: int) -> Tensor:
    """The weight that point 1 begins with."""
    plan = runner.compile(overridden(loads(HEAD), [f"seed={seed}"]))
    return next(iter(runner.execute(plan)))["w"].clone().requires_grad_()


def assert_is_one_computation(sweep: Sweep, rate: float) -> None:
    losses, w = trained(rate)
    run = sweep.run(1)
    assert [float(loss) for loss in run.values("loss") if loss is not None] == losses
    assert torch.equal(run.weights["w"], w)
    assert torch.equal(sweep.weights(1)["w"], w)


@pytest.mark.slow
def test_of_two_parts_the_newer_one_is_read_and_merged(whole_sweep: Sweep) -> None:
    assert_is_one_computation(open_sweep(whole_sweep.path), 0.1)
    other_part(whole_sweep, 7)
    assert_is_one_computation(open_sweep(whole_sweep.path), 0.3)
    (last,) = outcomes_on_disk(whole_sweep.path)[whole_sweep._identity(1)]
    assert last.scalars["loss"][0] == trained(0.3)[0][-1]
    merging.merge_parts(whole_sweep.path, itertools.count(100).__next__)
    assert len(list(part_paths(whole_sweep.path))) == 1
    assert_is_one_computation(open_sweep(whole_sweep.path), 0.3)


def test_weights_are_those_of_the_last_rung_whatever_the_order_of_the_parts(whole_sweep: Sweep) -> None:
    plan, _ = resume_sweep(whole_sweep.path, How())
    work = Work(plan.base, whole_sweep.path)
    state = _written(work, replace(plan.tasks[1], until=3), 9)
    _written(work, replace(plan.tasks[1], rung=1, state=state), 2)  # in place of its part
    merging.merge_parts(whole_sweep.path, itertools.count(100).__next__)
    assert_is_one_computation(open_sweep(whole_sweep.path), 0.1)


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("merged", [False, True])
def test_a_point_that_runs_again_has_rows_weights_and_table_of_one_computation(
    merged: bool, whole_sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = whole_sweep.path
    other_part(whole_sweep, 2)  # in place of its part
    next(path for path in part_paths(directory, "weights") if path.name == "000002-0.parquet").unlink()
    if merged:
        monkeypatch.setattr(merging, "MOST_PARTS", 2)
        merging.merge_parts(directory, itertools.count(100).__next__)
        monkeypatch.setattr(merging, "MOST_PARTS", 24)
    plan, how = resume_sweep(directory, How())
    run_sweep(directory, plan, how, seen := Seen())
    sweep = open_sweep(directory)
    assert (seen.started, len(sweep.rows(1))) == ([1], 6)
    assert_is_one_computation(sweep, 0.1)
    assert sweep.table().column("loss.last").to_pylist()[1] == trained(0.1)[0][-1]
    stored = [row for path in part_paths(directory) for row in read_part(path, lambda file: file.read()).to_pylist()]
    assert len(stored) == 3 * 6  # no rows of the other computation are left


@pytest.fixture
def whole_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """A sweep of three points, each of which has a part of its own."""
    config = load(written(tmp_path, "sweep: {grid: {seed: range(3)}}\n"))
    plan = plan_sweep(config, {})
    directory = start_sweep(config, plan, {}, tmp_path / "sweeps", How())
    for number, task in enumerate(plan.tasks, 1):
        files = PartFiles(directory, f"{number:06}")
        files.add(run_point(Work(plan.base, directory), task))
        files.flush()
    write_table(directory, plan.tasks, plan.points, {}, None)
    monkeypatch.setattr(merging, "MOST_PARTS", 3)
    return open_sweep(directory)
