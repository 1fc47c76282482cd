"""Recorded `train` steps of lanes against runs alone, bit by bit, for what could go wrong between two steps."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import torch

import runner
from runner.engine.lanes.execute import run_lanes
from runner.engine.lanes.operations.same_bits import same_bits
from runner.engine.lanes.starting import Lane
from runner.engine.lanes.training import _Training
from tests.engine.lanes.test_running import _one_thread, assert_is_alone, config_of
from tests.tables import over

__all__ = ["_one_thread"]

NET = """\
parameters:
  w: {shape: [5, 7], init: {normal: {std: 0.5}}}
  b: {shape: [7], init: zeros}
  v: {shape: [7], init: {uniform: {a: -1, b: 1}}}
constants: {x: {shape: [3, 5], init: {expression: "sin(arange(15.0)).reshape(3, 5)"}}, scale: 2.0}
expression: |
  h = tanh(x @ w + b)
  loss = ((h @ v) ** 2).mean() * scale + 0.1 * (w ** 2).sum()
"""
DATA = """\
parameters: {w: {shape: [4], init: {normal: {std: 0.5}}}}
data: {train: {file: train.npz, columns: {x: x}, batch_size: 3, shuffle: SHUFFLE}}
expression: |
  scores = (x * w).sum(1)
  loss = (scores ** 2).mean() * FACTOR
optimizer: {adam: {lr: 0.01}}
steps: [{for_each: {data: train, epochs: 5, steps: [STEP]}}]
"""
PROGRAMS = [
    "optimizer: {sgd: {lr: 0.1}}\nsteps: [{repeat: {times: 6, steps: [{train: {clip_grad_norm: 0.05}}]}}]\n",
    "optimizer: {sgd: {lr: 0.1}}\nsteps: [{repeat: {times: 6, steps: [{train: {clip_grad_value: 0.01}}]}}]\n",
    "optimizer: {adam: {lr: 0.05 / t}}\nsteps: 6\n",
    "optimizer: {sgd: {lr: 0.05, momentum: 0.5 / t}}\nsteps: 6\n",
    "optimizer: {adam: {lr: 0.01, amsgrad: true}}\nsteps: 6\n",
    "optimizer: {rmsprop: {lr: 0.01}}\nsteps: 6\n",
    "optimizer: {adam: {lr: 0.01}}\nlog: {state: true}\nsteps: 6\n",
    "optimizers: {o: {sgd: {lr: 0.1}, parameters: [w, b]}, p: {adamw: {lr: 0.01}, parameters: [v]}}\nsteps: 6\n",
    "optimizer: {sgd: {lr: 0.1, momentum: 0.9, nesterov: true}}\n"
    "steps: [{repeat: {times: 5, steps: [backward, step]}}]\n",
    "optimizer: {sgd: {lr: 0.1}}\nsteps: [{repeat: {times: 6, steps: [train, {assign: {b: 0.5 * b}, every: 2}]}}]\n",
    "optimizer: {sgd: {lr: 0.1}}\n"
    "steps: [{repeat: {times: 9, steps: [train, {stop: null, when: iteration == 6}]}}, forward]\n",
    "optimizer: {sgd: {lr: 0.1}}\nlog: {every: 4}\nsteps: 10\n",
    "optimizer: {sgd: {lr: 0.1}}\ndtype: float64\nsteps: 6\n",
    "optimizer: {adam: {lr: 0.1}, state: {w: {exp_avg: 0.5}}}\nsteps: 6\n",
    "optimizer: {sgd: {lr: 0.1, momentum: 0.9}, state: {w: {momentum_buffer: 0.5}}}\nsteps: 6\n",
]


@pytest.mark.slow
@over("program", PROGRAMS)
def test_a_recorded_step_has_the_bits_of_the_run_alone(program: str) -> None:
    plan = runner.compile(config_of(NET + program, "seed=0"))
    for count in (1, 5) if program == PROGRAMS[0] else (5,):
        ran = run_lanes(plan, [Lane(seed) for seed in range(count)])
        assert list(ran.sound) == [True] * count
        for lane in {0, count - 1}:
            assert_is_alone(ran, lane, NET + program, f"seed={lane}")


@over(
    ("shuffle", "factor", "step"),
    [
        ("true", "1.0", "train"),  # each lane has its own batches, and the last one is shorter
        ("false", "1.0", "train"),  # all lanes share the batches, which change
        ("true", "iteration", "train"),  # a number that changes
        ("true", "dropout(ones(4), 0.5).mean()", "train"),
    ],
)
def test_batches_that_change_are_inputs_of_a_recording(
    shuffle: str, factor: str, step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    numpy.savez("train.npz", x=numpy.random.default_rng(0).normal(size=(8, 4)).astype(numpy.float32))
    text = DATA.replace("SHUFFLE", shuffle).replace("FACTOR", factor).replace("STEP", step)
    ran = run_lanes(runner.compile(config_of(text, "seed=0")), [Lane(seed) for seed in range(3)])
    for lane in (0, 2):
        assert_is_alone(ran, lane, text, f"seed={lane}")


def test_a_step_runs_from_its_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []
    compute = _Training._compute
    monkeypatch.setattr(_Training, "_compute", lambda self, *given: (computed.append(1), compute(self, *given))[1])
    run_lanes(runner.compile(config_of(NET + "optimizer: {adam: {lr: 0.1}}\nsteps: 20\n")), [Lane(0), Lane(1)])
    assert len(computed) == 2  # operations are chosen, and recorded


def test_many_lanes_of_which_some_diverge() -> None:
    text = "parameters: {w: 3}\nexpression: loss = w ** 2\noptimizer: {sgd: {lr: 0.1}}\nsteps: 60\n"
    rates = [0.9 * 1.01**place for place in range(1025)]
    ran = run_lanes(runner.compile(config_of(text)), [Lane(0, {}, {"optimizer": rate}) for rate in rates])
    w, sound = torch.full((1025,), 3.0), torch.ones(1025, dtype=torch.bool)
    for _ in range(60):  # by hand
        sound &= (w**2).isfinite()
        w = torch.addcmul(w, 2 * w, -torch.tensor(rates, dtype=torch.float64).float())
    assert same_bits(ran.weights["w"], w)
    assert list(ran.sound) == (sound & w.isfinite()).tolist()
    assert 1 < sum(ran.sound) < 1024


@over(
    ("clip", "start", "sound"),
    [
        ("", "1.0e+30", [True, False]),  # the square of the second overflows
        (", steps: [{train: {clip_grad_value: 1}}]", "1.0e+30", [True, False]),  # its gradient is clipped to 1
    ],
)
def test_an_infinite_gradient_is_noted_even_if_it_is_clipped(clip: str, start: str, sound: list[bool]) -> None:
    steps = f"steps: [{{repeat: {{times: 4{clip or ', steps: [train]'}}}}}]\n"
    text = "parameters: {w: 0}\nexpression: loss = (w ** 2) ** 2 * 1.0e-9\noptimizer: {sgd: {lr: 0.1}}\n" + steps
    ran = run_lanes(runner.compile(config_of(text)), [Lane(0, {"w": 1.0}), Lane(0, {"w": float(start)})])
    assert list(ran.sound) == sound
