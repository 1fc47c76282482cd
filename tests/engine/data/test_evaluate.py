"""The step `evaluate`, against the mean over all samples by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import runner
from runner.engine import initial_state
from tests.engine.data.by_hand import HEAD, SGD, START, X, Y, data, of, with_arrays
from tests.engine.running import compiled, rows_of, same


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return with_arrays(tmp_path)


# evaluate


def test_evaluate_is_the_mean_over_all_samples(folder: Path) -> None:
    rows = rows_of(
        HEAD + data() + SGD + "steps: [evaluate: test, evaluate: {data: train, metrics: accuracy}]\n", folder
    )
    x, y = X[:7] * 2, Y[:7]
    parts = list(zip(x.split(3), y.split(3), strict=True))
    total = sum((F.cross_entropy(a @ START, b).double() * len(a) for a, b in parts), start=torch.zeros(()).double())
    assert same(rows[1]["test.loss"], (total / 7).float())
    torch.testing.assert_close(rows[1]["test.loss"], F.cross_entropy(x @ START, y))
    torch.testing.assert_close(rows[1]["test.accuracy"], ((x @ START).argmax(1) == y).float().mean())
    torch.testing.assert_close(rows[2]["train.loss"], F.cross_entropy(X @ START, Y))
    assert rows[1]["train.loss"] is None
    assert "loss" not in rows[1]


def test_evaluate_leaves_everything_untouched(folder: Path) -> None:
    """Weights, gradients, optimizer state, batches, counters and random numbers, bit for bit."""
    head = HEAD.replace("scores = x @ w", "scores = dropout(x @ w, 0.5, training) + 0.1 * randn(4)")
    train = "{train: {data: train}}"
    loop = "steps: [{{for_each: {{data: test, epochs: 3, steps: [{}]}}}}]\n"
    sources = data("batch_size: 5, shuffle: true", "batch_size: 4, shuffle: true")
    plain = compiled(head + sources + SGD + loop.format(f"forward, {train}"), folder)
    evaluates = "{evaluate: test}, {evaluate: train}"
    watched = compiled(
        head + sources + SGD + loop.format(f"{evaluates}, forward, {evaluates}, {train}, {evaluates}"), folder
    )
    states = [initial_state(plain), initial_state(watched)]
    rows = [list(runner.execute(plan, state)) for plan, state in zip((plain, watched), states, strict=True)]
    rows[1] = [row for row in rows[1] if row.step != "evaluate"]
    for left, right in zip(*rows, strict=True):
        assert left.step == right.step
        for name in left:
            assert same(left[name], right[name]), name
    tensors = [state.tensors() for state in states]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(same(tensors[0][name], tensors[1][name]) for name in tensors[0])
    assert states[0].evaluations == states[1].evaluations
    cursors = [[(it.epoch, it.position, it.batch["x"].tolist()) for it in state.batches.values()] for state in states]
    assert cursors[0] == cursors[1]


def test_training_is_false_in_evaluate_and_true_elsewhere(folder: Path) -> None:
    text = """
parameters: {w: {shape: [3], init: 1}}
expression: |
  flag = 1.0 if training else 0.0
  f = (x @ w).mean() * 0 + flag
data: {train: {file: all.npz, columns: {x: x}, batch_size: 5}}
optimizer: {sgd: {lr: 0}}
steps: [train, forward, evaluate: train, backward]
"""
    rows = rows_of(text, folder)
    assert [row["f"].item() for row in rows[1:] if row["f"] is not None] == [1, 1, 1]
    assert [row["train.f"].item() for row in rows[1:] if row["train.f"] is not None] == [0]


def test_results_of_evaluate_are_read_by_later_steps(folder: Path) -> None:
    steps = """
steps:
  - for_each:
      data: train
      epochs: 100
      steps:
        - train
        - {evaluate: test, every: 3}
        - {stop: , every: 3, when: test.loss > best}
        - {assign: {best: test.loss}, every: 3}
  - expect: {test.loss >= best: true}
"""
    head = HEAD.replace("parameters:\n", "parameters:\n  best: {init: 100, requires_grad: false}\n")
    rows = rows_of(head + data() + SGD + steps, folder)
    losses = [row["test.loss"].item() for row in of(rows, "evaluate") if row["test.loss"] is not None]
    assert losses[-1] > losses[-2]
    assert losses[:-1] == sorted(losses[:-1], reverse=True)


def test_reading_a_result_before_evaluate_says_so(folder: Path) -> None:
    steps = "steps: [{train: , when: test.loss > 0}, evaluate: test]\n"
    with pytest.raises(runner.RunError, match=r"`test\.loss` does not exist before `evaluate: test`"):
        rows_of(HEAD + data() + SGD + steps, folder)
