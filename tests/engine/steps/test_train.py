"""The step `train`: its parts, micro-batches and clipping."""

from __future__ import annotations

import pytest
import torch
from torch.nn import Parameter

import runner
from tests.engine.running import Numbers, assert_rows, compiled, copied, rows_of, same
from tests.engine.steps.by_hand import NOISY, SEVERAL, TWO, Hand, optimizers_of, seed_of


def trained(hand: Hand, *optimizers: torch.optim.Optimizer) -> tuple[str, Numbers]:
    hand.a.grad = hand.b.grad = None
    hand.loss().backward()
    for optimizer in optimizers:
        optimizer.step()
    return hand.row("train", values=True)


def test_train_is_zero_grad_backward_and_step_in_one_row() -> None:
    hand = Hand()
    optimizer = torch.optim.SGD([hand.a, hand.b], lr=0.01, momentum=0.9)
    expected = [trained(hand, optimizer) for _ in range(4)]
    assert_rows(rows_of(TWO + "optimizer: {sgd: {lr: 0.01, momentum: 0.9}}\nsteps: 4"), expected)


def test_train_equals_its_parts() -> None:
    optimizer = "optimizer: {rmsprop: {lr: 0.01}}\n"
    clip = "clip_grad_norm: 0.5, clip_grad_value: 0.2"
    whole = rows_of(TWO + optimizer + f"steps: [{{repeat: {{times: 3, steps: [train: {{{clip}}}]}}}}]")
    parts = rows_of(
        TWO
        + optimizer
        + "steps: [{repeat: {times: 3, steps: [zero_grad, backward, clip_grad_norm: 0.5, clip_grad_value: 0.2, step]}}]"
    )
    for one, other in zip(whole[1:], parts[5::5], strict=True):
        assert all(same(one[name], other[name]) for name in ("a", "b", "a.grad", "b.grad"))


def test_train_without_a_name_steps_every_optimizer_from_one_backward() -> None:
    hand = Hand()
    expected = [trained(hand, *optimizers_of(hand))]
    one, two = optimizers_of(hand := Hand())
    expected = [trained(hand, one, two) for _ in range(3)]
    assert_rows(rows_of(TWO + SEVERAL + "steps: 3"), expected)


def test_train_with_a_name_zeroes_differentiates_and_steps_that_ones_parameters_alone() -> None:
    hand = Hand()
    one, two = optimizers_of(hand)
    expected = []
    hand.loss().backward()
    expected.append(hand.row("backward", values=True))
    for optimizer, weight in ((one, hand.a), (two, hand.b), (one, hand.a)):
        weight.grad = None
        hand.loss().backward(inputs=[weight])
        optimizer.step()
        expected.append(hand.row("train", values=True))
    steps = "steps: [backward, train: {optimizer: one}, train: {optimizer: two}, train: {optimizer: [one]}]"
    assert_rows(rows_of(TWO + SEVERAL + steps), expected)


def test_train_takes_another_objective() -> None:
    x = Parameter(torch.tensor(2.0))
    optimizer = torch.optim.SGD([x], lr=0.1)
    expected = []
    for power in (2, 3):
        x.grad = None
        (x**power).backward()
        optimizer.step()
        expected.append(("train", {"x": copied(x), "x.grad": copied(x.grad)}))
    text = """\
parameters: {x: 2.0}
expression: |
  a = x ** 2
  b = x ** 3
optimizer: {sgd: {lr: 0.1}}
steps: [train: {objective: a}, train]
"""
    assert_rows(rows_of(text), expected)


@pytest.mark.parametrize("times", [2, 3, 5])
def test_accumulate_averages_the_gradients_of_micro_batches_and_the_objective(times: int) -> None:
    w = Parameter(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    optimizer = torch.optim.SGD([w], lr=0.1)
    draws, expected = 0, []
    for _ in range(3):
        optimizer.zero_grad()
        losses = []
        for _ in range(times):
            draws += 1
            torch.manual_seed(seed_of(draws))
            h = torch.nn.functional.dropout(w * 2, 0.5)
            loss = (h**2).mean()
            (loss / times).backward()
            losses.append(loss.detach())
        optimizer.step()
        mean = sum(losses[1:], losses[0]) / times
        expected.append(("train", {"h": copied(h), "loss": mean, "w": copied(w), "w.grad": copied(w.grad)}))
    steps = f"steps: [{{repeat: {{times: 3, steps: [train: {{accumulate: {times}}}]}}}}]"
    assert_rows(rows_of(NOISY + steps), expected)


def test_what_later_steps_read_of_an_accumulated_objective_is_its_mean() -> None:
    rows = rows_of(NOISY + "steps: [train: {accumulate: 4}, assign: {w: 'w * 0 + loss'}]")
    assert same(rows[2]["w"], rows[1]["loss"].expand(4).clone())


def test_accumulate_of_one_is_a_plain_train() -> None:
    plain, one = (rows_of(NOISY + f"steps: [train: {argument}]") for argument in ("{}", "{accumulate: 1}"))
    assert all(same(plain[1][name], one[1][name]) for name in ("loss", "w", "w.grad"))


# clipping


@pytest.mark.parametrize(
    ("step", "max_norm", "norm_type"),
    [
        ("clip_grad_norm: 0.5", 0.5, 2.0),
        ("clip_grad_norm: 1000", 1000.0, 2.0),
        ("clip_grad_norm: {max_norm: 0.5, norm_type: 1}", 0.5, 1.0),
        ("clip_grad_norm: {max_norm: 0.5, norm_type: inf}", 0.5, float("inf")),
    ],
)
def test_clip_grad_norm_is_torchs_and_logs_the_norm(step: str, max_norm: float, norm_type: float) -> None:
    hand = Hand()
    hand.loss().backward()
    expected = [hand.row("backward", values=True, total_norm=None)]
    norm = torch.nn.utils.clip_grad_norm_([hand.a, hand.b], max_norm, norm_type)
    expected.append(hand.row("clip_grad_norm", total_norm=norm))
    assert_rows(rows_of(TWO + f"steps: [backward, {step}]"), expected)


def test_clip_grad_norm_may_name_parameters() -> None:
    hand = Hand()
    hand.loss().backward()
    norm = torch.nn.utils.clip_grad_norm_([hand.b], 0.5)
    row = hand.row("clip_grad_norm", total_norm=norm)
    rows = rows_of(TWO + "steps: [backward, clip_grad_norm: {max_norm: 0.5, parameters: [b]}]")
    assert_rows([rows[0], rows[2]], [row])


def test_clip_grad_value_is_torchs() -> None:
    hand = Hand()
    hand.loss().backward()
    torch.nn.utils.clip_grad_value_([hand.a, hand.b], 0.5)
    rows = rows_of(TWO + "steps: [backward, clip_grad_value: 0.5]")
    assert "total_norm" not in rows[0]
    assert_rows([rows[0], rows[2]], [hand.row("clip_grad_value")])


def test_train_clips_before_it_steps_and_shows_clipped_gradients() -> None:
    hand = Hand()
    optimizer = torch.optim.SGD([hand.a, hand.b], lr=0.1)
    expected = []
    for _ in range(2):
        optimizer.zero_grad()
        hand.loss().backward()
        norm = torch.nn.utils.clip_grad_norm_([hand.a, hand.b], 1.0)
        torch.nn.utils.clip_grad_value_([hand.a, hand.b], 0.25)
        optimizer.step()
        expected.append(hand.row("train", values=True, total_norm=norm))
    steps = "steps: [{repeat: {times: 2, steps: [train: {clip_grad_norm: 1.0, clip_grad_value: 0.25}]}}]"
    assert_rows(rows_of(TWO + "optimizer: {sgd: {lr: 0.1}}\n" + steps), expected)


def test_the_norm_of_mixed_dtypes_has_the_wider_one() -> None:
    text = """\
parameters: {a: 3.0, b: {init: 4.0, dtype: float64}}
expression: f = a * 3 + b * 4
steps: [backward, clip_grad_norm: 1.0, zero_grad, clip_grad_norm: {max_norm: 1.0, parameters: [a]}]
"""
    rows = rows_of(text)
    assert {column.dtype for column in rows[0].columns if column.name == "total_norm"} == {torch.float64}
    assert rows[2]["total_norm"].dtype == rows[4]["total_norm"].dtype == torch.float64
    assert rows[2]["total_norm"].item() == pytest.approx(5.0)


# order


def test_the_parts_of_a_train_step_come_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    from runner.engine.steps import autograd, clipping
    from runner.optim import Stepper

    events: list[str] = []

    def recorded(target: object, name: str, event: str) -> None:
        original = getattr(target, name)

        def wrapper(*args: object, **kwargs: object) -> object:
            events.append(event)
            return original(*args, **kwargs)

        monkeypatch.setattr(target, name, wrapper)

    recorded(autograd.Differentiate, "__call__", "backward")
    recorded(clipping, "by_norm", "clip_grad_norm")
    recorded(clipping, "by_value", "clip_grad_value")
    recorded(Stepper, "step", "step")
    plan = compiled(TWO + SEVERAL + "steps: [train: {clip_grad_norm: 1.0, clip_grad_value: 0.5, accumulate: 2}]")
    events.clear()
    rows = runner.execute(plan)
    next(rows)
    assert events == []
    next(rows)
    assert events == ["backward", "backward", "clip_grad_norm", "clip_grad_value", "step", "step"]
