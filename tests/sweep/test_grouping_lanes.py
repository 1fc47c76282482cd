"""Which points of a sweep are lanes of one computation, and what is said of the others."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.cli.commands.sweeping import _check_lanes
from runner.cli.output.plan_json import describe
from runner.cli.output.plan_text import _lanes
from runner.cli.output.sweep_progress import lanes_line
from runner.config import load, loads, overridden
from runner.errors import ConfigError, UsageError
from runner.language.inference.inference import readable_bytes
from runner.plan import compile
from runner.sweep.lanes import grouping
from runner.sweep.lanes.grouping import NUMBER, Grouping, check_some, lane_bytes
from runner.sweep.lanes.literals import Literals
from runner.sweep.lanes.varying import varying
from runner.sweep.planning import SweepPlan, plan_sweep
from runner.sweep.points.identity import Identities
from runner.sweep.points.space import without_sweep
from runner.sweep.running import How, grouping_of
from tests.sweep.configs import HEAD, written
from tests.sweep.test_running import SEEDS
from tests.tables import over

LBFGS = HEAD.replace("sgd: {lr: rate, momentum: momentum}", "lbfgs: {lr: rate}")


def planned(folder: Path, sweep: str, head: str = HEAD) -> SweepPlan:
    return plan_sweep(load(written(folder, sweep, head)), {})


def reasons(plan: SweepPlan, **how: Any) -> list[str]:
    grouped = grouping_of(plan, How(**how)).grouped(plan.tasks)
    return [task.alone for task in sorted(grouped, key=lambda task: task.index)]


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


def test_the_lanes_of_a_chunk_fit_the_memory_of_rows_of_the_cache_and_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = compile(planned(tmp_path, SEEDS).base)
    log, touched, lane = plan.estimates.log, grouping.touched_bytes(plan), lane_bytes(plan)
    assert min(log, touched) > 1
    for rows, cache, room, expected in (
        (10 * log, 1 << 40, None, 10),
        (1, 1 << 40, None, 1),
        (1 << 40, 20 * touched, None, 20),
        (1 << 40, 1, None, 8),  # the least, however small the cache
        (1 << 40, 1 << 40, None, 4096),  # the most
        (1 << 40, 1 << 40, 5 * lane + 1, 5),
        (1 << 40, 1 << 40, 1, 1),
    ):
        monkeypatch.setattr(grouping, "ROWS_BYTES", rows)
        monkeypatch.setattr(grouping, "TOUCHED_BYTES", cache)
        assert grouping.lanes_at_once(plan, room) == expected


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


def test_integers_that_float64_cannot_represent_are_no_numbers_of_lanes() -> None:
    def of(number: int) -> Any:
        text = f"parameters: {{w: 1.0}}\nexpression: f = w * {number}\noptimizer: {{sgd: {{lr: 0}}}}\nsteps: [train]\n"
        return compile(loads(text))

    assert Literals(of(2)).add(of(2**53))
    assert not Literals(of(2**53 + 2)).add(of(2**53 + 4))


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
