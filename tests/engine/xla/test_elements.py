"""An index by the iteration and a branch of a rule, in code of XLA: the numbers of torch written by hand."""

from __future__ import annotations

import pytest
import torch

import runner
from tests.engine.running import numbers, rows_of

pytest.importorskip("jax")

STACK = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0], [1.0, 3.0, 5.0]]
TEXT = f"""\
engine: xla
dtype: float64
parameters: {{w: [1.0, 2.0, 3.0]}}
constants: {{x: {{init: {STACK}}}, i: {{init: 1, dtype: int64, shape: []}}}}
expression: |
  current = x[iteration - 1]
  largest = argmax(w.detach())
  loss = (current * w ** 2).sum() + w[largest] * x[iteration % 3, i] + (x[..., -iteration] * w[iteration % 3]).mean()
optimizer:
  rule:
    state: {{average: 0}}
    update: |
      average = grad if t == 1 else 0.5 * average + log(grad)
      param = param - 0.01 * average
steps: [{{repeat: {{times: TIMES, steps: [train]}}}}]
"""


def test_an_index_by_the_iteration_and_a_branch_by_t_are_those_of_torch() -> None:
    x, w, average = torch.tensor(STACK, dtype=torch.float64), torch.tensor([1.0, 2.0, 3.0]).double(), None
    for iteration, row in enumerate(rows_of(TEXT.replace("TIMES", "3"))[1:], 1):
        weight = w.clone().requires_grad_()
        largest = int(w.argmax())
        loss = (x[iteration - 1] * weight**2).sum() + weight[largest] * x[iteration % 3, 1]
        loss = loss + (x[..., -iteration] * weight[iteration % 3]).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        assert weight.grad is not None
        average = weight.grad if average is None else 0.5 * average + weight.grad.log()
        w = w - 0.01 * average
        found = numbers(row)
        for name, expected in (("current", x[iteration - 1]), ("loss", loss), ("w", w), ("w.grad", weight.grad)):
            torch.testing.assert_close(found[name], expected.detach(), rtol=1e-12, atol=1e-12)


def test_a_branch_of_a_rule_by_a_number_takes_what_is_not_zero() -> None:
    text = (
        "engine: xla\nparameters: {w: [1.0, 2.0]}\nexpression: loss = w.square().sum()\n"
        "optimizer: {rule: {update: 'param = param - 0.1 * grad if CONDITION else param - 0.01 * grad'}}\nsteps: 4\n"
    )
    for condition, chosen in (("t % 2", (1, 3)), ("(t - 2) / 2", (1, 3, 4))):
        w = torch.tensor([1.0, 2.0])
        for t, row in enumerate(rows_of(text.replace("CONDITION", condition))[1:], 1):
            w = w - (0.1 if t in chosen else 0.01) * (2 * w)
            torch.testing.assert_close(numbers(row)["w"], w)


def test_an_index_out_of_range_is_the_error_of_its_iteration() -> None:
    rows = runner.execute(runner.compile(runner.loads(TEXT.replace("TIMES", "5").replace("-iteration", "0"))))
    assert [next(rows).number for _ in range(5)] == [0, 1, 2, 3, 4]
    said = r"(?s)current = x\[iteration - 1\].*index 4 is out of bounds for dimension 0 with size 4"
    with pytest.raises(runner.RunError, match=said):
        next(rows)
