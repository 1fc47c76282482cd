# ruff: noqa: E501 — configs in one line
"""Each step kind does what the same lines of torch do, bit for bit, and its row holds it."""

from __future__ import annotations

import pytest
import torch
from torch.nn import Parameter

from tests.engine.running import assert_rows, copied, numbers, rows_of, same
from tests.engine.steps.by_hand import NOISY, SEVERAL, TWO, Hand, optimizers_of, seed_of


def test_zero_grad_removes_gradients() -> None:
    hand = Hand()
    hand.loss().backward()
    expected = [hand.row("backward", values=True)]
    hand.a.grad = hand.b.grad = None
    expected.append(hand.row("zero_grad"))
    assert_rows(rows_of(TWO + "steps: [backward, zero_grad]"), expected)


def test_zero_grad_with_set_to_none_false_fills_with_zeros_what_exists() -> None:
    hand = Hand()
    expected = [hand.row("zero_grad")]
    hand.loss().backward()
    expected.append(hand.row("backward", values=True))
    torch.optim.SGD([hand.a, hand.b], lr=1).zero_grad(set_to_none=False)
    expected.append(hand.row("zero_grad"))
    hand.loss().backward()
    expected.append(hand.row("backward", values=True))
    zero = "zero_grad: {set_to_none: false}"
    assert_rows(rows_of(TWO + f"steps: [{zero}, backward, {zero}, backward]"), expected)
    assert same(expected[2][1]["a.grad"], torch.zeros(2))


def test_zero_grad_of_an_optimizer_touches_what_it_holds_alone() -> None:
    hand = Hand()
    hand.loss().backward()
    hand.b.grad = None
    optimizers = "optimizers: {one: {sgd: {lr: 1}, parameters: [a]}, two: {sgd: {lr: 1}, parameters: [b]}}\n"
    rows = rows_of(TWO + optimizers + "steps: [backward, zero_grad: two, step: one]")
    assert all(same(numbers(rows[2])[name], value) for name, value in hand.row("zero_grad")[1].items())


# step


def test_step_is_the_optimizers_step_and_leaves_gradients() -> None:
    hand = Hand()
    optimizer = torch.optim.Adam([hand.a, hand.b], lr=0.1)
    expected = []
    for _ in range(3):
        hand.loss().backward()
        expected.append(hand.row("backward", values=True))
        optimizer.step()
        expected.append(hand.row("step"))
    assert_rows(
        rows_of(TWO + "optimizer: {adam: {lr: 0.1}}\nsteps: [{repeat: {times: 3, steps: [backward, step]}}]"), expected
    )


def test_step_without_any_gradient_changes_nothing() -> None:
    hand = Hand()
    rows = rows_of(TWO + "optimizer: {adam: {lr: 0.1}}\nsteps: [step, backward]")
    assert all(same(numbers(rows[1])[name], value) for name, value in hand.row("step")[1].items())


def test_step_names_one_optimizer_or_several() -> None:
    hand = Hand()
    one, two = optimizers_of(hand)
    hand.loss().backward()
    expected = [hand.row("backward", values=True)]
    one.step()
    expected.append(hand.row("step"))
    two.step()
    expected.append(hand.row("step"))
    one.step()
    two.step()
    expected.append(hand.row("step"))
    one.step()
    two.step()
    expected.append(hand.row("step"))
    assert_rows(rows_of(TWO + SEVERAL + "steps: [backward, step: one, step: two, step: [one, two], step]"), expected)


def test_a_gradient_that_a_foreach_step_rewrites_is_shown_as_it_is_after_it() -> None:
    x = Parameter(torch.tensor([1.0, 2.0]))
    optimizer = torch.optim.SGD([x], lr=0.1, momentum=0.9, nesterov=True, foreach=True)
    expected = []
    for _ in range(2):
        (x**3).sum().backward()
        expected.append(("backward", {"x": copied(x), "x.grad": copied(x.grad)}))
        optimizer.step()
        expected.append(("step", {"x": copied(x), "x.grad": copied(x.grad)}))
    text = """\
parameters: {x: [1.0, 2.0]}
expression: f = (x ** 3).sum()
optimizer: {sgd: {lr: 0.1, momentum: 0.9, nesterov: true, foreach: true}}
steps: [{repeat: {times: 2, steps: [backward, step]}}]
"""
    assert_rows(rows_of(text), expected)


# what stands for the shape of a plan


def test_a_step_that_only_expects_or_stops_logs_no_row() -> None:
    rows = rows_of(TWO + "steps: [backward, expect: {a.grad: a.grad}, {repeat: {times: 2, steps: [stop]}}]")
    assert [row.step for row in rows] == ["start", "backward"]


def test_metrics_are_computed_with_the_objective() -> None:
    text = (
        TWO
        + "metrics: {worst: h.abs().max(), size: a.norm()}\noptimizer: {sgd: {lr: 0.1}}\nsteps: [train, step, forward]\n"
    )
    rows = rows_of(text)
    for number in (1, 3):
        assert same(rows[number]["worst"], rows[number]["h"].abs().max())
        assert same(rows[number]["size"], rows[number - 1]["a"].norm())
    assert rows[2]["worst"] is None


def test_a_metric_that_reads_what_a_step_does_not_compute_is_null_there() -> None:
    text = """\
parameters: {x: 2.0}
expression: |
  a = x ** 2
  b = x ** 3
  c = a + b
metrics: {twice: b * 2, weight: x * 1}
steps: [forward: a, forward: c]
"""
    _, first, second = rows_of(text)
    assert first["twice"] is None
    assert second["twice"].item() == 16
    assert first["weight"].item() == second["weight"].item() == 2


def test_metrics_change_no_gradient() -> None:
    plain, measured = (rows_of(TWO + metrics) for metrics in ("", "metrics: {m: (h ** 3).sum()}\n"))
    assert all(same(plain[1][name], measured[1][name]) for name in ("loss", "a.grad", "b.grad"))


def test_the_seed_of_the_expression_is_the_documented_stream() -> None:
    rows = rows_of(NOISY + "steps: [forward, forward]")
    for number in (1, 2):
        torch.manual_seed(seed_of(number))
        assert same(rows[number]["h"], torch.nn.functional.dropout(torch.tensor([1.0, 2.0, 3.0, 4.0]) * 2, 0.5))


def test_hyperparameters_are_expressions_of_the_count_of_steps() -> None:
    x = Parameter(torch.tensor(1.0))
    expected = []
    for t in range(1, 5):
        optimizer = torch.optim.SGD([x], lr=0.1 * 0.5 ** ((t - 1) // 2))
        optimizer.zero_grad()
        (x**2).backward()
        optimizer.step()
        expected.append(("train", {"x": copied(x)}))
    text = "parameters: {x: 1.0}\nexpression: f = x ** 2\nsteps: 4\n"
    assert_rows(rows_of(text + "optimizer: {sgd: {lr: 0.1 * 0.5 ** ((t - 1) // 2)}}"), expected)
    tabled = "constants: {lrs: [0.1, 0.1, 0.05, 0.05]}\noptimizer: {sgd: {lr: 'lrs[t - 1]'}}\n"
    close = rows_of(text + tabled)
    assert close[4]["x"].item() == pytest.approx(expected[3][1]["x"].item())


def test_groups_have_hyperparameters_of_their_own() -> None:
    w, bias = Parameter(torch.tensor([1.0, 2.0])), Parameter(torch.tensor([3.0]))
    optimizer = torch.optim.AdamW(
        [{"params": [w]}, {"params": [bias], "weight_decay": 0, "lr": 0.5}], lr=0.1, weight_decay=0.2
    )
    expected = []
    for _ in range(3):
        optimizer.zero_grad()
        ((w * bias) ** 2).sum().backward()
        optimizer.step()
        expected.append(("train", {"w": copied(w), "bias": copied(bias)}))
    text = """\
parameters: {w: [1.0, 2.0], bias: [3.0]}
expression: f = ((w * bias) ** 2).sum()
optimizer:
  adamw: {lr: 0.1, weight_decay: 0.2}
  groups: [{parameters: [b*], weight_decay: 0, lr: 0.5}]
steps: 3
"""
    assert_rows(rows_of(text), expected)


def test_optimizer_state_starts_from_tensors() -> None:
    x = Parameter(torch.tensor([1.0, 2.0]))
    optimizer = torch.optim.SGD([x], lr=0.1, momentum=0.9)
    optimizer.state[x]["momentum_buffer"] = torch.tensor([10.0, 20.0])
    expected = []
    for _ in range(2):
        optimizer.zero_grad()
        (x**2).sum().backward()
        optimizer.step()
        expected.append(("train", {"x": copied(x), "x.momentum_buffer": copied(optimizer.state[x]["momentum_buffer"])}))
    text = """\
parameters: {x: [1.0, 2.0]}
constants: {m0: [10.0, 20.0]}
expression: f = (x ** 2).sum()
optimizer: {sgd: {lr: 0.1, momentum: 0.9}, state: {x: {momentum_buffer: m0}}}
steps: 2
log: {state: true}
"""
    assert_rows(rows_of(text), expected)
