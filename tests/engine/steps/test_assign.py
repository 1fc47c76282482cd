# ruff: noqa: E501 — configs in one line
"""The step `assign`, against the same assignment of torch."""

from __future__ import annotations

import torch
from torch.nn import Parameter

from tests.engine.running import assert_rows, copied, rows_of, same
from tests.engine.steps.by_hand import TWO, Hand, seed_of

# assign


def test_assign_reads_all_right_hand_sides_before_it_writes_any() -> None:
    rows = rows_of(TWO + "steps: [backward, assign: {a: b, b: a}]")
    assert same(rows[2]["a"], torch.tensor([0.25, 3.0]))
    assert same(rows[2]["b"], torch.tensor([1.5, -2.0]))


def test_assign_of_a_view_is_a_copy() -> None:
    text = "{parameters: {x: [1.0, 2.0]}, expression: f = x.sum(), steps: [backward, assign: {x: x.flip(0), x.grad: x}, assign: {x: x * 0}]}"
    rows = rows_of(text)
    assert rows[3]["x.grad"].tolist() == [1, 2]


def test_assign_is_the_notebooks_own_update() -> None:
    hand = Hand()
    hand.loss().backward()
    expected = [hand.row("backward", values=True)]
    with torch.no_grad():
        hand.a.copy_(hand.a - 0.1 * hand.a.grad)
    expected.append(hand.row("assign"))
    hand.loss().backward()
    expected.append(hand.row("backward", values=True))
    assert_rows(rows_of(TWO + "steps: [backward, assign: {a: a - 0.1 * a.grad}, backward]"), expected)


def test_assign_replaces_a_gradient() -> None:
    hand = Hand()
    hand.loss().backward()
    expected = [hand.row("backward", values=True)]
    hand.a.grad = hand.a.grad / 3
    hand.b.grad = torch.full((2,), 7.0)
    expected.append(hand.row("assign"))
    hand.loss().backward()
    expected.append(hand.row("backward", values=True))
    assert_rows(rows_of(TWO + "steps: [backward, assign: {a.grad: a.grad / 3, b.grad: 7}, backward]"), expected)


def test_assign_of_a_gradient_shows_in_no_earlier_row() -> None:
    rows = rows_of(TWO + "steps: [backward, assign: {a.grad: 0}, backward]")
    assert rows[1]["a.grad"].abs().sum() > 0


def test_assign_leaves_optimizer_state_alone() -> None:
    x = Parameter(torch.tensor([1.0, 2.0]))
    optimizer = torch.optim.SGD([x], lr=0.1, momentum=0.9)
    shown = []
    for _ in range(2):
        optimizer.zero_grad()
        (x**2).sum().backward()
        optimizer.step()
        with torch.no_grad():
            x.copy_(x / 2)
        shown.append(copied(x))
    text = """\
parameters: {x: [1.0, 2.0]}
expression: f = (x ** 2).sum()
optimizer: {sgd: {lr: 0.1, momentum: 0.9}}
steps: [{repeat: {times: 2, steps: [train, assign: {x: x / 2}]}}]
log: {state: true}
"""
    rows = rows_of(text)
    assert all(same(row["x"], value) for row, value in zip(rows[2::2], shown, strict=True))
    assert same(rows[1]["x.momentum_buffer"], rows[2]["x.momentum_buffer"])


def test_assign_writes_frozen_parameters_for_running_statistics() -> None:
    text = """\
parameters:
  w: [1.0, 2.0]
  average: {init: {expression: w}, requires_grad: false}
  seen: {init: 0, dtype: int64, requires_grad: false}
expression: loss = ((w - average.mean()) ** 2).sum()
optimizer: {sgd: {lr: 0.1}}
steps: [{repeat: {times: 3, steps: [train, assign: {average: 0.9 * average + 0.1 * w, seen: seen + 1}]}}]
"""
    w, average = Parameter(torch.tensor([1.0, 2.0])), torch.tensor([1.0, 2.0])
    optimizer = torch.optim.SGD([w], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        ((w - average.mean()) ** 2).sum().backward()
        optimizer.step()
        average = 0.9 * average + 0.1 * w.detach()
    last = rows_of(text)[-1]
    assert same(last["w"], w.detach())
    assert same(last["average"], average)
    assert same(last["seen"], torch.tensor(3))
    assert "average.grad" not in last


def test_assign_broadcasts() -> None:
    rows = rows_of(TWO + "steps: [backward, assign: {a: 5, b: 'tensor([0.1])'}]")
    assert same(rows[2]["a"], torch.full((2,), 5.0))
    assert same(rows[2]["b"], torch.full((2,), 0.1))


def test_assign_reads_named_values_as_they_were_last_computed() -> None:
    rows = rows_of(TWO + "steps: [forward, assign: {a: a * 0}, assign: {b: h}]")
    assert same(rows[3]["b"], rows[1]["h"])


def test_a_named_value_that_is_a_view_stays_as_it_was_computed() -> None:
    text = """\
parameters: {x: [[1.0, 2.0]], y: [0.0, 0.0]}
expression: |
  v = x.reshape(2)
  f = (v * y).sum()
steps: [forward, assign: {x: x * 0}, assign: {y: v}]
"""
    assert rows_of(text)[3]["y"].tolist() == [1, 2]


def test_assign_draws_random_numbers_from_the_runs_stream() -> None:
    rows = rows_of(
        "{seed: 5, parameters: {x: [1.0, 2.0]}, expression: f = x.sum(), steps: [backward, assign: {x: randn(2)}]}"
    )
    torch.manual_seed(seed_of(1))
    assert same(rows[2]["x"], torch.randn(2))
