"""Warnings of steps that follow what is never measured, or never run: each with its exact text."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy

import runner
from tests.tables import over

CONFIG = """\
parameters: {{w: 1.0, rate: {{init: 0.1, requires_grad: false}}}}
constants: {{off: false, some: 2}}
data: {{d: {{columns: {{x: x.npy}}, batch_size: 2}}}}
expression: loss = (w * x).sum()
optimizer: {{sgd: {{lr: rate}}}}
steps: {steps}
"""

AT = "steps.0.repeat.steps"
SAYS = "never-measured: `d.loss` is measured in every {} iterations of a loop of {}"
HINT = "write `every: {}` or less in `evaluate: d`"
UNMEASURED = "never-measured: this condition is never true, so `d.loss` is not measured"
RARELY = "never-runs: this step runs in every 4 iterations of a loop of 3"
CORRECT = "correct it, or remove the step"
LOOP = "[{{repeat: {{times: 3, steps: [train, {}]}}}}]"

CASES: dict[str, tuple[str, list[str]]] = {
    "patience": (
        LOOP.format("{evaluate: d, every: 4}, {patience: {on: d.loss, evaluations: 1}}"),
        [f"{AT}.2.patience.on: {SAYS.format(4, 3)} = {HINT.format(3)}"],
    ),
    "the best checkpoint": (
        LOOP.format("{evaluate: d, every: 4}, {checkpoint: {best: d}}"),
        [f"{AT}.2.checkpoint.best: {SAYS.format(4, 3)} = {HINT.format(3)}"],
    ),
    "a plateau": (
        LOOP.format("{evaluate: d, every: 5000}, {reduce_lr_on_plateau: {rate: rate, on: d.loss}}"),
        [f"{AT}.2.reduce_lr_on_plateau.on: {SAYS.format('5,000', 3)} = {HINT.format(3)}"],
    ),
    "a loop that never begins": (
        LOOP.format(
            "{for_each: {data: d, steps: [{evaluate: d}]}, every: 4}, {patience: {on: d.loss, evaluations: 1}}"
        ),
        [f"{AT}.2.patience.on: {SAYS.format(4, 3)} = {HINT.format(3)}"],
    ),
    "batches of a pass": (
        "[{for_each: {data: d, steps: [train, {evaluate: d, every: 3}, {patience: {on: d, evaluations: 1}}]}}]",
        [f"steps.0.for_each.steps.2.patience.on: {SAYS.format(3, 2)} = {HINT.format(2)}"],
    ),
    "the last iteration": (LOOP.format("{evaluate: d, every: 3}, {patience: {on: d.loss, evaluations: 1}}"), []),
    "one of two": (
        LOOP.format("{evaluate: d, every: 4}, {evaluate: d}, {patience: {on: d.loss, evaluations: 1}}"),
        [],
    ),
    "a condition": (LOOP.format("{evaluate: d, when: w > 9}, {patience: {on: d.loss, evaluations: 1}}"), []),
    "nothing follows": (LOOP.format("{evaluate: d, every: 4}"), []),
    "a constant that is false": (
        LOOP.format("{evaluate: d, when: off}, {patience: {on: d.loss, evaluations: 1}}"),
        [f"{AT}.1.when: {UNMEASURED} = {CORRECT} that follows the result"],
    ),
    "an iteration that does not come": (
        LOOP.format("{evaluate: d, when: iteration > 3}, {checkpoint: {best: d}}"),
        [f"{AT}.1.when: {UNMEASURED} = {CORRECT} that follows the result"],
    ),
    "an iteration in which it does not run": (
        LOOP.format("{evaluate: d, every: 2, when: iteration == some + 1}, {patience: {on: d, evaluations: 1}}"),
        [f"{AT}.1.when: {UNMEASURED} = {CORRECT} that follows the result"],
    ),
    "an iteration that comes": (
        LOOP.format("{evaluate: d, when: iteration == some + 1}, {patience: {on: d, evaluations: 1}}"),
        [],
    ),
    "a loop that is never entered": (
        LOOP.format("{repeat: {times: 2, steps: [{evaluate: d}]}, when: off}, {patience: {on: d, evaluations: 1}}"),
        [f"{AT}.1.when: {UNMEASURED} = {CORRECT} that follows the result"],
    ),
    "a step that never runs": (
        LOOP.format("{evaluate: d}, {patience: {on: d, evaluations: 1}, when: iteration < 1}"),
        [
            f"{AT}.2.when: never-runs: this condition is never true, so nothing follows `d.loss` = {CORRECT}",
        ],
    ),
    "a step that runs too late": (
        LOOP.format("{evaluate: d}, {checkpoint: {best: d}, every: 4}"),
        [f"{AT}.2.checkpoint.best: {RARELY} = write `every: 3` or less"],
    ),
    "no loop": ("[train, {evaluate: d}, {checkpoint: {best: d}}]", []),
    "a condition outside of loops": (
        "[train, {evaluate: d, when: iteration == 2}, {checkpoint: {best: d}}]",
        [f"steps.1.when: {UNMEASURED} = {CORRECT} that follows the result"],
    ),
    "a loop that has no iterations": (
        "[{repeat: {times: 0, steps: [train, {evaluate: d, when: off}, {patience: {on: d, evaluations: 1}}]}}]",
        [],
    ),
    "more iterations than planning tries": (
        "[{repeat: {times: 5000, steps: [train, {evaluate: d, when: iteration < 0}, {checkpoint: {best: d}}]}}]",
        [],
    ),
}

AFTER: dict[str, tuple[str, list[str]]] = {
    "nothing measured": (
        LOOP.format("{evaluate: d, when: loss < -1e9}, {patience: {on: d, evaluations: 1}}"),
        ["never-measured: no step measured `d.loss` in this run\n      = look at the `when` of `evaluate: d`"],
    ),
    "nothing followed": (
        LOOP.format("{evaluate: d}, {reduce_lr_on_plateau: {rate: rate, on: d}, when: loss < -1e9}"),
        [
            "never-runs: `d.loss` was measured, and this step never followed it\n"
            "      = look at its `when`, or put it after the `evaluate`"
        ],
    ),
    "measured once": (LOOP.format("{evaluate: d, when: loss < 6}, {patience: {on: d, evaluations: 1}}"), []),
    "followed once": (
        LOOP.format(
            "{evaluate: d}, {checkpoint: {best: d}, when: iteration == 1}, {patience: {on: d, evaluations: 9}}"
        ),
        [],
    ),
    "planning has said it": (LOOP.format("{evaluate: d, every: 4}, {patience: {on: d, evaluations: 1}}"), []),
    "no iterations": (
        "[train, {repeat: {times: 0, steps: [{evaluate: d}, {patience: {on: d, evaluations: 1}}]}}]",
        [],
    ),
}


@over("case", CASES)
def test_a_result_that_is_never_measured_is_reported(case: str, tmp_path: Path) -> None:
    steps, expected = CASES[case]
    numpy.save(tmp_path / "x.npy", numpy.arange(4.0))
    plan = runner.compile(runner.loads(CONFIG.format(steps=steps), base=str(tmp_path)))
    told = [problem for problem in plan.warnings if "is not used" not in problem.message]
    assert [f"{problem.path}: {problem.message} = {problem.hint}" for problem in told] == expected


@over("case", AFTER)
def test_a_step_that_followed_nothing_is_reported_at_the_end(case: str, tmp_path: Path) -> None:
    steps, expected = AFTER[case]
    numpy.save(tmp_path / "x.npy", numpy.arange(4.0))
    plan = runner.compile(runner.loads(CONFIG.format(steps=steps), base=str(tmp_path)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        list(runner.execute(plan))
    assert [str(warning.message).partition("^ ")[2] for warning in caught] == expected
