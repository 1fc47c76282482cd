"""Lanes in regions of XLA: each has the rows and the weights of the run alone in the eager engine, up to rounding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

import runner
from runner.engine import initial_state
from runner.engine.lanes.execute import Ran, run_lanes
from runner.engine.lanes.operations.tensor import NotStackable
from runner.engine.lanes.starting import Lane
from runner.plan.checks.engines.stackable import unstackable
from tests.engine.lanes.test_recorded import NET
from tests.engine.lanes.test_running import _one_thread, config_of

pytest.importorskip("jax")

from runner.engine.xla.regions import Region

__all__ = ["_one_thread"]

SHUFFLED = """\
parameters: {w: {shape: [4], init: {normal: {std: 0.5}}}}
data: {train: {file: train.npz, columns: {x: x}, batch_size: 3, shuffle: true}}
expression: loss = ((x * w).sum(1) ** 2).mean()
optimizer: {adam: {lr: 0.01}}
"""
ADAM = "optimizer: {adam: {lr: 0.1}}\n"


@dataclass(frozen=True, slots=True)
class Case:
    """A config, and what three lanes have of their own: as lanes, and as overrides of the run alone."""

    text: str
    overrides: Sequence[Sequence[str]] = (("seed=0",), ("seed=1",), ("seed=5",))
    lanes: Sequence[Lane] = field(default_factory=lambda: [Lane(seed) for seed in (0, 1, 5)])


RATES = Case(
    NET + "optimizer: {sgd: {lr: 0.1}}\nsteps: 11\nlog: {every: 3}\n",
    [[f"optimizer.sgd.lr={rate}"] for rate in (0.1, 0.03, 0.0)],
    [Lane(0, rates={"optimizer": rate}) for rate in (0.1, 0.03, 0.0)],
)
CASES: Mapping[str, Case] = {
    "rates of Adam": Case(
        NET + ADAM + "steps: 9\nlog: {state: true}\n",
        [[f"optimizer.adam.lr={rate}"] for rate in (0.1, 0.03, 0.001)],
        [Lane(0, rates={"optimizer": rate}) for rate in (0.1, 0.03, 0.001)],
    ),
    "fills": Case(
        "parameters: {w: {shape: [3], init: 2.0}}\nexpression: loss = (w ** 2).sum()\n" + ADAM + "steps: 6\n",
        [[f"parameters.w.init={value}"] for value in (2.0, -1.0, 0.5)],
        [Lane(0, fills={"w": value}) for value in (2.0, -1.0, 0.5)],
    ),
    "clipped": Case(NET + ADAM + "steps: [{repeat: {times: 6, steps: [{train: {clip_grad_norm: 0.05}}]}}]\n"),
    "a schedule": Case(NET + "optimizer: {sgd: {lr: 0.1 / t, momentum: 0.9}}\nsteps: 6\n"),
    "two optimizers": Case(
        NET
        + "optimizers: {o: {sgd: {lr: 0.1}, parameters: [w, b]}, p: {adamw: {lr: 0.01}, parameters: [v]}}\nsteps: 6\n"
    ),
    "an optimizer of torch": Case(NET + "optimizer: {rmsprop: {lr: 0.01}}\nlog: {state: true}\nsteps: 6\n"),
    "a rule": Case(
        NET + "optimizer:\n  rule:\n    state: {m: 0.0}\n    update: |\n"
        "      m = 0.9 * m + grad\n      param = param - 0.1 / t * m\nsteps: 6\n"
    ),
    "several loops": Case(
        NET
        + ADAM
        + "steps: [{repeat: {times: 3, steps: "
        + "[{repeat: {times: 3, steps: [train]}}, {assign: {b: 0.5 * b}}, train]}}]\n"
    ),
    "shuffled": Case(SHUFFLED + "steps: {epochs: 4}\n"),
    "a value of each sample, and a shorter batch": Case(
        SHUFFLED.replace(
            "expression: loss = ((x * w).sum(1) ** 2)", "expression: |\n  p = (x * w).sum(1)\n  loss = (p**2)"
        )
        + "steps: {epochs: 4}\n"
    ),
    "the same batches": Case(
        SHUFFLED + "steps: {epochs: 3}\nlog: {every: 4}\n",
        [[f"optimizer.adam.lr={rate}"] for rate in (0.1, 0.03, 0.001)],
        [Lane(0, rates={"optimizer": rate}) for rate in (0.1, 0.03, 0.001)],
    ),
}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Regions of at most four iterations, and some data."""
    monkeypatch.setattr("runner.engine.lanes.translated.trainer.MOST_AT_ONCE", 4)
    monkeypatch.chdir(tmp_path)
    numpy.savez("train.npz", x=numpy.random.default_rng(0).normal(size=(11, 4)).astype("float32"))


def agrees(case: Case) -> None:
    plan = runner.compile(config_of(case.text, "engine=xla", *case.overrides[0]))
    assert unstackable(plan, exact=False) is None
    ran = run_lanes(plan, case.lanes, exact=False)
    assert list(ran.sound) == [True] * len(case.lanes)
    for lane, overrides in enumerate(case.overrides):
        agrees_alone(ran, lane, runner.compile(config_of(case.text, "engine=eager", *overrides)))


def agrees_alone(ran: Ran, lane: int, plan: runner.Plan) -> None:
    state = initial_state(plan)
    rows = list(runner.execute(plan, state))
    assert [(row.number, row.step, row.path, row.iteration) for row in rows] == list(
        zip(ran.numbers, ran.steps, ran.paths, ran.iterations, strict=True)
    )
    for place, column in enumerate(plan.columns):
        found = ran.columns[place]
        values = [row.values[place] for row in rows]
        assert list(found.present) == [value is not None for value in values], column.name
        existing = [value for value in values if value is not None]
        if existing:
            assert found.values is not None
            own = found.values[lane] if isinstance(found.values, Tensor) else [value[lane] for value in found.values]
            torch.testing.assert_close(list(own), existing, rtol=1e-4, atol=1e-5)
    for name, parameter in state.parameters.items():
        torch.testing.assert_close(ran.weights[name][lane], parameter.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_rates_differ_and_the_log_keeps_some_rows() -> None:
    agrees(RATES)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_each_lane_is_the_run_alone(name: str) -> None:
    agrees(CASES[name])


def test_a_lane_that_becomes_infinite_is_not_sound_and_the_others_are() -> None:
    text = """\
parameters: {w: {shape: [3], init: 2.0}}
expression: loss = sqrt(w - 0.35).sum()
optimizer: {sgd: {lr: 0.2}}
steps: 7
"""
    plan = runner.compile(config_of(text, "engine=xla"))
    ran = run_lanes(plan, [Lane(0, fills={"w": value}) for value in (2.0, 0.5, 3.0)], exact=False)
    assert list(ran.sound) == [True, False, True]


def test_a_first_step_that_differs_is_no_lane() -> None:
    text = NET + "optimizer: {sgd: {lr: 0.1, momentum: 0.9, dampening: 0.5}}\nsteps: 3\n"
    plan = runner.compile(config_of(text, "engine=xla"))
    with pytest.raises(NotStackable, match="the first step of `dampening` differs from the others"):
        run_lanes(plan, [Lane(seed) for seed in range(2)], exact=False)


def test_an_integer_that_float64_does_not_have_is_no_lane() -> None:
    text = NET + "optimizer: {sgd: {lr: 0.1}}\nsteps: 4\nmetrics: {n: 'iteration + 9007199254740990'}\n"
    plan = runner.compile(config_of(text, "engine=xla"))
    with pytest.raises(NotStackable, match=r"^it computes an integer beyond 2\^53$"):
        run_lanes(plan, [Lane(seed) for seed in range(2)], exact=False)


FULL = "RESOURCE_EXHAUSTED: Out of memory allocating 4294967296 bytes."


@pytest.mark.slow
def test_regions_of_lanes_are_shorter_where_memory_is_short_with_the_same_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("runner.engine.lanes.translated.trainer.MOST_AT_ONCE", 64)
    plan = runner.compile(config_of(RATES.text, "engine=xla"))
    whole, run, calls = run_lanes(plan, RATES.lanes, exact=False), Region.__call__, []

    def call(region: Region, *given: Any) -> Any:
        calls.append(region._longest)
        if region._longest > most:
            raise RuntimeError(FULL)
        return run(region, *given)

    monkeypatch.setattr(Region, "__call__", call)
    most = 8
    found = run_lanes(plan, RATES.lanes, exact=False)
    assert calls == [64, 4, 4, 4]  # of 11 iterations
    assert found.numbers == whole.numbers
    assert found.paths == whole.paths
    for name, weights in whole.weights.items():
        assert torch.equal(found.weights[name], weights)
    for column, other in zip(found.columns, whole.columns, strict=True):
        assert column.present == other.present
        assert (column.values is None) == (other.values is None)
        assert other.values is None or torch.equal(torch.as_tensor(column.values), torch.as_tensor(other.values))
    most = 0
    with pytest.raises(runner.RunError, match=r"this does not fit into memory: it needs 4\.0 GiB \(at repeat\[1\]"):
        run_lanes(plan, RATES.lanes, exact=False)
    assert calls[4:] == [64, 4, 2]


@pytest.mark.parametrize(
    ("text", "exact", "reason"),
    [
        (RATES.text, True, "engine: xla without --lanes close"),
        (
            NET.replace("tanh(x @ w + b)", "dropout(x @ w + b)") + ADAM + "steps: 3\n",
            False,
            "random numbers with engine: xla",
        ),
    ],
)
def test_what_is_no_lane_says_why(text: str, exact: bool, reason: str) -> None:
    found = unstackable(runner.compile(config_of(text, "engine=xla")), exact)
    assert found is not None
    assert (found.reason, found.path) == (reason, ("engine",))


LOOP = NET + ADAM + "steps: [{repeat: {times: 6, steps: [train, %s]}}]\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LOOP % "{stop: , when: loss < 1e-9}", "`stop` that reads a tensor with engine: xla"),
        (LOOP % "{assign: {b: b * 0.5}, when: loss > 1}", "`when` that reads a tensor with engine: xla"),
        (LOOP % "{checkpoint: middle}", "`checkpoint` with engine: xla"),
    ],
)
def test_lanes_that_may_part_are_those_of_the_eager_engine(text: str, reason: str) -> None:
    assert unstackable(runner.compile(config_of(text)), exact=True) is None
    found = unstackable(runner.compile(config_of(text, "engine=xla")), exact=False)
    assert found is not None
    assert found.reason == reason
    assert found.path[0] == "steps"
