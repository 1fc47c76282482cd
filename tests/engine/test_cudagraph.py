"""The engine of CUDA graphs over a recording on the CPU, which replays operations at fixed addresses as they do."""

from __future__ import annotations

import pytest

import runner
from runner.engine import cudagraph, eager, initial_state
from runner.engine.captured import WARM
from tests.engine.running import compiled, numbers, same
from tests.engine.tape import Tape

LINEAR = """
parameters: {{w: {{init: [[0.5, -1.0], [2.0, 0.25]]}}, b: {{init: [0.1, -0.2]}}}}
constants: {{x: [1.5, -0.5]}}
expression: |
  h = tanh(x @ w + b)
  loss = (h ** 2).sum()
{optimizer}
steps: [{steps}]
{more}
"""

OPTIMIZERS = {
    "sgd": ("sgd: {lr: 0.1}", True),
    "momentum": ("sgd: {lr: 0.1, momentum: 0.9, dampening: 0.1, weight_decay: 0.01}", True),
    "nesterov": ("sgd: {lr: 0.1, momentum: 0.9, nesterov: true}", True),
    "nesterov together": ("sgd: {lr: 0.1, momentum: 0.9, nesterov: true, foreach: true}", True),
    "scheduled sgd": ("sgd: {lr: 0.1 / t}", False),
    "adam": ("adam: {lr: 0.1}", False),
    "adamw": ("adamw: {lr: 0.1, amsgrad: true}", False),
    "adagrad": ("adagrad: {lr: 0.1, lr_decay: 0.1}", False),
    "rmsprop": ("rmsprop: {lr: 0.01, momentum: 0.5, centered: true}", False),
    "adafactor": ("adafactor: {lr: 0.1}", False),
    "rule": ("rule: {update: param = param - 0.1 * grad}", True),
    "rule with state": (
        "rule: {state: {m: 0}, update: 'm = 0.9 * m + grad\n\n  param = param - 0.1 * m'}",
        True,
    ),
    "rule of t": ("rule: {state: {m: 0}, update: 'm = 0.9 * m + grad\n\n  param = param - 0.1 * m / t'}", False),
    "random rule": ("rule: {update: param = param - 0.1 * (grad + 0.01 * randn_like(grad))}", False),
}


def both(plan: runner.Plan) -> Tape:
    """Run a plan by both engines, and hold the rows and what is left behind to the same bits; the recording."""
    tape = Tape()
    left, right = initial_state(plan), initial_state(plan)
    expected = list(eager.execute(plan, left))
    shared = list(cudagraph.execute(plan, right, shared=True, capture=tape))
    assert len(shared) == len(expected)
    for one, other in zip(shared, expected, strict=True):
        assert (one.number, one.path, one.iteration) == (other.number, other.path, other.iteration)
        told = numbers(one)
        for name, value in numbers(other).items():
            assert same(told[name], value), f"row {one.number}: {name}"
    assert left.tensors().keys() == right.tensors().keys()
    for name, value in left.tensors().items():
        assert same(right.tensors()[name], value), name
    assert (left.evaluations, left.position) == (right.evaluations, right.position)
    assert {name: stepper.steps for name, stepper in left.steppers.items()} == {
        name: stepper.steps for name, stepper in right.steppers.items()
    }
    return tape


def linear(optimizer: str, steps: str = "{repeat: {times: 9, steps: [train]}}", more: str = "") -> runner.Plan:
    return compiled(LINEAR.format(optimizer=f"optimizer: {{{optimizer}}}", steps=steps, more=more))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_recorded_step_gives_the_bits_of_the_eager_engine(name: str) -> None:
    optimizer, _ = OPTIMIZERS[name]
    tape = both(linear(optimizer, more="log: {state: true}"))
    assert (tape.warmed, len(tape.recorded), tape.replays) == (WARM, 1, 9 - WARM)
