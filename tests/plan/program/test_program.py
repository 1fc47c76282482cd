# ruff: noqa: E501 — configs in one line
"""Steps become a flat program; `every` and `when` beside a loop, and what it may not say."""

from __future__ import annotations

import pytest

import runner
from runner.plan.program.instructions import Action, Break, LoopEnd, LoopStart
from tests.engine.running import compiled, rows_of

HEAD = "parameters: {x: 0.0, y: 0.0}\nexpression: f = x + y\nsteps: "


def test_loops_are_jumps() -> None:
    plan = compiled(
        HEAD
        + "[forward, {repeat: {times: 3, steps: [backward, {stop: , when: f > 1}, {repeat: {times: 2, steps: [forward]}}]}}]"
    )
    assert [type(item) for item in plan.program] == [
        Action,
        LoopStart,
        Action,
        Break,
        LoopStart,
        Action,
        LoopEnd,
        LoopEnd,
    ]
    outer, leave, inner, again, last = (plan.program[position] for position in (1, 3, 4, 6, 7))
    assert isinstance(outer, LoopStart)
    assert isinstance(leave, Break)
    assert isinstance(inner, LoopStart)
    assert isinstance(again, LoopEnd)
    assert isinstance(last, LoopEnd)
    assert (outer.exit, leave.exit, inner.exit, again.start, last.start) == (8, 8, 7, 5, 2)
    assert (outer.loops, inner.loops) == ((), (0,))


def test_when_beside_repeat_is_asked_before_the_loop() -> None:
    text = (
        HEAD
        + "[forward, {repeat: {times: 3, steps: [assign: {x: x + 1}]}, when: x > 5}, {repeat: {times: 3, steps: [assign: {x: x + 1}]}, when: x < 1}]"
    )
    assert [row.path for row in rows_of(text)[2:]] == [f"3.repeat[{number}].assign" for number in (1, 2, 3)]


def test_every_beside_repeat_counts_the_loop_around_it() -> None:
    inner = "{repeat: {times: 2, steps: [assign: {x: x + 1}]}, every: 2}"
    text = HEAD + f"[forward, {{repeat: {{times: 5, steps: [{inner}]}}}}]"
    assert [row.path for row in rows_of(text)[2:]] == [
        f"2.repeat[{outer}].repeat[{number}].assign" for outer in (2, 4) for number in (1, 2)
    ]


def test_a_condition_that_fails_beside_repeat_is_told_at_its_place() -> None:
    with pytest.raises(runner.RunError, match="`f` has not been computed yet") as caught:
        rows_of(HEAD + "[{repeat: {times: 2, steps: [backward]}, when: f > 1}]")
    assert (caught.value.problems[0].line, caught.value.problems[0].column) == (3, 55)


def test_an_empty_loop_does_nothing() -> None:
    inner = "{repeat: {times: 2, steps: []}}"
    rows = rows_of(HEAD + f"[{{repeat: {{times: 3, steps: [{inner}]}}}}, forward]")
    assert [row.step for row in rows] == ["start", "forward"]


def test_clipping_that_only_reaches_parameters_of_lbfgs_gives_a_warning() -> None:
    text = """\
parameters: {x: [1.0, 2.0], z: 1.0}
expression: loss = (z * x ** 2).sum()
optimizers:
  far: {lbfgs: {}, parameters: [x]}
  near: {sgd: {lr: 0.1}, parameters: [z]}
steps:
  - backward
  - clip_grad_norm: {max_norm: 1, parameters: [x]}
  - clip_grad_norm: {max_norm: 1, parameters: [x, z]}
  - step: near
  - step: far
"""
    (warning,) = runner.compile(runner.loads(text)).warnings
    assert warning.render() == (
        "<stdin>:8:5  steps.1\n"
        "    8 |   - clip_grad_norm: {max_norm: 1, parameters: [x]}\n"
        "      |     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ `lbfgs` computes its gradients again within its step,"
        " and this clipping has no effect on it\n"
        "      = remove it, or use another optimizer"
    )
