"""A `step` that can find no gradient is warned of, and no other."""

from __future__ import annotations

import pytest

import runner

CONFIG = """
parameters: {{w: 1.0, v: 2.0}}
expression: loss = w ** 2 + v
optimizers:
  one: {{sgd: {{lr: 0.1}}, parameters: [w]}}
  both: {{{both}, parameters: [v]}}
steps: {steps}
"""
NONE_YET = "no gradient is there yet, so this step changes nothing"
REMOVED = "`zero_grad` has removed every gradient, so this step changes nothing"


def warnings(steps: str, both: str = "sgd: {lr: 0.1}") -> list[tuple[str, str]]:
    plan = runner.compile(runner.loads(CONFIG.format(steps=steps, both=both)))
    return [(warning.path, warning.message) for warning in plan.warnings]


@pytest.mark.parametrize(
    ("steps", "path", "message"),
    [
        ("[step, backward, step]", "steps.0", NONE_YET),
        ("[{backward: {parameters: [v]}}, step: one, step: both]", "steps.1", NONE_YET),
        ("[forward, assign: {v.grad: 1.0}, step: one, step: both]", "steps.2", NONE_YET),
        ("[forward, step]", "steps.1", NONE_YET),
        ("[repeat: {times: 3, steps: [step, forward]}, train]", "steps.0.repeat.steps.0", NONE_YET),
        ("[backward, zero_grad, step]", "steps.2", REMOVED),
        ("[train, zero_grad, forward, step]", "steps.3", REMOVED),
        ("[repeat: {times: 3, steps: [zero_grad, step, backward]}]", "steps.0.repeat.steps.1", REMOVED),
    ],
)
def test_a_step_without_gradients_is_warned_of(steps: str, path: str, message: str) -> None:
    assert warnings(steps) == [(path, message)]


@pytest.mark.parametrize(
    "steps",
    [
        "[backward, step]",
        "[train, step]",
        "[{backward: {parameters: [v]}}, step]",
        "[forward, assign: {w.grad: 1.0}, step: one]",
        "[repeat: {times: 3, steps: [step, backward]}]",
        "[repeat: {times: 3, steps: [{repeat: {times: 2, steps: [step]}}, backward]}]",
        "[backward, zero_grad: {set_to_none: false}, step]",
        "[backward, zero_grad: {optimizer: both}, step]",
        "[backward, {zero_grad: {}, when: iteration > 1}, step]",
        "[backward, {repeat: {times: 2, steps: [zero_grad]}}, backward, step]",
        "[zero_grad, backward, step, zero_grad]",
        "[backward, zero_grad, {repeat: {times: 3, steps: [step, backward]}}]",
        "[repeat: {times: 4, steps: [backward, {zero_grad: {}, every: 2}, step]}]",
    ],
)
def test_a_step_that_may_find_gradients_is_not(steps: str) -> None:
    assert warnings(steps) == []


def test_an_optimizer_that_computes_the_gradients_itself_needs_no_backward() -> None:
    assert warnings("[step: both]", "lbfgs: {lr: 0.1}") == []
