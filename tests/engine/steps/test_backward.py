"""The steps `forward` and `backward`, against the same calls of torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.engine.running import assert_rows, numbers, rows_of, same
from tests.engine.steps.by_hand import TWO, Hand

# forward, backward, zero_grad


def test_forward_computes_the_objective_and_no_gradient() -> None:
    hand = Hand()
    hand.loss()
    assert_rows(rows_of(TWO + "steps: [forward]"), [hand.row("forward", values=True)])


def test_row_0_holds_the_initial_weights_and_nothing_else() -> None:
    (start, *_) = rows_of(TWO + "steps: [forward]")
    assert (start.number, start.step, start.path, start.iteration) == (0, "start", "start", 1)
    assert all(same(numbers(start)[name], value) for name, value in Hand().row("start")[1].items())


def test_steps_default_to_one_backward() -> None:
    hand = Hand()
    hand.loss().backward()
    assert_rows(rows_of(TWO), [hand.row("backward", values=True)])


def test_gradients_accumulate_from_backward_to_backward() -> None:
    hand, expected = Hand(), []
    for _ in range(3):
        hand.loss().backward()
        expected.append(hand.row("backward", values=True))
    assert_rows(rows_of(TWO + "steps: [backward, backward, backward]"), expected)


def test_accumulating_writes_no_row_that_was_given_before() -> None:
    rows = rows_of("{parameters: {x: 3.0}, expression: f = x, steps: [backward, backward, backward]}")
    assert [row["x.grad"].item() for row in rows[1:]] == [1, 2, 3]


def test_backward_of_another_named_value_computes_what_it_needs_alone() -> None:
    text = """\
parameters: {x: 2.0, y: 3.0}
expression: |
  a = x * 2
  b = y ** 2
  c = a + b
steps: [backward: b, forward: a]
"""
    (_, row, _) = rows_of(text)
    assert (row["b"].item(), row["y.grad"].item(), row["x.grad"]) == (9, 6, None)
    assert row["a"] is None
    assert "c" not in row


def test_backward_with_parameters_is_the_inputs_of_torch() -> None:
    hand = Hand()
    hand.loss().backward(inputs=[hand.b])
    row = hand.row("backward", values=True)
    assert row[1]["a.grad"] is None
    assert_rows(rows_of(TWO + "steps: [{backward: {parameters: [b]}}]"), [row])


def test_backward_takes_globs_of_parameters() -> None:
    text = """\
parameters: {w_1: 1.0, w_2: 2.0, v: 3.0}
expression: f = w_1 * w_2 * v
steps: [{backward: {parameters: 'w_*'}}]
"""
    row = rows_of(text)[1]
    assert [None if row[f"{name}.grad"] is None else row[f"{name}.grad"].item() for name in ("w_1", "w_2", "v")] == [
        6,
        3,
        None,
    ]


@pytest.mark.parametrize(
    ("gradient", "by_hand"),
    [
        ("tensor([1.0, -2.0])", torch.tensor([1.0, -2.0])),
        ("c * 3", torch.tensor([0.1, 0.7]) * 3),
        ("1", torch.ones(2)),
        ("a", torch.tensor([1.5, -2.0])),
    ],
)
def test_backward_of_many_elements_takes_their_gradient(gradient: str, by_hand: Tensor) -> None:
    hand = Hand()
    hand.loss()
    hand.values["h"].backward(by_hand)
    step, shown = hand.row("backward")
    assert_rows(
        rows_of(TWO + f"steps: [{{backward: {{objective: h, gradient: {gradient!r}}}}}]"),
        [(step, {name: shown[name] for name in ("a.grad", "b.grad")})],
    )


@pytest.mark.parametrize("before", ["", "forward, ", "forward, {assign: {x: 2 * x}}, "])
def test_a_gradient_may_read_the_values_that_its_own_step_computes(before: str) -> None:
    text = "{parameters: {x: [1.0, 2.0]}, expression: f = (x ** 2).sum(), steps: [%s{backward: {gradient: f}}]}"
    x = torch.tensor([1.0, 2.0], requires_grad=True) if "assign" not in before else torch.tensor([2.0, 4.0])
    f = (x.requires_grad_() ** 2).sum()
    f.backward(f.detach())
    assert same(rows_of(text % before)[-1]["x.grad"], x.grad)
