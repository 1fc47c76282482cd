"""What fails while a run runs is told at its place in the config, at the step it happened in."""

from __future__ import annotations

import pytest
import torch

import runner
from tests.engine.running import rows_of
from tests.tables import over

START = """\
parameters: {x: [1.0, 2.0], w: {shape: [], init: 3}}
constants: {table: [10, 20]}
expression: |
  a = x * w
  f = a.sum()
optimizer: {adam: {lr: 0.1}}
steps:
"""


@pytest.mark.parametrize("operation", ["igamma", "igammac", "binomial"])
def test_a_derivative_that_torch_does_not_have_names_the_operation_and_what_to_write(operation: str) -> None:
    text = f"parameters: {{x: [1.0, 2.0]}}\nexpression: loss = {operation}(x, x * 0.5).sum()\n"
    with pytest.raises(runner.RunError, match=f"derivative for .*{operation}.* is not implemented") as caught:
        rows_of(text)
    problem = caught.value.problems[0]
    assert problem.line == 2
    assert problem.hint == f"no gradient flows through `{operation}`: write `.detach()` after what it reads"
    rows_of(text.replace("(x, x * 0.5)", "(x.detach(), x.detach() * 0.5)").replace("loss =", "loss = x.sum() +"))


@over(
    ("steps", "marked", "message"),
    [
        ("  - assign: {x: x.grad}\n  - forward\n", "x.grad", "`x.grad` does not exist: no gradient has been computed"),
        (
            "  - {assign: {w: 1, x: x.exp_avg}}\n  - train\n",
            "x.exp_avg",
            "`x.exp_avg` does not exist before the first step",
        ),
        ("  - assign: {w: f}\n  - backward\n", "f}", "`f` has not been computed yet"),
        ("  - expect: {f: 1}\n  - backward\n", "f:", "`f` has not been computed yet"),
        ("  - expect: {w: f}\n  - backward\n", "f}", "`f` has not been computed yet"),
        ("  - {backward: , when: f > 1}\n", "f > 1", "`f` has not been computed yet"),
        ("  - {repeat: {times: 2, steps: [{stop: , when: f > 1}, train]}}\n", "f > 1", "`f` has not been computed yet"),
    ],
)
def test_reading_what_does_not_exist_yet_is_an_error_at_its_place(steps: str, marked: str, message: str) -> None:
    with pytest.raises(runner.RunError, match=message) as caught:
        rows_of(START + steps)
    (problem,) = caught.value.problems
    assert (problem.line, problem.column) == (8, steps.index(marked) + 1)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    "steps",
    [
        "  - {repeat: {times: 3, steps: [{assign: {w: 1, x: 'x * table[iteration - 1]'}}, backward]}}\n",
        "  - {repeat: {times: 3, steps: [{backward: , when: 'table[iteration - 1] > 1'}]}}\n",
        "  - {repeat: {times: 3, steps: [backward, {expect: {'table[iteration - 1]': 'iteration * 10'}}]}}\n",
        "  - {repeat: {times: 3, steps: [backward, {expect: {'iteration * 10': 'table[iteration - 1]'}}]}}\n",
    ],
)
def test_a_fault_within_an_expression_of_a_step_is_told_there(steps: str) -> None:
    with pytest.raises(runner.RunError, match="index 2 is outside `table`, which has 2 elements") as caught:
        rows_of(START + steps)
    (problem,) = caught.value.problems
    assert (problem.line, problem.column) == (8, steps.index("table") + 1)


def test_a_fault_of_the_objective_is_told_in_the_expression_with_the_step_it_happened_in() -> None:
    text = """\
parameters: {x: 1.0}
constants: {table: [10, 20]}
functions:
  scaled(v): v * table[iteration - 1]
expression: |
  a = x * 2
  f = a * table[iteration - 1]
  g = scaled(a)
steps:
  - repeat: {times: 3, steps: [{forward: %s, when: iteration > 0}]}
"""
    with pytest.raises(runner.RunError, match=r"\(at repeat\[3\].forward\)") as caught:
        rows_of(text % "f")
    assert (caught.value.problems[0].line, caught.value.problems[0].column) == (7, 11)
    with pytest.raises(runner.RunError, match="index 2 is outside") as caught:
        rows_of(text % "g")
    assert (caught.value.problems[0].line, caught.value.problems[0].column) == (4, 18)


def test_a_data_file_that_changed_after_planning_is_told_at_its_place(tmp_path) -> None:
    import numpy

    numpy.save(tmp_path / "x.npy", numpy.ones(3, dtype="float32"))
    text = "{parameters: {x: {file: x.npy}}, expression: f = x.sum()}"
    plan = runner.compile(runner.loads(text, base=str(tmp_path)))
    numpy.save(tmp_path / "x.npy", numpy.ones(4, dtype="float32"))
    with pytest.raises(runner.RunError, match=r"x\.npy") as caught:
        list(runner.execute(plan))
    assert caught.value.problems[0].line == 1


def test_a_shape_that_depends_on_data_may_fail_in_the_run() -> None:
    text = """\
parameters: {x: [1.0, -2.0, 3.0]}
expression: |
  kept = x[x > 0]
  f = (kept * tensor([1.0, 2.0])).sum()
steps:
  - backward
  - assign: {x: abs(x)}
  - backward
"""
    with pytest.raises(runner.RunError, match=r"\(at 3.backward\)") as caught:
        rows_of(text)
    assert (caught.value.problems[0].line, caught.value.problems[0].column) == (4, 8)


GROWING = """\
parameters: {x: 1.0}
expression: f = ones(1).repeat_interleave(x.to(int64)).sum() * x
steps:
  - backward
  - assign: {x: 1e16}
  - backward
"""


def test_memory_that_runs_out_is_told_at_the_operation() -> None:
    """More than an address can name, so that no machine grants it."""
    with pytest.raises(runner.RunError, match="does not fit into memory") as caught:
        rows_of(GROWING)
    assert str(caught.value) == (
        "<stdin>:2:17  expression\n"
        "    2 | expression: f = ones(1).repeat_interleave(x.to(int64)).sum() * x\n"
        "      |                 ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ "
        f"this does not fit into memory: it needs {8 * int(torch.tensor(1e16)) / 2**30:,.1f} GiB (at 3.backward)\n"
        "      = make it smaller, or log less: `log: {every: 10, tensors: stats}`"
    )


def test_memory_that_runs_out_elsewhere_is_told_at_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr("runner.engine.steps.optimizer_step.Stepper.step", fails)
    with pytest.raises(runner.RunError, match="does not fit into memory") as caught:
        rows_of(START + "  - backward\n  - step\n")
    (problem,) = caught.value.problems
    assert (problem.message, problem.line) == ("this does not fit into memory (at 2.step)", 9)


def test_an_unknown_column_of_a_row_names_the_nearest() -> None:
    row = rows_of(START + "  - backward\n")[1]
    with pytest.raises(KeyError, match=r"did you mean `x\.grad`"):
        row["x.grd"]
    assert "x.grad" in row
    assert "x.grd" not in row
