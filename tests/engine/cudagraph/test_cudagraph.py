"""The engine of CUDA graphs over a recording on the CPU, which replays operations at fixed addresses as they do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch

import runner
from runner.engine import eager, initial_state
from runner.engine.cudagraph import execute
from runner.engine.cudagraph.train import WARM
from runner.engine.faults import Uncapturable
from tests.engine.cudagraph.tape import Tape
from tests.engine.running import compiled, numbers, same

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
    shared = list(execute.execute(plan, right, shared=True, capture=tape))
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


@pytest.mark.parametrize(
    "clips",
    ["clip_grad_norm: 0.05", "clip_grad_value: 0.02", "clip_grad_norm: 0.05, clip_grad_value: 0.01"],
)
@pytest.mark.parametrize("optimizer", ["sgd: {lr: 0.1, momentum: 0.9}", "adam: {lr: 0.1}"])
def test_clipping_is_recorded_with_the_norm_that_is_logged(clips: str, optimizer: str) -> None:
    both(linear(optimizer, f"{{repeat: {{times: 7, steps: [{{train: {{{clips}}}}}]}}}}"))


def test_only_what_the_log_keeps_is_copied_out() -> None:
    for log in ("{tensors: none}", "{every: 3}", "{include: [loss, b]}"):
        both(linear("adam: {lr: 0.1}", more=f"log: {log}"))


def test_other_steps_read_and_write_between_replays() -> None:
    steps = """{repeat: {times: 9, steps: [train, {assign: {b: b * 0.5}, every: 2}, {assign: {w.grad: w.grad * 2}},
      {forward: {}, every: 3}, {expect: {w.grad: w.grad}}]}}"""
    for optimizer in ("sgd: {lr: 0.1, momentum: 0.9}", "adam: {lr: 0.1}"):
        both(linear(optimizer, steps))


def test_a_rate_that_is_measured_and_assigned_state_reach_the_replays() -> None:
    steps = """{repeat: {times: 12, steps: [train, {assign: {rate: rate * 0.9}, every: 2},
      {assign: {w.momentum_buffer: w.momentum_buffer * 0.5}, every: 5}]}}"""
    both(measured("sgd: {lr: rate, momentum: 0.9}", steps))
    both(measured("sgd: {lr: 0.1, momentum: 0.9}", steps, "constants: {x: [1.5, -0.5, 0.1]}"))
    both(measured("adam: {lr: rate / t}", steps.replace("momentum_buffer", "exp_avg")))
    rule = "rule: {state: {m: 0}, update: 'm = 0.9 * m + grad\n\n  param = param - rate * m'}"
    both(measured(rule, steps.replace("momentum_buffer", "m")))


def measured(optimizer: str, steps: str, more: str = "constants: {x: [1.5, -0.5, 0.5]}") -> runner.Plan:
    read = "" if "rate" in optimizer else " + 0 * rate"
    return compiled(
        f"""
parameters: {{w: [0.5, -1.0, 2.0], rate: {{init: 0.1, requires_grad: false}}}}
{more}
expression: loss = (tanh(w * x) ** 2).sum(){read}
optimizer: {{{optimizer}}}
steps: [{steps}]
log: {{state: true}}
"""
    )


def test_mixed_precision_is_recorded() -> None:
    both(linear("adam: {lr: 0.1}", more="autocast: bfloat16"))


def test_two_steps_that_share_weights_are_recorded_apart() -> None:
    tape = both(
        compiled(
            """
parameters: {g: {init: [0.5, -1.0]}, d: {init: [0.3, 0.8]}}
constants: {x: [1.5, -0.5]}
expression: |
  fake = tanh(g * x)
  loss_d = ((d * x).sum() - 1) ** 2 + (d * fake).sum() ** 2
  loss_g = ((d * fake).sum() - 1) ** 2
optimizers:
  of_d: {sgd: {lr: 0.05, momentum: 0.9}, parameters: d}
  of_g: {adam: {lr: 0.05}, parameters: g}
steps:
  - repeat:
      times: 8
      steps: [{train: {objective: loss_d, optimizer: of_d}}, {train: {objective: loss_g, optimizer: of_g}}]
"""
        )
    )
    assert len(tape.recorded) == 2


def test_a_run_shorter_than_the_warm_up_is_the_eager_one() -> None:
    tape = both(linear("sgd: {lr: 0.1}", "{repeat: {times: 3, steps: [train]}}"))
    assert tape.recorded == []


def test_each_replay_draws_the_numbers_of_its_own_step() -> None:
    plan = compiled(
        """
parameters: {w: {init: [0.5, -1.0, 2.0]}}
expression: loss = (dropout(w, 0.5, training=training) + 0.1 * randn(3)).square().sum()
optimizer: {sgd: {lr: 0.05}}
steps: 9
"""
    )
    tape = both(plan)
    assert tape.replays == 6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(2)
    numpy.save(tmp_path / "x.npy", torch.randn(10, 3, generator=generator).numpy())
    numpy.save(tmp_path / "y.npy", torch.randint(0, 2, (10,), generator=generator).numpy())
    return tmp_path


DIGITS = """
parameters: {{w: {{init: [[0.1, -0.2], [0.3, 0.1], [-0.4, 0.2]]}}, b: {{init: [0.0, 0.1]}}}}
data:
  train: {{columns: {{x: x.npy, y: y.npy}}, {source}}}
expression: |
  logits = x @ w + b
  loss = cross_entropy(logits, y)
optimizer: {{sgd: {{lr: 0.1, momentum: 0.5}}}}
steps: {steps}
"""


TRAIN_ON, EVALUATE = "{train: {data: null}}", "{evaluate: train, every: 5}"


@pytest.mark.parametrize("shuffle", ["true", "false"])
@pytest.mark.parametrize(
    ("source", "steps", "recorded"),
    [
        ("batch_size: 5", "{epochs: 4}", 1),
        ("batch_size: 4, drop_last: true", "{epochs: 4}", 1),
        ("batch_size: 4", "{epochs: 8}", 2),  # the last batch of a pass has two samples
        (
            "batch_size: 4",
            "[{repeat: {times: 20, steps: [next: train, {train: {data: null}}, {evaluate: train, every: 5}]}}]",
            2,
        ),
        ("batch_size: 2", "[{repeat: {times: 9, steps: [{train: {accumulate: 2}}]}}]", 1),
        ("batch_size: 4", "[{repeat: {times: 18, steps: [{train: {accumulate: 2}}]}}]", 3),
    ],
)
def test_batches_reach_the_replay(folder: Path, source: str, shuffle: str, steps: str, recorded: int) -> None:
    tape = both(compiled(DIGITS.format(source=f"{source}, shuffle: {shuffle}", steps=steps), folder))
    assert len(tape.recorded) == recorded


def test_rows_of_replays_share_no_memory_with_what_is_written() -> None:
    plan = linear("sgd: {lr: 0.1, momentum: 0.9}")
    kept, copies = [], []
    for row in execute.execute(plan, shared=True, capture=Tape()):
        kept.append(row)
        copies.append([None if value is None else value.clone() for value in row.values])
    for row, values in zip(kept, copies, strict=True):
        assert all(same(one, other) for one, other in zip(row.values, values, strict=True))


def test_a_step_that_cannot_be_recorded_is_told_with_its_place() -> None:
    class Refusing(Tape):
        def record(self, function: Callable[[], object]) -> Callable[[], object]:
            raise Uncapturable("a CUDA graph cannot hold this step: operation not permitted")

    with pytest.raises(runner.RunError) as caught:
        list(execute.execute(linear("sgd: {lr: 0.1}"), capture=Refusing()))
    assert str(caught.value) == (
        "<stdin>:8:37  steps.0.repeat.steps.0\n"
        "    8 | steps: [{repeat: {times: 9, steps: [train]}}]\n"
        "      |                                     ^^^^^ a CUDA graph cannot hold this step: operation not permitted"
        " (at repeat[4].train)\n"
        "      = write `engine: eager`"
    )
