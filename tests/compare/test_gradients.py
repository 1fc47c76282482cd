"""Gradients against finite differences, on functions whose derivatives are known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy
import pytest
import torch

import runner
from runner.compare.gradients.check import Checked, ObjectiveReport, Precision, check_gradients, in_double_precision
from runner.config import overridden
from tests.tables import over


def reports(text: str, base: Path | str = ".", **precision: float) -> list[ObjectiveReport]:
    config = runner.loads(text, base=base, name="config.yaml")
    plan = runner.compile(overridden(config, in_double_precision(config)))
    return check_gradients(plan, Precision(**precision))


def only(text: str, **precision: float) -> Checked:
    (report,) = reports(text, **precision)
    (checked,) = report.parameters
    return checked


DERIVATIVES = {
    "sin(x)": math.cos,
    "exp(x)": math.exp,
    "log(x)": lambda x: 1 / x,
    "x ** 3": lambda x: 3 * x**2,
    "tanh(x)": lambda x: 1 - math.tanh(x) ** 2,
    "sqrt(x) / x": lambda x: -0.5 * x**-1.5,
}


@over("expression", DERIVATIVES)
def test_a_known_derivative_is_found_both_ways(expression: str) -> None:
    checked = only(f"parameters: {{x: 0.7}}\nexpression: {expression}\n")
    known = DERIVATIVES[expression](0.7)
    assert checked.outcome == "holds"
    assert checked.torch_agrees
    assert checked.worst is not None
    assert checked.worst.autograd == pytest.approx(known, rel=1e-14)
    assert checked.worst.numeric == pytest.approx(known, rel=1e-8)
    assert checked.largest_error == abs(checked.worst.autograd - checked.worst.numeric) < 1e-8


def test_a_straight_through_estimator_differs_where_detach_cuts_it() -> None:
    (report,) = reports("parameters: {x: [0.3, 1.2]}\nexpression: |\n  (x.round().detach() + x - x.detach()).sum()\n")
    (checked,) = report.parameters
    assert not report.holds
    assert (checked.outcome, checked.torch_agrees) == ("differs", False)
    assert checked.worst is not None
    assert checked.worst.autograd == 1
    assert checked.worst.numeric == pytest.approx(0, abs=1e-9)
    assert [(cause.message, str(cause.mark)) for cause in checked.causes] == [
        ("`detach` cuts the derivative", "config.yaml:3:4"),
        ("`detach` cuts the derivative", "config.yaml:3:29"),
    ]


def test_a_cause_is_told_of_the_gradients_it_is_about_alone() -> None:
    text = "parameters: {x: 2, y: 3}\nexpression: x.detach() * x + (y.to(float32) * 1.1).to(float64)\n"
    (report,) = reports(text)
    assert {checked.parameter: {cause.message for cause in checked.causes} for checked in report.parameters} == {
        "x": {"`detach` cuts the derivative"},
        "y": {"this is float32, too coarse for finite differences"},
    }


@pytest.mark.parametrize(
    ("expression", "autograd", "left", "right"), [("relu(x)", 0, 0, 1), ("abs(x)", 0, -1, 1), ("relu(-x)", 0, -1, 0)]
)
def test_a_kink_is_told_with_its_one_sided_derivatives(
    expression: str, autograd: float, left: float, right: float
) -> None:
    (report,) = reports(f"parameters: {{x: 0}}\nexpression: {expression}\n")
    (checked,) = report.parameters
    assert report.holds
    assert checked.outcome == "kink"
    assert checked.worst is not None
    assert (checked.worst.autograd, checked.worst.left, checked.worst.right) == (autograd, left, right)


def test_a_derivative_outside_of_a_kink_differs() -> None:
    text = "parameters: {x: 0}\nexpression: relu(x) + 3 * x - 3 * x.detach()\n"
    assert only(text).outcome == "differs"


def test_a_weight_beside_a_kink_has_its_derivative() -> None:
    checked = only("parameters: {x: 1e-7}\nexpression: relu(x)\n")
    assert checked.worst is not None
    assert (checked.outcome, checked.worst.numeric) == ("holds", pytest.approx(1))


def test_a_kink_that_was_not_drawn_is_no_difference() -> None:
    text = "parameters: {w: {shape: [50], init: {expression: arange(50.0) - 20}}}\nexpression: relu(w).sum()\n"
    checked = only(text, elements=1)
    assert checked.worst is not None
    assert (checked.worst.outcome, checked.torch_agrees, checked.outcome) == ("holds", False, "kink")


def test_a_jump_is_told() -> None:
    checked = only("parameters: {x: 2}\nexpression: floor(x) + x\n")
    assert checked.outcome == "jump"


def test_a_narrow_curve_is_no_kink() -> None:
    checked = only("parameters: {x: 1e-5}\nexpression: 1e6 * x ** 2\n")
    assert checked.worst is not None
    assert checked.worst.right - checked.worst.left == pytest.approx(2, rel=1e-3)  # the second derivative times 1e-6
    assert (checked.outcome, checked.worst.autograd) == ("holds", pytest.approx(20))


def test_a_small_gradient_cannot_hide_under_the_absolute_tolerance() -> None:
    checked = only("parameters: {x: [2.0, 1.0]}\nexpression: 1e-9 * (x.detach() * x).sum()\n")
    assert checked.outcome == "differs"


def test_the_rounding_of_a_large_objective_is_no_difference() -> None:
    assert only("parameters: {x: [2.0, 1.0]}\nexpression: 1e9 + x.sum()\n").outcome == "holds"


def test_of_a_large_parameter_a_sample_is_checked_and_all_of_it_along_one_direction() -> None:
    text = (
        "parameters: {w: {shape: [10, 10], init: {normal: {}}}}\nexpression: (w ** 2).sum() + 5 * (w.detach() - w)%s\n"
    )
    checked = only(text % ".sum()", elements=7)
    assert (checked.elements, checked.checked, checked.outcome) == (100, 7, "differs")
    held = only(text % "[3, 4] - 5 * (w.detach() - w)[3, 4]", elements=7)
    assert (held.checked, held.outcome, held.torch_agrees) == (7, "holds", True)
    drawn = only(text % "[3, 4] - 5 * (w.detach() - w)[3, 4]", elements=1)
    assert drawn.worst is not None
    other = (drawn.worst.index[0] + 1) % 10
    unseen = only(text % f"[{other}, 0] + 5 * w[{other}, 0]", elements=1)
    assert unseen.worst is not None
    assert (unseen.worst.outcome, unseen.torch_agrees, unseen.outcome) == ("holds", False, "differs")


def test_every_evaluation_draws_the_same_random_numbers_and_leaves_those_of_others_alone() -> None:
    before = torch.get_rng_state()
    checked = only("parameters: {w: {shape: [5], init: 1}}\nexpression: (w ** 3 * randn(5)).sum()\n")
    assert checked.outcome == "holds"
    assert torch.equal(torch.get_rng_state(), before)


def test_the_first_batch_of_a_source_is_used(tmp_path: Path) -> None:
    numpy.savez(tmp_path / "data.npz", x=numpy.arange(12.0).reshape(6, 2))
    text = (
        "parameters: {w: [0.5, -0.25]}\n"
        "data: {points: {file: data.npz, columns: {x: x}, batch_size: 2, shuffle: true}}\n"
        "expression: ((x @ w) ** 2).mean()\noptimizer: {sgd: {lr: 0.01}}\nsteps: [train, train]\n"
    )
    (report,) = reports(text, tmp_path)
    _, first, _ = runner.execute(runner.compile(runner.loads(text, base=tmp_path, overrides=["dtype=float64"])))
    value = first["value"]
    assert value is not None
    assert (report.sources, report.value) == (("points",), value.item())
    assert report.holds


def test_an_objective_with_a_gradient_is_their_product() -> None:
    text = (
        "parameters: {x: [1.0, 2.0]}\nconstants: {g: [3.0, -1.0]}\nexpression: x ** 2\n"
        "steps: [{backward: {gradient: g}}]\n"
    )
    (report,) = reports(text)
    assert (report.value, report.holds) == (3 * 1 - 1 * 4, True)
    worst = report.parameters[0].worst
    assert worst is not None
    assert worst.autograd == {(0,): 3 * 2, (1,): -1 * 4}[worst.index]


def test_the_gradient_of_an_objective_is_held_as_it_is_at_the_start() -> None:
    text = "parameters: {x: [1.0, 2.0]}\nexpression: |\n  h = x + 1\n  h ** 2\nsteps: [{backward: {gradient: h}}]\n"
    (report,) = reports(text)
    assert (report.value, report.holds) == (2**3 + 3**3, True)
    worst = report.parameters[0].worst
    assert worst is not None
    assert worst.autograd == {(0,): 2 * 2 * 2, (1,): 2 * 3 * 3}[worst.index]


def test_a_complex_parameter_is_checked_by_its_parts() -> None:
    text = (
        "parameters: {z: {init: [1.0, 2.0], dtype: complex64}}\nexpression: (z.abs() ** 2).sum() + 3 * z.imag.sum()\n"
    )
    checked = only(text)
    assert (checked.elements, checked.checked, checked.outcome) == (2, 2, "holds")
    assert checked.worst is not None
    assert checked.worst.autograd == pytest.approx({(0, 0): 2, (0, 1): 3, (1, 0): 4, (1, 1): 3}[checked.worst.index])


def test_parameters_that_no_derivative_flows_to_are_told() -> None:
    text = (
        "parameters: {x: 1, y: 2}\nexpression: |\n  a = x * y.detach()\n  b = x * y\noptimizer: {sgd: {lr: 0.1}}\n"
        "steps: [{backward: a}, step, train]\n"
    )
    found = {report.name: report for report in reports(text)}
    assert (found["a"].cut, [checked.parameter for checked in found["a"].parameters]) == (("y",), ["x"])
    assert (found["b"].cut, [checked.parameter for checked in found["b"].parameters]) == ((), ["x", "y"])


def test_an_objective_is_checked_once_however_many_steps_differentiate_it() -> None:
    text = "parameters: {x: 1}\nexpression: x ** 2\noptimizer: {lbfgs: {}}\nsteps: [backward, step, train, train]\n"
    assert [report.name for report in reports(text)] == ["value"]


def test_a_parameter_without_elements_holds() -> None:
    text = "parameters: {x: 1, e: {shape: [0], init: 0}}\nexpression: x + e.sum()\n"
    (report,) = reports(text)
    assert [(checked.parameter, checked.checked, checked.outcome) for checked in report.parameters] == [
        ("x", 1, "holds"),
        ("e", 0, "holds"),
    ]


def test_every_floating_dtype_becomes_double() -> None:
    text = (
        "dtype: bfloat16\nparameters: {a: {init: 1, dtype: float16}, b: 1, c: {init: 1, dtype: complex64},"
        " n: {init: 1, dtype: int64, requires_grad: false}, d: {init: 1, dtype: float64}}\n"
        "constants: {k: {init: [1.0], dtype: float32}, s: 2}\n"
        "data: {d: {file: data.npz, columns: {x: x, y: y}, dtype: {x: float32, y: int64}}}\nexpression: a + b + c\n"
    )
    assert in_double_precision(runner.loads(text)) == [
        "dtype=float64",
        "parameters.a.dtype=float64",
        "parameters.c.dtype=complex128",
        "constants.k.dtype=float64",
        "data.d.dtype.x=float64",
    ]
    assert in_double_precision(runner.loads("dtype: complex64\nparameters: {a: 1}\nexpression: a.abs()\n")) == [
        "dtype=complex128"
    ]


def test_an_objective_that_fails_names_the_step() -> None:
    text = "parameters: {x: 1}\nconstants: {n: [3, 4]}\nexpression: x * n[iteration + 5]\nsteps: [backward]\n"
    config = runner.loads(text)
    with pytest.raises(runner.SteprunError, match="index 6 is outside `n`, which has 2 elements"):
        check_gradients(runner.compile(overridden(config, in_double_precision(config))))
