"""Warnings of steps that follow what is never measured: each with its exact text."""

from __future__ import annotations

from pathlib import Path

import numpy

import runner
from tests.tables import over

CONFIG = """\
parameters: {{w: 1.0, rate: {{init: 0.1, requires_grad: false}}}}
data: {{d: {{columns: {{x: x.npy}}, batch_size: 2}}}}
expression: loss = (w * x).sum()
optimizer: {{sgd: {{lr: rate}}}}
steps: {steps}
"""

AT = "steps.0.repeat.steps"
SAYS = "never-measured: `d.loss` is measured in every {} iterations of a loop of {}"
HINT = "write `every: {}` or less in `evaluate: d`"
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
}


@over("case", CASES)
def test_a_result_that_is_never_measured_is_reported(case: str, tmp_path: Path) -> None:
    steps, expected = CASES[case]
    numpy.save(tmp_path / "x.npy", numpy.arange(4.0))
    plan = runner.compile(runner.loads(CONFIG.format(steps=steps), base=str(tmp_path)))
    assert [f"{problem.path}: {problem.message} = {problem.hint}" for problem in plan.warnings] == expected
