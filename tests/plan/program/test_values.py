"""What a step computes: its objective, what is named on the way, its metrics, and what later steps read."""

from __future__ import annotations

from runner.plan.program.instructions import Action, Backward, Evaluation, Forward
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
