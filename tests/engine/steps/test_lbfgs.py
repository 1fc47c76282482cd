"""A step of L-BFGS, against `torch.optim.LBFGS` with the closure by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

import runner
from tests.engine.running import Numbers, assert_rows, compiled, copied, rows_of, same
from tests.engine.steps.by_hand import NOISY, seed_of

# L-BFGS

ROSENBROCK = """\
parameters: {x: [-1.5, 2.0], other: 1.0}
expression: |
  f = (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2 + other ** 2
optimizers:
  fit: {lbfgs: {max_iter: 5, line_search_fn: strong_wolfe}, parameters: [x]}
  rest: {sgd: {lr: 0.1}, parameters: [other]}
"""


def rosenbrock(x: Tensor, other: Tensor) -> Tensor:
    return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2 + other**2


def test_lbfgs_differentiates_its_own_parameters_and_its_row_holds_the_first_evaluation() -> None:
    x, other = Parameter(torch.tensor([-1.5, 2.0])), Parameter(torch.tensor(1.0))
    optimizer = torch.optim.LBFGS([x], max_iter=5, line_search_fn="strong_wolfe")
    expected: list[tuple[str, Numbers]] = []
    for _ in range(3):
        seen: list[tuple[Tensor | None, Tensor | None]] = []

        def closure() -> Tensor:
            optimizer.zero_grad()
            f = rosenbrock(x, other)
            f.backward(inputs=[x])
            seen.append((copied(f), copied(x.grad)))  # noqa: B023
            return f

        optimizer.step(closure)
        expected.append(
            (
                "train",
                {"f": seen[0][0], "x": copied(x), "x.grad": seen[0][1], "other": copied(other), "other.grad": None},
            )
        )
    steps = "steps: [{repeat: {times: 3, steps: [train: {optimizer: fit}]}}]\n"
    assert_rows(rows_of(ROSENBROCK + steps), expected)


def test_after_lbfgs_the_gradient_is_that_of_its_last_evaluation() -> None:
    x, other = Parameter(torch.tensor([-1.5, 2.0])), Parameter(torch.tensor(1.0))
    optimizer = torch.optim.LBFGS([x], max_iter=5, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        f = rosenbrock(x, other)
        f.backward(inputs=[x])
        return f

    optimizer.step(closure)
    rows = rows_of(ROSENBROCK + "steps: [train: {optimizer: fit}, assign: {other: x.grad.sum()}]")
    assert same(rows[2]["x.grad"], x.grad)
    assert same(rows[2]["other"], x.grad.sum())


def test_a_step_of_lbfgs_evaluates_the_objective_of_the_backward_before_it() -> None:
    text = """\
parameters: {x: [3.0, 4.0]}
expression: |
  a = (x ** 2).sum()
  b = (x ** 4).sum()
optimizer: {lbfgs: {max_iter: 3}}
steps: [backward: a, step]
"""
    x = Parameter(torch.tensor([3.0, 4.0]))
    optimizer = torch.optim.LBFGS([x], max_iter=3)

    def closure() -> Tensor:
        optimizer.zero_grad()
        a = (x**2).sum()
        a.backward()
        return a

    optimizer.step(closure)
    rows = rows_of(text)
    assert same(rows[2]["x"], x.detach())
    assert same(rows[2]["a"], torch.tensor(25.0))


def test_lbfgs_draws_the_same_numbers_in_every_evaluation_of_a_step() -> None:
    text = NOISY.replace("{sgd: {lr: 0.1}}", "{lbfgs: {lr: 0.1, max_iter: 4}}") + "steps: 2"
    w = Parameter(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    optimizer = torch.optim.LBFGS([w], lr=0.1, max_iter=4)
    expected = []
    for step in (1, 2):

        def closure() -> Tensor:
            optimizer.zero_grad()
            torch.manual_seed(seed_of(step))  # noqa: B023
            loss = (torch.nn.functional.dropout(w * 2, 0.5) ** 2).mean()
            loss.backward()
            return loss

        optimizer.step(closure)
        expected.append(("train", {"w": copied(w)}))
    assert_rows(rows_of(text), expected)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("{accumulate: 2}", "`lbfgs` re-evaluates within its step, and cannot accumulate"),
        ("{clip_grad_norm: 1.0}", "`lbfgs` re-evaluates within its step, and cannot clip"),
        ("{clip_grad_value: 1.0}", "`lbfgs` re-evaluates within its step, and cannot clip"),
    ],
)
def test_lbfgs_refuses_to_accumulate_and_to_clip(argument: str, message: str) -> None:
    text = f"{{parameters: {{x: 1.0}}, expression: f = x ** 2, optimizer: {{lbfgs: {{}}}}, steps: [train: {argument}]}}"
    with pytest.raises(runner.ConfigError, match=message):
        compiled(text)
