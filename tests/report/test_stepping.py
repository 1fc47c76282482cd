"""The program and the graphs of a report: the lines of steps, their numbers, and the names of operations."""

from __future__ import annotations

import runner
from runner.plan import Plan
from runner.report.run.stepping.graph import nodes_of
from runner.report.run.stepping.program import lines_of

NESTED = """\
parameters: {w: [1.0, 2.0]}
expression: |
  h = w * 2 if iteration > 1 else w - 3
  loss = relu(h).sum()
optimizer: {sgd: {lr: 0.1}}
steps:
  - forward
  - repeat:
      times: 3
      steps:
        - train
        - repeat: {times: 2, steps: [backward, step]}
  - repeat: {times: 4, steps: [train]}
"""


def planned() -> Plan:
    return runner.compile(runner.loads(NESTED))


def test_a_line_has_the_number_that_paths_give_its_step() -> None:
    plan = planned()
    lines = lines_of(plan, ())
    assert [(line.number, line.depth, line.text.split()[0]) for line in lines[1:]] == [
        (1, 0, "forward"),
        (2, 0, "repeat"),
        (1, 1, "train"),
        (2, 1, "repeat"),
        (1, 2, "backward"),
        (2, 2, "step"),
        (3, 0, "repeat"),
        (None, 1, "train"),  # alone in its list
    ]
    paths = [row.path for row in runner.execute(plan)]
    assert {"1.forward", "2.repeat[3].1.train", "2.repeat[3].2.repeat[2].2.step", "3.repeat[4].train"} < {*paths}


def test_a_choice_is_a_node_called_if() -> None:
    plan = planned()
    computation = next(action.argument.evaluation.computation for action in plan.program if hasattr(action, "argument"))
    nodes = nodes_of(plan, computation)
    labels = [(node.label, node.kind) for node in nodes]
    assert ("if", "operation") in labels
    assert ("relu", "operation") in labels
    assert ("w", "weight") in labels
    assert [label for label, _ in labels].count("if") == 1
