"""A plan as JSON values."""

from __future__ import annotations

import runner
from runner.cli.output.plan_json import describe

TEXT = """\
parameters: {w: 1.0, v: 2.0, u: 3.0}
expression: loss = (w + v + u) ** 2
optimizer:
  sgd: {lr: 0.1, momentum: 0.9, weight_decay: 0.01}
  groups:
    - {parameters: [v], lr: 0.5, weight_decay: 0.01}
    - {parameters: [u], momentum: 0}
steps: 2
"""


def test_a_group_lists_only_the_options_that_differ_from_those_of_its_optimizer() -> None:
    (optimizer,) = describe(runner.compile(runner.loads(TEXT)))["optimizers"]
    assert (optimizer["name"], optimizer["kind"]) == ("optimizer", "sgd")
    assert {name: optimizer["options"][name] for name in ("lr", "momentum", "weight_decay")} == {
        "lr": 0.1,
        "momentum": 0.9,
        "weight_decay": 0.01,
    }
    groups = {tuple(group["parameters"]): group["options"] for group in optimizer["groups"]}
    assert groups == {("w",): {}, ("v",): {"lr": 0.5}, ("u",): {"momentum": 0}}
