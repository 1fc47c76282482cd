"""torch's own warnings are reported at their place in the config, once, and name no file of steprun."""

from __future__ import annotations

import warnings

import pytest
import torch

import runner
from runner.catalogue.versions import absence
from tests.tables import over

PARAMETERS = "parameters: {x: {shape: [2, 2], init: [[2.0, 0.5], [0.5, 1.0]]}}\n"
STEPS = "steps: [backward]\non_nonfinite: ignore\n"

SAID = "degrees of freedom is <= 0"

PLACES: dict[str, tuple[str, str, int]] = {
    "an expression": (f"{PARAMETERS}expression: f = x.sum() + x[0, :1].std()\n{STEPS}", "expression", 2),
    "a metric": (f"{PARAMETERS}expression: f = x.sum()\nmetrics: {{m: 'x[0, :1].std()'}}\n{STEPS}", "metrics.m", 3),
    "a function": (
        f"{PARAMETERS}functions: {{s(a): 'a[0, :1].std()'}}\nexpression: f = x.sum() + s(x)\n{STEPS}",
        "functions.s(a)",
        2,
    ),
    "a condition": (
        f"{PARAMETERS}expression: f = x.sum()\non_nonfinite: ignore\n"
        "steps:\n  - backward:\n    when: x[0, :1].std() < 1\n",
        "steps.0.when",
        6,
    ),
    "an initial value": (
        f"{PARAMETERS}constants: {{c: {{init: {{expression: 'x[0, :1].std()'}}}}}}\n"
        f"expression: f = x.sum() * c\n{STEPS}",
        "constants.c.init.expression",
        2,
    ),
    "a rule": (
        f"{PARAMETERS}expression: f = x.sum()\n"
        "optimizer: {rule: {update: 'param = param - grad + 0 * param[0, :1].std().nan_to_num()'}}\n"
        "steps: [train]\n",
        "optimizer.rule.update",
        3,
    ),
}


@over("text, path, line", PLACES.values())
def test_a_warning_of_torch_is_reported_at_its_operation(text: str, path: str, line: int) -> None:
    with warnings.catch_warnings(record=True) as written:
        warnings.simplefilter("default")
        plan = runner.compile(runner.loads(text))
        list(runner.execute(plan))
    assert [str(each.message) for each in written] == []
    (warning,) = plan.warnings
    assert (warning.path, warning.line) == (path, line)
    assert SAID in warning.message
    assert "Triggered internally" not in warning.message
    assert warning.hint


@pytest.mark.skipif(absence("torch.cholesky", torch.__version__) is not None, reason="this torch warns of no operation")
def test_what_torch_warns_of_once_in_a_process_is_reported_of_every_plan() -> None:
    text = f"{PARAMETERS}expression: f = torch.cholesky(x).sum()\n{STEPS}"
    first, second = (runner.compile(runner.loads(text)).warnings for _ in range(2))
    assert len(first) == 1
    assert "deprecated" in first[0].message
    assert second == first
    assert not torch.is_warn_always_enabled()


def test_a_loss_that_broadcasts_has_the_warning_with_both_shapes_alone() -> None:
    text = "parameters: {x: {shape: [6, 1], init: ones}}\nconstants: {y: {shape: [6], init: ones}}\n"
    plan = runner.compile(runner.loads(f"{text}expression: f = mse_loss(x, y)\nsteps: [backward]\n"))
    (warning,) = plan.warnings
    assert "broadcasts to every pair" in warning.message


def test_a_loss_of_other_shapes_has_torchs_own_warning() -> None:
    text = "parameters: {x: {shape: [3, 2], init: ones}}\nconstants: {y: {shape: [2], init: ones}}\n"
    plan = runner.compile(runner.loads(f"{text}expression: f = mse_loss(x, y)\nsteps: [backward]\n"))
    (warning,) = plan.warnings
    assert "Using a target size" in warning.message
    assert warning.line == 3
