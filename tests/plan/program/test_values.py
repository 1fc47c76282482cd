"""What a step computes: its objective, what is named on the way, its metrics, and what later steps read."""

from __future__ import annotations

import pytest
import torch

import runner
from runner.errors import ExpectationError
from runner.plan.program.instructions import Action, Backward, Evaluation, Expect, Forward
from tests.engine.running import compiled

TEXT = """\
parameters: {x: [1.0, 2.0], y: 3.0}
expression: |
  a = x * 2
  b = y ** 2
  c = a.sum()
  d = b + c
metrics: {of_a: a.max(), of_b: b * 2}
steps: %s
"""


def evaluations(steps: str) -> list[Evaluation]:
    plan = compiled(TEXT % steps)
    arguments = [item.argument for item in plan.program if isinstance(item, Action)]
    return [argument.evaluation for argument in arguments if isinstance(argument, (Forward, Backward))]


def test_dead_code_is_cut_for_each_objective() -> None:
    first, second = evaluations("[backward: c, backward: d]")
    assert first.computation.names == ("a", "c", "of_a")
    assert first.computation.inputs == ("x",)
    assert second.computation.names == ("a", "b", "c", "d", "of_a", "of_b")


def test_a_step_computes_what_later_steps_read() -> None:
    (first, second) = evaluations("[backward: c, expect: {b: b}, backward: d]")
    assert first.computation.names == ("a", "c", "b", "of_a", "of_b")
    assert first.kept == ((2, "b"),)
    assert second.kept == ((1, "b"),)


def test_logging_computes_nothing() -> None:
    plain = evaluations("[backward: c, backward: d]")
    logged = evaluations("[backward: c, backward: d]\nlog: {include: [b, d]}")
    assert [one.computation.names for one in plain] == [one.computation.names for one in logged]
    assert [len(one.columns) for one in logged] == [0, 2]


def test_equal_steps_share_one_computation() -> None:
    first, second = evaluations("[backward: d, forward: d]")
    assert first is second


def test_a_name_alone_is_one_computation_with_the_place_of_each_step() -> None:
    text = """\
parameters: {x: [1.0, 2.0], y: {shape: [0], init: ones}}
functions:
  slope(a): grad((a ** 2).sum(), a)
expression: f = (x * slope(x)).sum() + y.sum()
steps:
- backward
- expect: {x.grad: [4, 8], x: [1, 2], y: []}
- expect: {x.grad: [4, 8], f: 10}
- expect: {x.grad: [4, 9]}
"""
    plan = compiled(text.replace("y: []", "y: y"))
    expects = [action.argument for action in plan.program if isinstance(action, Action) and action.kind == "expect"]
    first, second, last = (expect.expectations[0].actual for expect in expects if isinstance(expect, Expect))
    assert first is not None
    assert second is not None
    assert last is not None
    assert first.nodes == second.nodes == last.nodes
    assert [each.origin for each in (first, second)] == [("steps", at, "expect", "x.grad") for at in (1, 2)]
    assert first.inputs == ("x.grad",)
    assert (first.outputs[0].shape, first.outputs[0].aliases) == ((2,), True)
    assert first.nodes[0].meta["example"].is_meta  # no example keeps its memory
    value = torch.tensor([4.0, 8.0])
    assert first.function(None, value)[0] is value
    with pytest.raises(ExpectationError, match=r"x\.grad") as caught:
        list(runner.execute(plan))
    assert caught.value.problems[0].line == 9
