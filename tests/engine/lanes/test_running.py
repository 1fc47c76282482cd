"""Running lanes: every optimizer and every random stream, against `torch.optim` and runs alone."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import runner
from runner.catalogue import optimizers
from runner.config import loads, overridden
from runner.engine import initial_state
from runner.engine.lanes.execute import Ran, run_lanes
from runner.engine.lanes.operations.same_bits import same_bits
from runner.engine.lanes.operations.tensor import NotStackable
from runner.engine.lanes.starting import Lane
from runner.engine.lanes.updates import Rate, gives_bits
from runner.plan.checks.engines.stackable import unstackable

READING = ("adafactor",)
RATES = [0.1, 0.03, 1e-3, 0.7, 0.0]
CURVED = """\
parameters: {w: {shape: [5], init: {normal: {std: 1}}}, v: {shape: [3, 17], init: {uniform: {a: -1, b: 1}}}}
expression: loss = (w ** 2).sum() + (v * v).mean() * w[0] + v.sum()
"""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings(action="ignore"):
        yield
    torch.set_num_threads(before)


def config_of(text: str, *overrides: str) -> Any:
    config = loads(text, name="lanes.yaml")
    return overridden(config, list(overrides)) if overrides else config


def assert_is_alone(ran: Ran, lane: int, text: str, *overrides: str) -> None:
    """The rows of a lane are those of the run alone, bit by bit."""
    plan = runner.compile(config_of(text, *overrides))
    rows = list(runner.execute(plan))
    assert [row.path for row in rows] == list(ran.paths)
    for place, column in enumerate(plan.columns):
        found = ran.columns[place]
        values = [row.values[place] for row in rows]
        assert list(found.present) == [value is not None for value in values], column.name
        existing = [value for value in values if value is not None]
        for row, value in enumerate(existing):
            assert found.values is not None
            own = found.values[lane, row] if isinstance(found.values, Tensor) else found.values[row][lane]
            assert same_bits(own, value), (column.name, row)


@pytest.mark.parametrize("kind", sorted(optimizers()))
def test_every_optimizer_steps_as_alone(kind: str) -> None:
    text = CURVED + f"optimizer: {{{kind}: {{lr: 0.01}}}}\nsteps: 6\n"
    try:
        plan = runner.compile(config_of(text, "seed=0"))
    except runner.ConfigError:
        pytest.skip("takes other parameters")
    if unstackable(plan) is not None:
        assert kind == "lbfgs"
        return
    if kind in READING:
        with pytest.raises(NotStackable, match="a number is read back from a tensor"):
            run_lanes(plan, [Lane(seed) for seed in range(5)])
        return
    ran = run_lanes(plan, [Lane(seed) for seed in range(5)])
    for lane in (0, 4):
        assert_is_alone(ran, lane, text, f"seed={lane}")


UPDATES = [
    ("sgd", {}),
    ("sgd", {"momentum": 0.9}),
    ("sgd", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("sgd", {"momentum": 0.5, "dampening": 0.1, "maximize": True}),
    ("adam", {}),
    ("adam", {"weight_decay": 0.1, "betas": [0.8, 0.99]}),
    ("adamw", {"weight_decay": 0.1}),
    ("adam", {"maximize": True, "eps": 1e-3}),
]


@pytest.mark.parametrize(("kind", "options"), UPDATES, ids=str)
def test_a_rate_for_each_lane_gives_the_bits_of_torch_optim(kind: str, options: dict[str, Any]) -> None:
    written = ", ".join([f"{name}: {str(value).lower()}" for name, value in options.items()])
    text = CURVED + f"optimizer: {{{kind}: {{lr: 0.1{', ' if written else ''}{written}}}}}\nsteps: 8\n"
    plan = runner.compile(config_of(text, "seed=0"))
    ran = run_lanes(plan, [Lane(seed, {}, {"optimizer": rate}) for seed, rate in enumerate(RATES)])
    classes = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    for lane, rate in enumerate(RATES):
        start = initial_state(runner.compile(config_of(text, f"seed={lane}"))).parameters
        w, v = (start[name].detach().clone().requires_grad_() for name in ("w", "v"))
        given = {**options, "betas": tuple(options["betas"])} if "betas" in options else options
        optimizer = classes[kind]([w, v], lr=rate, foreach=False, **given)
        for _ in range(8):
            optimizer.zero_grad()
            ((w**2).sum() + (v * v).mean() * w[0] + v.sum()).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        assert same_bits(ran.weights["w"][lane], w.detach())
        assert same_bits(ran.weights["v"][lane], v.detach())


DROPOUT = """\
parameters: {w: {shape: [33, 4], init: kaiming_uniform}}
constants: {x: {shape: [8, 33], init: {expression: "sin(arange(264.0)).reshape(8, 33)"}}}
expression: |
  h = dropout(x, 0.5) @ dropout(w, 0.3) + 0.1 * randn(4)
  loss = (h ** 2).mean()
optimizer: {adam: {lr: 0.01}}
steps: 5
"""


def test_a_first_rate_of_zero_does_not_hide_other_bits() -> None:
    def mixing(_: Any, weight: Tensor, gradient: Tensor, entries: Any, t: float, rate: Rate) -> None:
        weight.add_(gradient.sum() * rate)  # of all lanes that it gets

    weight = torch.ones(2, 3)
    assert not gives_bits(mixing, {}, weight, weight, (), 0.0)


def test_each_lane_draws_from_its_own_streams() -> None:
    ran = run_lanes(runner.compile(config_of(DROPOUT, "seed=3")), [Lane(seed) for seed in (3, 0, 9)])
    for lane, seed in enumerate((3, 0, 9)):
        assert_is_alone(ran, lane, DROPOUT, f"seed={seed}")


def weights(text: str, seeds: Sequence[int]) -> dict[int, Tensor]:
    ran = run_lanes(runner.compile(config_of(text, f"seed={seeds[0]}")), [Lane(seed) for seed in seeds])
    return dict(zip(seeds, ran.weights["w"], strict=True))


@pytest.mark.parametrize(
    "text", [DROPOUT, CURVED + "optimizer: {adam: {lr: 0.1}}\nsteps: 9\n"], ids=["drops", "curved"]
)
def test_a_lane_does_not_depend_on_its_company(text: str) -> None:
    alone = weights(text, [5, 6])[5]
    for seeds in ([5, 1, 2], [2, 5], list(range(40)), [39, 7, 5, 0]):
        assert same_bits(weights(text, seeds)[5], alone)


def test_a_lane_with_something_infinite_is_noted_and_the_others_go_on() -> None:
    text = CURVED + "optimizer: {sgd: {lr: 0.1}}\nsteps: 9\n"
    plan = runner.compile(config_of(text, "seed=0"))
    ran = run_lanes(plan, [Lane(0, {}, {"optimizer": rate}) for rate in (0.1, 1e30, 0.2)])
    assert list(ran.sound) == [True, False, True]
    assert_is_alone(ran, 2, text, "seed=0", "optimizer.sgd.lr=0.2")


def test_a_lane_that_an_expect_step_refuses_is_noted() -> None:
    text = CURVED + "optimizer: {sgd: {lr: 0.1}}\nsteps: [train, {expect: {w: {value: 0, atol: 3}}}]\n"
    starts = [initial_state(runner.compile(config_of(text, f"seed={seed}"))).parameters for seed in range(30)]
    plan = runner.compile(config_of(text, "seed=0"))
    ran = run_lanes(plan, [Lane(seed) for seed in range(30)])
    expected = []
    for start in starts:
        w, v = start["w"].detach(), start["v"].detach()
        gradient = 2 * w
        gradient[0] += (v * v).mean()
        expected.append(bool(((w - 0.1 * gradient).abs() <= 3).all()))
    assert list(ran.sound) == expected


def runs_alone(text: str, *overrides: str) -> bool:
    try:
        list(runner.execute(runner.compile(config_of(text, *overrides))))
    except runner.RunError:
        return False
    return True


@pytest.mark.parametrize(
    "steps",
    ["[{expect: {w.grad: 1.0}}, train]", "[{expect: {w.grad: null}}, train]", "[backward, {expect: {w.grad: null}}]"],
)
def test_an_expected_gradient_that_no_lane_has_or_all_have_is_noted(steps: str) -> None:
    text = CURVED + f"optimizer: {{sgd: {{lr: 0.1}}}}\nsteps: {steps}\n"
    ran = run_lanes(runner.compile(config_of(text)), [Lane(0), Lane(1)])
    assert list(ran.sound) == [runs_alone(text, f"seed={seed}") for seed in range(2)]


@pytest.mark.parametrize("kind", ["sgd", "rmsprop"])
def test_a_weight_that_is_infinite_after_the_last_step_is_noted(kind: str) -> None:
    text = CURVED + f"optimizer: {{{kind}: {{lr: RATE}}}}\nsteps: 1\n"
    for rate in ("0.1", "3e38"):
        whole = text.replace("RATE", rate)
        ran = run_lanes(runner.compile(config_of(whole)), [Lane(0), Lane(1)])
        assert list(ran.sound) == [runs_alone(whole, f"seed={seed}") for seed in range(2)] == [rate == "0.1"] * 2


def test_an_infinite_gradient_that_is_clipped_is_noted() -> None:
    text = "parameters: {w: {shape: [2], init: 0.0}}\nexpression: f = sqrt(w).sum()\n"
    text += "optimizer: {sgd: {lr: 0.1}}\nsteps: [train: {clip_grad_value: 1}]\n"
    ran = run_lanes(runner.compile(config_of(text)), [Lane(0, {"w": value}) for value in (0.0, 1.0)])
    assert list(ran.sound) == [runs_alone(text, f"parameters.w.init={value}") for value in (0.0, 1.0)] == [False, True]


def test_filled_tensors_may_differ() -> None:
    text = "parameters: {w: {shape: [3], init: 1.5}}\nexpression: f = (w ** 3).sum()\n"
    text += "optimizer: {sgd: {lr: 0.01}}\nsteps: 4\n"
    ran = run_lanes(runner.compile(config_of(text)), [Lane(0, {"w": value}) for value in (1.5, -2, 0.1)])
    for lane, value in enumerate((1.5, -2, 0.1)):
        assert_is_alone(ran, lane, text, f"parameters.w.init={value}")
