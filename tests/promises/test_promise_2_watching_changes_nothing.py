"""Promise 2: a logged run and an unlogged run end in bit-identical weights, gradients and optimizer state."""

from __future__ import annotations

import itertools

import pytest
import torch

import runner
from runner.engine import initial_state
from tests.engine.running import compiled, same

MODEL = """\
seed: 3
parameters:
  w: {shape: [4, 6], init: normal}
  v: {shape: [6], init: normal}
  average: {init: {expression: v}, requires_grad: false}
constants: {x: {shape: [5, 4], init: normal}}
expression: |
  h = dropout(tanh(x @ w), 0.25, training)
  view = h.reshape(-1)
  loss = (h @ v).square().mean() + 0.01 * view.abs().sum() + (average * v).sum()
"""

PROGRAMS = {
    "train": "steps: 15\n",
    "accumulated and clipped": "steps: [{repeat: {times: 15, steps: [train: {accumulate: 2, clip_grad_norm: 0.5}]}}]\n",
    "by parts": """\
steps:
  - repeat:
      times: 15
      steps:
        - {zero_grad: {set_to_none: false}, every: 2}
        - backward
        - clip_grad_value: 0.1
        - {forward: h, every: 3}
        - step
        - assign: {average: 0.9 * average + 0.1 * v, v.grad: v.grad * 0.5}
        - {stop: , when: iteration == 13}
""",
}
OPTIMIZERS = {
    "adam": "optimizer: {adam: {lr: 0.05}}\n",
    "nesterov": "optimizer: {sgd: {lr: 0.05, momentum: 0.9, nesterov: true, foreach: true}}\n",
    "scheduled": "optimizer: {rmsprop: {lr: 0.05 / t}}\n",
}
LOGS = {
    "nothing": "log: {tensors: none}\n",
    "every 7": "log: {every: 7}\n",
    "state": "log: {state: true}\n",
    "one column": "log: {include: [loss]}\n",
}


def final(text: str) -> dict[str, torch.Tensor]:
    """All tensors of the state after a run."""
    plan = compiled(text)
    state = initial_state(plan)
    for _ in runner.execute(plan, state):
        pass
    return {name: tensor.clone() for name, tensor in state.tensors().items()}


@pytest.mark.parametrize(("program", "optimizer"), list(itertools.product(PROGRAMS, OPTIMIZERS)))
def test_watching_changes_nothing(program: str, optimizer: str) -> None:
    text = MODEL + OPTIMIZERS[optimizer] + PROGRAMS[program]
    watched = final(text)
    assert {"w", "v", "average", "w.grad", "v.grad"} < set(watched)
    for log in LOGS.values():
        unwatched = final(text + log)
        assert sorted(unwatched) == sorted(watched)
        assert [name for name in watched if not same(watched[name], unwatched[name])] == []


def test_changing_a_row_changes_no_run() -> None:
    """A reader that writes into what it is given harms itself alone."""
    text = MODEL + OPTIMIZERS["adam"] + PROGRAMS["by parts"]
    plan = compiled(text)
    state = initial_state(plan)
    for row in runner.execute(plan, state):
        for column, value in zip(row.columns, row.values, strict=True):
            if value is not None and column.role in ("weight", "value") and value.is_floating_point():
                value.fill_(float("nan"))
    assert same(state.tensors()["w"], final(text)["w"])


def test_drawing_between_rows_changes_no_run() -> None:
    text = MODEL + OPTIMIZERS["adam"] + PROGRAMS["train"]
    plan = compiled(text)
    state = initial_state(plan)
    for _ in runner.execute(plan, state):
        torch.manual_seed(0)
        torch.rand(3)
    assert same(state.tensors()["w"], final(text)["w"])


def test_an_expectation_leaves_the_random_draws_of_the_training_alone() -> None:
    head = "{parameters: {x: 1.0}, expression: 'a = rand(2)\n\n  b = rand(2)\n\n  f = (x * b).sum()', steps: [%s]}"
    plain, observed = (
        [row["f"] for row in runner.execute(runner.compile(runner.loads(head % steps))) if row["f"] is not None]
        for steps in ("backward, backward", "backward, expect: {rand(2) < 2: true, a < 2: true}, backward")
    )
    assert [value.tolist() for value in plain] == [value.tolist() for value in observed]
