"""Lanes that stop at iterations of their own: each has the rows, the weights and the end of the run alone."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import pyarrow.compute
import pytest
import torch

from runner.config import load
from runner.engine.lanes.execute import run_lanes
from runner.errors import ConfigError
from runner.plan import compile
from runner.plan.checks.engines.stackable import unstackable
from runner.sweep.lanes.chunk import ENDS_BEFORE, NOT_SOUND, Chunk, run_chunk
from runner.sweep.lanes.comparing import difference_between
from runner.sweep.lanes.grouping import FEW
from runner.sweep.planning import plan_sweep
from runner.sweep.points.task import Task
from runner.sweep.record.reading import open_sweep
from runner.sweep.running import How, run_sweep, start_sweep
from runner.sweep.single import Work, run_point
from tests.sweep.inline import inline
from tests.sweep.parting_programs import program
from tests.sweep.test_running import Seen, assert_is_the_run_alone
from tests.tables import over

__all__ = ["inline"]

HEAD = """\
parameters: {w: {shape: [5], init: {normal: {std: 1}}}}
constants: {rate: 0.1}
data:
  valid: {file: valid.npz, columns: {x: x}}
  train: {file: valid.npz, columns: {x: x}, batch_size: 3, shuffle: true}
expression: loss = ((x - w) ** 2).mean()
optimizer: {adam: {lr: rate}}
"""
BEST = HEAD.replace("std: 1}}}}", "std: 1}}}, best: {init: inf, requires_grad: false}}")
RATED = BEST.replace("best: {init: inf", "r: {init: 0.4").replace("lr: rate", "lr: r")


def write_data(folder: Path) -> None:
    numbers = numpy.random.default_rng(0)
    numpy.savez(folder / "valid.npz", x=numbers.normal(size=(7, 5)).astype(numpy.float32))


def looped(steps: str, times: int = 40, after: str = "", log: str = "") -> str:
    return f"steps: [{{repeat: {{times: {times}, steps: [{steps}]}}}}{after}]\n{log}"


def inner(loop: str, steps: str) -> str:
    return f"{{{loop}, steps: [{steps}]}}}}"


PATIENT = "{train: {data: train}}, {evaluate: valid}, {patience: {'on': valid.loss, evaluations: 2}}"
STOPPED = "{train: {data: train}}, {stop: null, when: loss < 0.9}"
LOG = "log: {every: 4}\n"

CONFIGS = {
    "patience": HEAD + looped(PATIENT),
    "stop on the loss": HEAD + looped(STOPPED),
    "stop every third": HEAD + looped(STOPPED.replace("stop: null", "stop: null, every: 3")),
    "a sparse log": HEAD + looped(STOPPED, log=LOG),
    "a tail": HEAD + looped(STOPPED, after=", {evaluate: valid}, {assign: {w: 2 * w}}, {evaluate: valid}"),
    "a tail that trains": HEAD + looped(STOPPED, after=", {repeat: {times: 5, steps: [{train: {data: train}}]}}"),
    "a tail that draws": HEAD + looped(STOPPED, after=", {assign: {w: w + randn(5)}}"),
    "random numbers": HEAD.replace("x - w", "x - dropout(w, 0.2)") + looped(STOPPED),
    "an inner loop": HEAD + looped(inner("repeat: {times: 9", STOPPED) + ", {evaluate: valid}", 4),
    "both loops": HEAD
    + looped(
        inner("repeat: {times: 6", STOPPED) + ", {evaluate: valid}, {patience: {'on': valid.loss, evaluations: 1}}"
    )
    + LOG,
    "patience of an inner loop": HEAD + looped(inner("for_each: {data: train, epochs: 3", PATIENT), 4),
    "an assigned best": BEST
    + looped(
        "{train: {data: train}}, {evaluate: valid}, {assign: {best: valid.loss}, when: valid.loss < best}, "
        "{stop: null, when: valid.loss > 1.05 * best}",
        log=LOG,
    ),
    "assigned state": HEAD
    + looped("{train: {data: train}}, {assign: {w.exp_avg: 0.0, w.grad: w}, when: 'loss < 1'}, {forward: loss}"),
    "expect in some": HEAD
    + looped(
        "{train: {data: train}}, {expect: {loss < 1.2: true}, when: loss < 1.2}, {checkpoint: null, when: loss < 1}"
    ),
    "a loop in some": HEAD
    + looped("{forward: loss}, {repeat: {times: 3, steps: [{train: {data: train}}]}, when: loss > 1}, {forward: loss}"),
    "a plateau": RATED
    + looped(
        "{train: {data: train}}, {evaluate: valid}, {checkpoint: {best: valid.loss}}, "
        "{reduce_lr_on_plateau: {rate: r, 'on': valid.loss, factor: 0.5, patience: 1, min_lr: 0.01}}"
    ),
    "a rate of a group": RATED.replace("lr: r}", "lr: 0.05}, groups: [{parameters: [w], lr: r}]").replace("adam", "sgd")
    + looped(STOPPED.replace("loss < 0.9", "loss < 1.1") + ", {assign: {r: 0.9 * r}}"),
    "a plateau and patience": RATED.replace("lr: r", "lr: r * 0.9 ** t")
    + looped(
        "{train: {data: train}}, {evaluate: valid}, {reduce_lr_on_plateau: {rate: r, 'on': valid.loss, patience: 0, "
        "cooldown: 2}, when: valid.loss > 0.5}, {patience: {'on': valid, evaluations: 4, min_delta: 0.001}}",
        log=LOG,
    ),
    "all at once": HEAD + looped("{train: {data: train}}, {stop: null, when: loss > -1}", after=", {evaluate: valid}"),
    "none": HEAD + looped("{train: {data: train}}, {stop: null, when: loss < -1}", 6),
    "no last loop": HEAD
    + looped("{train: {data: train}}, {stop: null, when: 'loss < 0.9'}", 6, after=", {forward: loss}"),
    "failures": HEAD
    + looped("{train: {data: train}}, {expect: {loss: {value: 0, atol: 1.2}}}, {stop: null, when: loss < 0.9}"),
}


def alone_and_together(text: str, folder: Path, tasks: Sequence[Task]) -> tuple[Chunk, dict[int, Any]]:
    """Some points as a chunk of lanes, and each of them alone."""
    write_data(folder)
    (folder / "parting.yaml").write_text(text)
    work = Work(load(folder / "parting.yaml"), folder, objective="loss", recent=3)
    assert unstackable(compile(work.base)) is None
    chunk = run_chunk(work, tasks, lambda: False)
    return chunk, {task.index: run_point(work, task) for task in tasks}


def assert_as_alone(chunk: Chunk, alone: dict[int, Any]) -> None:
    """Each lane of a chunk has the rows, weights, statistics and status of the run alone, bit by bit."""
    assert chunk.rows is not None
    assert chunk.weights is not None
    for outcome in chunk.outcomes:
        wanted = alone[outcome.index]
        here = pyarrow.compute.field("point") == outcome.index
        assert difference_between(chunk.rows.filter(here).drop_columns(["point"]), wanted.table) is None
        assert difference_between(chunk.weights[1].filter(here).drop_columns(["point"]), wanted.weights[1]) is None
        same = replace(wanted.outcome, seconds=0.0, kept=None, alone="")
        assert repr(replace(outcome, seconds=0.0, kept=None)) == repr(same)


def seeds(count: int) -> list[Task]:
    return [Task(seed, (f"seed={seed}",), f"point{seed}", chunk=1) for seed in range(count)]


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


UNIFORM = {"all at once", "none", "assigned state", "expect in some", "a plateau", "failures"}
"""Configs whose lanes have the same number of rows, or whose number is not compared."""


@pytest.mark.slow
@over("name", list(CONFIGS))
def test_each_lane_ends_as_the_run_alone(name: str, tmp_path: Path) -> None:
    chunk, alone = alone_and_together(CONFIGS[name], tmp_path, seeds(9))
    failed = {index for index, ended in alone.items() if ended.outcome.status == "failed"}
    assert {task.index: task.alone for task in chunk.alone} == dict.fromkeys(failed, NOT_SOUND)
    assert sorted([outcome.index for outcome in chunk.outcomes] + list(failed)) == list(range(9))
    assert name in UNIFORM or len({outcome.rows for outcome in chunk.outcomes}) > 1
    if chunk.outcomes:
        assert_as_alone(chunk, alone)


@pytest.mark.slow
@over("count", [1, 4])
def test_few_lanes_end_as_the_run_alone(count: int, tmp_path: Path) -> None:
    chunk, alone = alone_and_together(CONFIGS["both loops"], tmp_path, seeds(count))
    assert len(chunk.outcomes) == count
    assert_as_alone(chunk, alone)


def test_each_lane_stops_where_a_loop_by_hand_does(tmp_path: Path) -> None:
    text = "parameters: {w: {shape: [3], init: 2.0}}\nconstants: {rate: 0.1}\nexpression: loss = (w * w).sum()\n"
    text += "optimizer: {sgd: {lr: rate, momentum: 0.5}}\n" + looped("train, {stop: null, when: loss < 0.3}", 60)
    rates = [0.001, 0.01, 0.02, 0.03, 0.05, 0.08, 0.1, 0.2, 0.3]
    tasks = [Task(index, (f"rate={rate}",), str(index), chunk=1) for index, rate in enumerate(rates)]
    chunk, _ = alone_and_together(text, tmp_path, tasks)
    assert chunk.weights is not None
    found = dict(zip(chunk.weights[1]["point"].to_pylist(), chunk.weights[1]["w"].to_pylist(), strict=True))
    ends = set()
    for outcome, rate in zip(chunk.outcomes, rates, strict=True):
        w = torch.full((3,), 2.0, requires_grad=True)
        optimizer = torch.optim.SGD([w], lr=rate, momentum=0.5, foreach=False)
        step, loss = 0, torch.tensor(9.0)
        while step < 60 and loss >= 0.3:
            step += 1
            optimizer.zero_grad()
            loss = (w * w).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        ends.add(step)
        assert (outcome.rows, found[outcome.index]) == (step + 1, w.tolist())
    assert len(ends) > 5


def test_lanes_that_have_left_are_computed_in_vain_until_half_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []

    def counted(plan: Any, lanes: Any, **given: Any) -> Any:
        groups.append(len(lanes))
        return run_lanes(plan, lanes, **given)

    monkeypatch.setattr("runner.sweep.lanes.together.run_lanes", counted)
    alone_and_together(CONFIGS["stop on the loss"], tmp_path, seeds(9))
    assert groups[0] == 9
    assert all(2 * later <= before for before, later in itertools.pairwise(groups))


HALVED = """\
sweep:
  grid: {rate: [0.003, 0.01, 0.03, 0.1], seed: range(4)}
  objective: {minimize: loss}
  halving: {at: [3, 9], keep: 1/2}
"""


@pytest.mark.slow
@pytest.mark.parametrize("log", ["", LOG])
@pytest.mark.usefixtures("inline")
def test_lanes_that_stop_before_they_are_compared_go_on_as_alone(log: str, tmp_path: Path) -> None:
    write_data(tmp_path)
    text = HEAD + looped(STOPPED, after=", {evaluate: valid}", log=log) + HALVED
    (tmp_path / "halved.yaml").write_text(text)
    tables = {}
    for lanes in ("off", "exact"):
        config = load(tmp_path / "halved.yaml")
        plan = plan_sweep(config, {})
        directory = start_sweep(config, plan, {}, tmp_path / lanes, How(lanes=lanes))
        outcomes = run_sweep(directory, plan, How(lanes=lanes), Seen())
        sweep = open_sweep(directory)
        tables[lanes] = sweep.table().drop_columns(["seconds"])
        reasons = {outcome.alone for outcome in outcomes.values()}
    assert tables["exact"].equals(tables["off"])
    assert reasons <= {"", ENDS_BEFORE, FEW}
    finished = [row["point"] for row in tables["exact"].to_pylist() if row["status"] == "finished"]
    assert len(finished) >= 4  # a point whose loop has ended goes on to its end at once
    for index in finished:
        assert_is_the_run_alone(sweep, plan, index)


CROSSED = """\
parameters: {w: {shape: [2], init: 1.0}, done: {shape: [2], init: 0.0, requires_grad: false}}
constants: {rate: 0.1}
expression: loss = (w ** 2).sum()
optimizer: {sgd: {lr: rate}}
steps:
  - repeat: {times: 100, steps: [train, {stop: , when: loss < 0.001}]}
  - assign: {done: w * 2}
sweep:
  grid: {rate: [0.2, 0.1, 0.2001, 0.1001, 0.001]}
  objective: {minimize: loss}
  halving: {at: [50], keep: 4/5}
"""
"""Of the four points that go on, the first and the third stop together, and the second and the fourth."""


@pytest.mark.usefixtures("inline")
def test_lanes_that_come_back_in_another_order_keep_their_weights(tmp_path: Path) -> None:
    (tmp_path / "crossed.yaml").write_text(CROSSED)
    config = load(tmp_path / "crossed.yaml")
    plan = plan_sweep(config, {})
    directory = start_sweep(config, plan, {}, tmp_path, How(lanes="exact"))
    outcomes = run_sweep(directory, plan, How(lanes="exact"), Seen())
    assert [outcomes[index].alone for index in range(4)] == [""] * 4
    assert len({outcomes[index].rows for index in range(4)}) == 2
    for index in range(4):
        assert_is_the_run_alone(open_sweep(directory), plan, index)


@pytest.mark.slow
def test_lanes_of_random_programs_end_as_the_run_alone(tmp_path: Path) -> None:
    write_data(tmp_path)
    compared, parted, seed = 0, 0, 0
    while compared < 8:
        seed += 1
        text = program(seed)
        (tmp_path / "parting.yaml").write_text(text)
        try:
            obstacle = unstackable(compile(load(tmp_path / "parting.yaml")))
        except ConfigError:
            continue
        assert obstacle is None, (seed, obstacle)
        tasks = [replace(task, overrides=(*task.overrides, f"decay={task.index / 10}")) for task in seeds(9)]
        chunk, alone = alone_and_together(text, tmp_path, tasks)
        failed = {index for index, ended in alone.items() if ended.outcome.status == "failed"}
        assert {task.index: task.alone for task in chunk.alone} == dict.fromkeys(failed, NOT_SOUND), seed
        if chunk.outcomes:
            assert_as_alone(chunk, alone)
            compared += 1
            parted += len({outcome.rows for outcome in chunk.outcomes}) > 1
    assert parted >= 2
