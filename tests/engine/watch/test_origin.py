"""The first operation in the order of computation that made something non-finite is the one that is named."""

from __future__ import annotations

from pathlib import Path

import pytest

import runner


def reported(
    expression: str, tmp_path: Path, constants: str = "{}", parameters: str = "w: {shape: [2], init: ones}"
) -> str:
    lines = "".join(f"  {line}\n" for line in expression.splitlines())
    text = f"parameters: {{{parameters}}}\nconstants: {constants}\nexpression: |\n{lines}"
    text += "optimizer: {sgd: {lr: 0.1}}\nsteps: 2\n"
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(runner.RunError, match=r"(?s).") as caught:
        list(runner.execute(runner.compile(runner.load(tmp_path / "c.yaml"))))
    (problem,) = caught.value.problems
    return f"{problem.line}:{problem.column} {problem.message} = {problem.hint}"


SOFTMAX = "e = exp(w * x)\np = e / e.sum()\nloss = -log(p[1])"
LOGITS = "{x: [1000.0, 1.0]}"


def test_a_softmax_by_hand_blames_what_overflowed(tmp_path: Path) -> None:
    assert reported(SOFTMAX, tmp_path, LOGITS) == (
        "4:7 `e` is inf at [0], from `exp(w * x)`: 1 inf of 2 elements (row 1, repeat[1].train)"
        " = keep its argument small: `logsumexp`, `softmax`"
    )


@pytest.mark.parametrize(
    ("expression", "place", "operation"),
    [
        ("s = 1 / (1 + exp(w * x))\nloss = log(s).sum()", "4:16", "exp(w * x)"),
        ("a = tanh(exp(w * x))\nloss = log(1 - a).sum()", "4:12", "exp(w * x)"),
        (
            "a = exp(w * x)\nb = where(a > 10, 0, a)\nloss = log(b - 5 * w).sum() + 0 * w.sum()",
            "6:10",
            "log(b - 5 * w)",
        ),
        ("a = nan_to_num(log(-w))\nloss = sqrt(-w - a).sum()", "5:10", "sqrt(-w - a)"),
        ("loss = log(w - 1).sum()", "4:10", "log(w - 1)"),
    ],
)
def test_an_overflow_that_became_finite_is_named_unless_it_was_masked(
    expression: str, place: str, operation: str, tmp_path: Path
) -> None:
    found = reported(expression, tmp_path, LOGITS if "x" in expression.replace("exp", "") else "{}")
    assert found.startswith(place + " ")
    assert f"from `{operation}`" in found


MASKED = "l = (w * x - y) ** 2\nloss = where(isnan(y), zeros_like(l), l).mean()"
BOTH = "its derivative is 0 times that: also mask it before, `where(isfinite({0}), {0}, 0)`, not only the result"


def test_a_gradient_of_what_is_masked_names_the_constant_and_its_element(tmp_path: Path) -> None:
    found = reported(MASKED, tmp_path, "{y: [nan, 1.0, 2.0], x: [1.0, 2.0, 3.0]}", "w: {shape: [1], init: ones}")
    message = "`w.grad` is nan, from the constant `y`, which is nan at [0] (row 1, repeat[1].train)"
    assert found == f"2:13 {message} = {BOTH.format('y')}"


def test_a_gradient_of_what_is_masked_names_the_operation_that_made_it(tmp_path: Path) -> None:
    found = reported(
        "d = log(x)\n" + MASKED.replace("- y", "- d").replace("isnan(y)", "isnan(d)"), tmp_path, "{x: [-1.0, 1.0]}"
    )
    assert found.startswith("4:7 `w.grad` is nan at [0], from `log(x)`, which is nan at [0]: 1 nan of 2 elements")
    assert found.endswith(BOTH.format("x"))


def test_a_gradient_of_what_is_masked_names_the_sample(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("x,y\n1,2\n2,nan\n3,4\n")
    (tmp_path / "c.yaml").write_text(
        "parameters: {w: {shape: [1], init: ones}}\n"
        "data: {train: {file: d.csv, columns: {x: x, y: y}}}\n"
        f"expression: |\n  {MASKED.splitlines()[0]}\n  {MASKED.splitlines()[1]}\n"
        "optimizer: {sgd: {lr: 0.1}}\nsteps: 1\n"
    )
    plan = runner.compile(runner.load(tmp_path / "c.yaml"))
    with (
        pytest.warns(UserWarning, match="nan-in-data"),
        pytest.raises(runner.RunError, match=r"`w.grad` is nan, from sample 1 of `y` in `train`"),
    ):
        list(runner.execute(plan))


def test_a_derivative_that_is_infinite_is_still_blamed_on_itself(tmp_path: Path) -> None:
    found = reported("loss = sqrt(w - 1).sum()", tmp_path)
    assert "from the derivative of `sqrt(w - 1)`" in found
    assert found.endswith("its derivative is infinite at 0: add a small number to its argument")


def test_a_parameter_that_assign_writes_is_not_said_to_be_held_by_no_optimizer(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "parameters: {w: {shape: [2], init: ones}, average: {shape: [2], init: ones}, lost: 1.0}\n"
        "expression: loss = ((w - average) ** 2).sum() * lost\n"
        "optimizers: {a: {sgd: {lr: 0.1}, parameters: [w]}}\n"
        "steps: [{repeat: {times: 2, steps: [train, {assign: {average: 0.9 * average + 0.1 * w}}]}}]\n"
    )
    warnings = runner.compile(runner.load(tmp_path / "c.yaml")).warnings
    assert [warning.message for warning in warnings] == ["no optimizer updates the trainable parameter `lost`"]
