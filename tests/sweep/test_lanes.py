"""Points of a sweep as lanes: which qualify, their bits, and what is said of the others."""

from __future__ import annotations

import math
import os
import re
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pyarrow.parquet
import pytest
import torch

from runner.cli.commands.sweeping import _check_lanes
from runner.cli.output.plan_json import describe
from runner.cli.output.plan_text import _lanes
from runner.cli.output.sweep_progress import SweepProgress, lanes_line
from runner.config import load, loads, overridden
from runner.engine.lanes.execute import LaneColumn
from runner.errors import ConfigError, UsageError
from runner.language.inference.inference import readable_bytes
from runner.plan import compile
from runner.plan.rows.columns import Column
from runner.record.rows.storage import stored_column
from runner.sweep.executors.executor import Begun
from runner.sweep.executors.here import Here
from runner.sweep.executors.processes import Processes, _Worker
from runner.sweep.executors.settings import Settings
from runner.sweep.lanes.chunk import run_chunk
from runner.sweep.lanes.comparing import Difference, difference_between
from runner.sweep.lanes.grouping import DIED, LATE, NUMBER, Grouping, check_some, lane_bytes
from runner.sweep.lanes.literals import Literals
from runner.sweep.lanes.rows import statistics_of
from runner.sweep.lanes.varying import varying
from runner.sweep.planning import SweepPlan, plan_sweep
from runner.sweep.points.identity import Identities
from runner.sweep.points.outcome import Outcome, from_json, to_json
from runner.sweep.points.space import without_sweep
from runner.sweep.points.task import Task
from runner.sweep.record.reading import open_sweep
from runner.sweep.running import How, grouping_of, resume_sweep, run_sweep, start_sweep
from runner.sweep.single import Work, run_point
from tests.sweep.configs import HEAD, written
from tests.sweep.gallery import CONFIGS, chunk_of, documented, outcome_of
from tests.sweep.test_running import LONG, SEEDS, Seen, assert_is_the_run_alone, command, wait_for_parts
from tests.tables import over

LBFGS = HEAD.replace("sgd: {lr: rate, momentum: momentum}", "lbfgs: {lr: rate}")
GALLERY = sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def planned(folder: Path, sweep: str, head: str = HEAD) -> SweepPlan:
    return plan_sweep(load(written(folder, sweep, head)), {})


def reasons(plan: SweepPlan, **how: Any) -> list[str]:
    grouped = grouping_of(plan, How(**how)).grouped(plan.tasks)
    return [task.alone for task in sorted(grouped, key=lambda task: task.index)]


def test_the_page_lists_every_config_of_the_gallery() -> None:
    assert sorted(documented()) == GALLERY


@pytest.mark.slow
@pytest.mark.parametrize("name", GALLERY)
def test_a_gallery_config_has_its_bits_as_lanes_or_is_refused_by_name(name: str, tmp_path: Path) -> None:
    chunk = chunk_of(name, tmp_path)
    assert outcome_of(chunk) == documented()[name]
    if isinstance(chunk, str) or not chunk.outcomes:
        return
    assert chunk.rows is not None  # the first and last lane were compared already; compare one between
    middle = chunk.outcomes[len(chunk.outcomes) // 2]
    config = load(CONFIGS / f"{name}.yaml")
    task = next(task for task in _tasks(chunk.outcomes) if task.index == middle.index)
    alone = run_point(Work(config, tmp_path), task)
    assert alone.table is not None
    own = chunk.rows.filter(pyarrow.compute.field("point") == middle.index).drop_columns(["point"])
    assert difference_between(own, alone.table) is None
    assert (middle.rows, dict(middle.scalars)) == (alone.outcome.rows, dict(alone.outcome.scalars))


def _tasks(outcomes: Sequence[Outcome]) -> list[Any]:
    from runner.sweep.points.task import Task

    return [Task(each.index, each.overrides, each.identity) for each in outcomes]


@pytest.mark.parametrize(
    ("sweep", "head", "expected"),
    [
        ("sweep: {grid: {rate: [0.1, 0.2, 0.3], seed: range(2)}}\n", HEAD, {""}),
        ("sweep: {grid: {optimizer.sgd.lr: [0.1, 0.2, 0.3, 0.4]}}\n", HEAD, {""}),
        (
            "sweep: {grid: {momentum: [0.1, 0.2], seed: range(3)}}\n",
            HEAD,
            {"fewer than 4 points have the same value of `momentum`"},
        ),
        (
            "sweep: {zip: [{momentum: [0.1, 0.2], steps: [3, 4]}], grid: {seed: range(3)}}\n",
            HEAD,
            {"fewer than 4 points have the same values of `momentum`, `steps`"},
        ),
        ("sweep: {grid: {rate: [0.1, 0.2]}}\n", HEAD, {"fewer than 4 points"}),
        (
            "sweep: {points: [{rate: 0.1}, {rate: 0.2}, {momentum: 0.1}]}\n",
            HEAD,
            {"fewer than 4 points have the same value of `momentum`", "lanes cannot differ in `momentum`"},
        ),
        ("sweep: {points: [{rate: 0.2}, {seed: 1}]}\n", HEAD, {"fewer than 4 points set the same fields"}),
        (
            "sweep: {grid: {rate: [0.1, 0.2, .nan]}}\n",
            HEAD,
            {"fewer than 4 points", "lanes cannot have this value of `rate`"},
        ),
        ("sweep: {grid: {lr: [0.1, 0.2, 0.3, 0.4]}}\n", HEAD.replace("rate", "lr"), {""}),
        (
            "sweep: {grid: {rate: range(4)}}\n",
            HEAD.replace("steps: 5", "steps: [train, {expect: {rate > 9: false}}]"),
            {"lanes cannot differ in `rate`"},
        ),
        ("sweep: {grid: {momentum: [0.1, 0.2], seed: range(4)}}\n", HEAD, {""}),
        ("sweep: {grid: {steps: [3, 4, 5, 6]}}\n", HEAD, {"lanes cannot differ in `steps`"}),
        ("sweep: {grid: {seed: range(4)}}\n", HEAD + "health: {vanishing_gradient: 1.0e-9}\n", {"health"}),
        (
            "sweep: {grid: {seed: range(4)}}\n",
            LBFGS,
            {"lbfgs"},
        ),
        (
            "sweep: {grid: {seed: range(4)}}\n",
            HEAD.replace("steps: 5", "steps: [{repeat: {times: 3, steps: [train, {stop: null, when: loss < 1}]}}]"),
            {""},
        ),
        (
            "sweep: {grid: {seed: range(4)}}\n",
            HEAD.replace("steps: 5", "steps: [forward, {train: null, when: loss < 1}]"),
            {"`when` of `train` reads a tensor"},
        ),
        (
            "sweep: {grid: {seed: range(4)}}\n",
            HEAD.replace("steps: 5", "steps: [train, {assign: {w: w + rand(3)}, when: loss < 1}]"),
            {"`when` reads a tensor, and its `assign` draws random numbers"},
        ),
        (
            "sweep: {grid: {seed: range(4)}}\n",
            HEAD.replace(
                "steps: 5", "steps: [{repeat: {times: 3, steps: [train, {stop: null, when: rand(1).sum() < 0.5}]}}]"
            ),
            {"`stop` draws random numbers"},
        ),
        (
            "sweep: {grid: {seed: range(4)}}\n",
            "parameters: {r: {init: 0.1, requires_grad: false}, w: {init: 1.0}}\nexpression: loss = (w ** 2).sum()\n"
            "optimizer: {rmsprop: {lr: r}}\nsteps: [train]\n",
            {"`lr` of `rmsprop` reads a parameter"},
        ),
        (
            "sweep: {grid: {seed: range(4)}}\n",
            HEAD.replace("(w ** 2).sum()", "w.prod()"),
            {"the derivative of `prod`"},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else " or ".join(sorted(value)),
)
def test_which_points_are_lanes(sweep: str, head: str, expected: set[str], tmp_path: Path) -> None:
    assert set(reasons(planned(tmp_path, sweep, head))) == expected


def test_lanes_off_is_a_reason_and_a_time_limit_is_none(tmp_path: Path) -> None:
    plan = planned(tmp_path, SEEDS)
    assert set(reasons(plan, lanes="off")) == {"--lanes off"}
    assert set(reasons(plan, time_limit=5.0)) == {""}


def test_a_constant_that_something_else_reads_is_no_rate(tmp_path: Path) -> None:
    head = HEAD.replace("(w ** 2).sum()", "rate * (w ** 2).sum()")
    sweep = "sweep: {grid: {rate: [0.1, 0.2, 0.3, 0.4]}}\n"
    found = varying((plan := planned(tmp_path, sweep, head)).base, plan.first)
    assert (dict(found.rates), set(found.constants), set(found.numbers)) == ({"optimizer": "rate"}, set(), {"rate"})
    plan = planned(tmp_path, sweep, head.replace("momentum: 0.5", "momentum: rate"))
    assert set(reasons(plan)) == {"lanes cannot differ in `rate`"}
    assert varying(plan.base, plan.first).numbers == set()


NUMBERS = """\
parameters: {w: {shape: [4, 3], init: {normal: {std: 0.5}}}}
constants: {rate: 0.1, decay: 0.01, temperature: 2.0, margin: 1.0}
data:
  train: {file: train.npz, columns: {x: x}, batch_size: 3, shuffle: true}
  valid: {file: train.npz, columns: {x: x}, batch_size: 4}
expression: |
  logits = (x @ w + margin / 2) / temperature
  loss = logsumexp(logits - margin, 1).mean() + decay * 0.5 * (w ** 2).sum()
optimizer: {adam: {lr: rate}}
steps: [{for_each: {data: train, epochs: 3, steps: [train]}}, {assign: {w: 0.5 * w + 0.1 * loss}}, {evaluate: valid}]
"""


@pytest.mark.slow
def test_numbers_in_the_expression_may_differ_between_lanes(tmp_path: Path) -> None:
    numpy.savez(tmp_path / "train.npz", x=numpy.random.default_rng(0).normal(size=(8, 4)).astype(numpy.float32))
    sweep = "sweep: {zip: [{temperature: [1, 0.3, 0, -2], margin: [-2.0, 0.7, 3, 3]}], grid: {decay: [0.0, 1e-3]}}\n"
    found, plan, outcomes = swept(tmp_path, sweep, NUMBERS, jobs=1)
    failed = [index for index, point in enumerate(plan.points) if point.values["temperature"] == 0]
    assert [index for index, outcome in sorted(outcomes.items()) if outcome.status == "failed"] == failed
    assert {outcome.alone for index, outcome in outcomes.items() if index not in failed} == {""}
    for index in set(outcomes) - set(failed):
        assert_is_the_run_alone(found, plan, index)


@over(
    "expression",
    [
        "(abs(w) ** decay).sum()",
        "(decay / w).sum()",
        "dropout(w, decay).sum()",
        "(w * clamp(w, max=decay)).sum()",
        "(w * decay).sum() if decay > 0.015 else w.sum()",
    ],
)
def test_a_number_that_is_no_operand_makes_another_computation(expression: str, tmp_path: Path) -> None:
    head = (
        f"parameters: {{w: {{shape: [3], init: ones}}}}\nconstants: {{decay: 0.1}}\nexpression: loss = {expression}\n"
    )
    head += "optimizer: {sgd: {lr: 0.1}}\nsteps: 3\n"
    plan = planned(tmp_path, "sweep: {grid: {decay: [0.01, 0.02, 0.03, 0.04]}}\n", head)
    assert set(reasons(plan)) == {NUMBER} == {"a constant is no summand, factor or divisor in the expression"}


def test_the_words_of_a_description_read_no_constant(tmp_path: Path) -> None:
    head = "description: a small decay\n" + HEAD.replace("constants: {", "constants: {decay: 0.1, ", 1)
    head = head.replace("expression: loss = ", "expression: loss = decay * ", 1)
    plan = planned(tmp_path, SEEDS, head)
    assert "decay" in varying(plan.base, plan.first).numbers


@over("dtype, varies", [("float32", True), ("float64", True), ("bfloat16", False)])
def test_only_tensors_of_32_bits_or_more_are_filled_for_each_lane(dtype: str, varies: bool, tmp_path: Path) -> None:
    head = f"parameters: {{w: {{shape: [3], init: 1.0, dtype: {dtype}}}}}\nexpression: loss = w.sum()\nsteps: 3\n"
    plan = planned(tmp_path, SEEDS, head + "optimizer: {sgd: {lr: 0.1}}\n")
    assert ("parameters.w.init" in varying(plan.base, plan.first).tensors) == varies


def test_what_lanes_take_of_their_own_is_a_number_that_fits(tmp_path: Path) -> None:
    plan = planned(tmp_path, SEEDS)
    found = varying(plan.base, plan.first)
    for override in ("seed=-1", "seed=1.5", "rate=nan", "rate=rate", "optimizer.sgd.lr=-1", "seed=9223372036854775808"):
        assert found.split([override]) == ({}, (override,))
    assert found.split(["rate=0.5", "seed=3", "momentum=0"]) == ({"rate": 0.5, "seed": 3}, ("momentum=0",))


def test_a_chunk_takes_part_of_the_memory(tmp_path: Path) -> None:
    plan = planned(tmp_path, "sweep: {grid: {seed: range(40)}}\n")
    base, first = plan.base, compile(plan.base)
    narrow = Grouping(base, first, (), None, room=4000).grouped(plan.tasks)
    assert max(task.chunk for task in narrow) > 1
    assert {task.alone for task in Grouping(base, first, (), None, room=1).grouped(plan.tasks)} == {
        "4 lanes take too much memory"
    }


@over("points", [4, 7, 10, 11, 23])
def test_no_chunk_has_more_lanes_than_fit_and_chunks_are_about_equal(
    tmp_path: Path, points: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.sweep.lanes.grouping.lanes_at_once", lambda plan, room=None: 5)
    plan = planned(tmp_path, f"sweep: {{grid: {{seed: range({points})}}}}\n")
    tasks = Grouping(plan.base, plan.first, (), None).grouped(plan.tasks)
    sizes = list(Counter(task.chunk for task in tasks).values())
    assert (sum(sizes), len(sizes), max(sizes)) == (points, math.ceil(points / 5), math.ceil(points / len(sizes)))


def test_points_that_go_on_share_no_chunk_with_points_that_begin(tmp_path: Path) -> None:
    plan = planned(tmp_path, "sweep: {grid: {seed: range(8)}}\n")
    tasks = [replace(task, state="x" * 64 if task.index % 2 else None) for task in plan.tasks]
    chunks = {(task.chunk, task.state is None) for task in Grouping(plan.base, plan.first, (), None).grouped(tasks)}
    assert len(chunks) == len(dict(chunks)) == 2


def test_statistics_of_lanes_pass_over_nan() -> None:
    nan, inf = float("nan"), float("inf")
    values = torch.tensor([[1.0, nan, -2.0], [nan, inf, 3.0], [nan, nan, nan]])
    ran: Any = SimpleNamespace(sound=[True] * 3, columns=[LaneColumn(values, [True] * 3)])
    columns = [stored_column(Column("loss", "value", torch.float32, ()))]
    found = [each["loss"] for each in statistics_of(ran, columns)]
    assert repr(found) == repr([(-2.0, -2.0, 1.0), (3.0, 3.0, inf), (nan, nan, nan)])


def test_integers_that_float64_cannot_represent_are_no_numbers_of_lanes() -> None:
    def of(number: int) -> Any:
        text = f"parameters: {{w: 1.0}}\nexpression: f = w * {number}\noptimizer: {{sgd: {{lr: 0}}}}\nsteps: [train]\n"
        return compile(loads(text))

    assert Literals(of(2)).add(of(2**53))
    assert not Literals(of(2**53 + 2)).add(of(2**53 + 4))


@over("place", [1, 2, 3, 4])
def test_rows_and_weights_of_the_first_and_the_last_lane_are_compared(
    place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[int] = []

    def between(own: Any, alone: Any) -> Difference | None:
        compared.append(own.num_rows)
        return Difference("this differs", 1.0) if len(compared) == place else None

    monkeypatch.setattr("runner.sweep.lanes.chunk.difference_between", between)
    plan = planned(tmp_path, SEEDS)
    tasks = Grouping(plan.base, plan.first, (), None).grouped(plan.tasks)
    chunk = run_chunk(Work(without_sweep(plan.base), tmp_path, exact=True), tasks, lambda: False)
    assert not chunk.outcomes
    assert {task.alone for task in chunk.alone} == {"this differs"}


def test_exact_lanes_where_none_can_be_is_a_fault_at_its_place(tmp_path: Path) -> None:
    plan = planned(tmp_path, "sweep: {grid: {seed: range(4)}}\n", LBFGS)
    with pytest.raises(ConfigError) as caught:
        check_some(plan.base, plan.first, grouping_of(plan, How()).grouped(plan.tasks))
    (problem,) = caught.value.problems
    assert (problem.line, problem.message) == (4, "no point can be a lane: lbfgs")
    assert problem.hint == "leave --lanes out, and the points run in processes"


def test_show_states_the_memory_of_a_lane(tmp_path: Path) -> None:
    plan = compile(load(written(tmp_path, SEEDS)))
    of_tensors = 4 * (3 + 3 + 3 + 1)  # `w`, its gradient, its momentum, and `loss`
    rows = 6 * 4 * (3 + 3 + 1)
    described = describe(plan)
    assert described["lanes"]["obstacle"] is None
    assert described["lanes"]["bytes"] >= 2 * of_tensors + 2 * rows
    (line,) = _lanes(described)
    assert line == f"lanes: about {readable_bytes(lane_bytes(plan))} a point of the sweep; a chunk has 4 to 4,096 lanes"
    plan = compile(load(written(tmp_path, SEEDS, HEAD.replace("sgd: {lr: rate, momentum: momentum}", "lbfgs: {}"))))
    assert list(_lanes(describe(plan))) == ["lanes: none (lbfgs); the points of the sweep run in processes"]
    assert list(_lanes(describe(compile(without_sweep(plan.config))))) == []


def test_a_sweep_that_ends_early_leaves_the_threads_of_torch(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    events = Here(tmp_path, Settings(threads=before + 1), lambda: 1).run([Task(0, (), "a")])
    assert next(events) == Begun(0)
    events.close()
    assert torch.get_num_threads() == before


def test_lanes_that_take_too_long_run_alone(tmp_path: Path) -> None:
    pool = Processes(tmp_path, Settings(), first=1, jobs=1, time_limit=5.0)
    for reason, alone in ((None, DIED), ("took longer than 5 s", LATE)):
        ours, _ = Pipe()
        read_end, lifeline = os.pipe()
        process: Any = SimpleNamespace(wait=lambda seconds: 0, returncode=-9)
        tasks = {index: Task(index, (), str(index), chunk=1) for index in range(4)}
        worker = _Worker(process, ours, lifeline, tasks=dict(tasks), running=3)
        pool._workers.append(worker)
        assert list(pool._died(worker, reason)) == []
        os.close(read_end)
        assert [(task.index, task.chunk, task.alone) for task in pool._waiting] == [(i, 0, alone) for i in range(4)]
        pool._waiting.clear()


def swept(folder: Path, sweep: str, head: str = HEAD, **how: Any) -> Any:
    plan, seen = planned(folder, sweep, head), Seen()
    directory = start_sweep(load(folder / "swept.yaml"), plan, {}, folder / "sweeps", How(**how))
    outcomes = run_sweep(directory, plan, How(**how), seen)
    return open_sweep(directory), plan, outcomes


@pytest.mark.slow
def test_a_lane_that_fails_has_the_failure_and_the_rows_of_the_run_alone(tmp_path: Path) -> None:
    sweep, plan, outcomes = swept(tmp_path, "sweep: {grid: {rate: [0.1, 1e30, 0.2, 0.3, 0.4]}}\n", jobs=1)
    reason = "a number is not finite, or an `expect` does not hold"
    assert [outcomes[index].alone for index in range(5)] == ["", reason, "", "", ""]
    assert outcomes[1].failure == "sweep.yaml:4:21: `loss` is inf, from `w ** 2` (row 2, repeat[2].train)"
    alone = run_point(Work(plan.base, tmp_path), plan.tasks[1]).outcome
    assert (outcomes[1].rows, alone.status) == (alone.rows, "failed")
    for index in (0, 2, 3, 4):
        assert_is_the_run_alone(sweep, plan, index)


@pytest.mark.slow
def test_a_killed_sweep_of_lanes_resumes(tmp_path: Path) -> None:
    sweep = "sweep: {grid: {momentum: [0, 0.5, 0.9], seed: range(4)}}\n"
    config = written(tmp_path, sweep, LONG)
    process = command("sweep", config, "--jobs", "1", cwd=tmp_path)
    directory = wait_for_parts(tmp_path, 1, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    plan, how = resume_sweep(directory, How(jobs=1))
    run_sweep(directory, plan, how, Seen())
    found = open_sweep(directory)
    assert found.table().column("status").to_pylist() == ["finished"] * 12
    for index in (0, 5, 11):
        assert_is_the_run_alone(found, plan, index)


def test_the_largest_difference_is_said() -> None:
    def table(loss: list[float | None], w: list[float]) -> pyarrow.Table:
        return pyarrow.table({"loss": pyarrow.array(loss, pyarrow.float32()), "w": w, "label": ["a"] * len(w)})

    nan = math.nan
    first = table([1.0, 2.0, nan, None], [0.0, 1.0, 2.0, 3.0])
    assert difference_between(first, first) is None
    for loss, w, text in [
        ([1.0, 2.5, nan, None], [0.0, 1.0, 2.25, 3.0], "`loss` differs from the run alone by up to 0.5"),
        ([1.0, 2.5, nan, None], [0.0, 1.0, 2.25, 9.0], "`w` differs from the run alone by up to 6"),
        ([1.0, 2.0, 7.0, None], [0.0, 1.0, 2.25, 9.0], "`loss` differs from the run alone by up to inf"),
        ([1.0, 2.0, nan, 1.0], [0.0, 1.0, 2.25, 9.0], "`loss` differs from the run alone by up to inf"),
        ([1.0, 2.0, nan, None], [-0.0, 1.0, 2.0, 3.0], "`w` differs from the run alone by up to 0"),
        ([1.0, 2.0, nan], [0.0, 1.0, 2.0], "a lane has other rows than the run alone"),
    ]:
        found = difference_between(first, table(loss, w))
        assert found is not None
        assert found.text == text


def test_elements_of_large_tensors_are_compared_as_numbers_and_digests_as_they_are(tmp_path: Path) -> None:
    head = "parameters: {w: {shape: [70, 70], init: ones}}\nexpression: loss = (w ** 2).sum()\n"
    head += "optimizer: {sgd: {lr: 0.1}}\n"
    for log, text in (("full", "`w` differs from the run alone by up to 0.05"), ("digest", None)):
        config = loads(head + f"steps: 2\nlog: {{tensors: {log}, include: [w]}}\n")
        runs = [run_point(Work(config, tmp_path), Task(0, (f"optimizer.sgd.lr={lr}",), "")) for lr in (0.1, 0.125)]
        tables = [run.table for run in runs]
        assert tables[0] is not None
        assert tables[1] is not None
        found = difference_between(tables[1].slice(0, 2), tables[0].slice(0, 2))
        assert found is not None
        name = found.column
        expected = text or f"`{name}` differs from that of the run alone"
        assert (found.text, difference_between(tables[0], tables[0])) == (expected, None)


def test_close_lanes_say_how_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter([1e-9, 3e-8, 1e-9, 1e-9] * 2)

    def between(lane: Any, alone: Any) -> Difference:
        return Difference(f"`loss` differs by {(size := next(sizes)):g}", size, "loss")

    monkeypatch.setattr("runner.sweep.lanes.chunk.difference_between", between)
    plan = planned(tmp_path, SEEDS, HEAD)
    tasks = Grouping(plan.base, plan.first, (), None).grouped(plan.tasks)
    close = run_chunk(Work(without_sweep(plan.base), tmp_path, exact=False), tasks, lambda: False)
    assert [outcome.difference for outcome in close.outcomes] == ["`loss` differs by 3e-08"] * 8
    progress = SweepProgress(8, None, quiet=True)
    progress.ended([])
    progress.ended(close.outcomes)
    further = [replace(each, index=8 + each.index, difference="more", distance=1.0) for each in close.outcomes[:2]]
    progress.ended(from_json(to_json(further)))
    progress.ended([replace(further[0], index=20, difference="less", distance=0.5)])
    assert progress.lanes() == "11 of 11 points in lanes; more"
    exact = run_chunk(Work(without_sweep(plan.base), tmp_path), tasks, lambda: False)
    assert (exact.outcomes, {task.alone for task in exact.alone}) == ((), {"`loss` differs by 3e-08"})


def test_faults_of_the_option() -> None:
    with pytest.raises(UsageError, match=r"--lanes is `all`: it takes `exact`, `close` or `off`$"):
        _check_lanes("all")


AXES: list[dict[str, list[Any]]] = [
    {"seed": [0, 1, 2**62], "rate": [1e-5, 0.1, 3]},
    {"optimizer.sgd.lr": [0.1, 1e-300], "constants.rate": [0.5, 2]},
    {"parameters.w.init": [1, -0.0, 1e30]},
]


@pytest.mark.parametrize("axes", AXES, ids=str)
def test_points_that_are_planned_together_have_the_identities_of_each(
    axes: dict[str, list[Any]], tmp_path: Path
) -> None:
    head = HEAD.replace("init: {normal: {std: 1}}", "init: 0.5")
    plan = plan_sweep(load(written(tmp_path, "", head)), axes)
    for task in plan.tasks:
        assert Identities().of(overridden(plan.base, task.overrides)) == task.identity
    assert len({task.identity for task in plan.tasks}) == len(plan.tasks)


def test_the_line_counts_points_by_reason() -> None:
    assert lanes_line([""] * 612 + ["lbfgs"] * 388) == "612 of 1,000 points in lanes; 388 in processes: lbfgs"
    assert lanes_line(["", "a", "b", "a"]) == "1 of 4 points in lanes; 3 in processes: 2 a, 1 b"
    assert lanes_line([""]) == "1 of 1 point in lanes"
    assert re.search("…$", lanes_line(["a", "b", "c", "d", "e"]))
