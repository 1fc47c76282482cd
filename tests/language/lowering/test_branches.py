"""`a if c else b`, `and`, `or`: only the chosen side is computed."""

from __future__ import annotations

import pytest
import torch

from runner.language.graph.computation import extract
from tests.language.lowering import compute, fault_of, lower, same, tensors, value_of
from tests.tables import over

ITERATIONS = [1, 2, 3, 5, 9]


def _steps(text: str, declarations: dict[str, str] | None = None) -> list[object]:
    """The value at each of some iterations, of one lowering."""
    given = tensors()
    computation = extract(lower(text, declarations, given), ["value"])
    return [compute(computation, given, iteration)[0] for iteration in ITERATIONS]


@pytest.mark.parametrize(
    "text",
    ["x if flag else nothing", "nothing if not flag else x", "x if n > 2 else x @ x", "x if training else nothing"],
)
def test_with_a_fixed_condition_the_other_side_is_not_even_looked_at(text: str) -> None:
    assert same(value_of(text), tensors()["x"])


@over(
    "text",
    [
        "x * 2 if iteration > 2 else w.T",
        "x if iteration % 2 == 0 else x + 1 if iteration > 3 else x + 2",
        "(x if iteration > 1 else x * 2) @ (w if iteration > 2 else w * 3)",
        "x.sum() if 1 < iteration < 5 else x.mean()",
        "1 / (iteration - 1) if iteration > 1 else 0.0",
        "0.0 if iteration == 1 else (1 / (iteration - 1) if iteration < 6 else 1 / (iteration - 2))",
        "x[iteration] if iteration < 2 else x[0]",
        "c[iteration - 3] if iteration == 5 else 1.0",
        "iteration if iteration > 2 else -iteration",
        "iteration > 2 and iteration",
        "iteration > 2 or 7",
        "iteration > 2 and iteration < 5 and x.shape[0]",
        "not iteration > 2",
        "x * (2 if iteration > 2 else 3)",
        "x * (iteration > 2 and 1 / (iteration - 1) or 1)",
    ],
)
def test_the_value_at_each_iteration_is_pythons(text: str) -> None:
    names = tensors() | {"c": tensors()["c"].tolist()}
    expected = [eval(text, {"iteration": iteration}, names) for iteration in ITERATIONS]
    if any(isinstance(value, (int, float)) for value in expected):  # numbers are of one type in all iterations
        kind = max(map(type, expected), key=(bool, int, float).index)
        expected = [kind(value) for value in expected]
    assert all(map(same, _steps(text), expected))


def test_a_side_that_would_raise_is_not_computed() -> None:
    given = tensors()
    computation = extract(lower("x * (1 / (iteration - 3)) if iteration > 3 else x", given=given), ["value"])
    assert same(compute(computation, given, 3)[0], given["x"])
    assert same(compute(computation, given, 5)[0], given["x"] * 0.5)
    computation = extract(lower("x * (1 / (iteration - 3)) if iteration > 1 else x", given=given), ["value"])
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        compute(computation, given, 3)


@pytest.mark.parametrize("first", [2, 250, 2501, 12_345_678])
def test_a_side_is_inferred_at_an_iteration_at_which_it_is_chosen(first: int) -> None:
    text = f"c[iteration - {first}] if iteration >= {first} and iteration < {first} + 3 else 1.0"
    computation = extract(lower(text), ["value"])
    assert [compute(computation, tensors(), first + offset)[0] for offset in (-1, 0, 2, 3)] == [1.0, 0.5, 4.0, 1.0]


def test_a_side_that_can_never_be_right_is_refused_before_the_run() -> None:
    assert fault_of("x if iteration < 2 else x @ x").place.as_tuple() == (1, 24, 5)


def test_branches_see_what_is_around_them() -> None:
    declarations = {"f(a)": "u = a * 2\nu if iteration > 2 else u + y"}
    found = _steps("y = x + 1\nf(y)", declarations)
    y = tensors()["x"] + 1
    assert all(map(same, found, [y * 2 if iteration > 2 else y * 2 + y for iteration in ITERATIONS]))
    found = _steps("f(x) if iteration > 2 else f(w.T)", {"f(a)": "a.sum() if iteration > 4 else a.mean()"})
    x, w = tensors()["x"], tensors()["w"].T
    assert same(found, [w.mean(), w.mean(), x.mean(), x.sum(), x.sum()])


def test_branches_within_loops() -> None:
    found = _steps("y = x\nfor i in range(4):\n  y = y + i if iteration > i else y * 2\ny")
    for value, iteration in zip(found, ITERATIONS, strict=True):
        y = tensors()["x"]
        for i in range(4):
            y = y + i if iteration > i else y * 2
        assert same(value, y)


def test_a_number_beside_a_tensor_becomes_one() -> None:
    x = tensors()["x"]
    assert same(_steps("x.sum() if iteration > 2 else 0"), [torch.tensor(0.0)] * 2 + [x.sum()] * 3)
    assert same(
        _steps("sqrt(4 if iteration < 3 else x.abs().sum())")[:3], [torch.tensor(2.0)] * 2 + [x.abs().sum().sqrt()]
    )
    (output,) = extract(lower("x.sum() if iteration > 2 else 0"), ["value"]).outputs
    assert (output.dtype, output.shape, output.scalar) == (torch.float32, (), False)


def test_numbers_of_both_sides_are_logged_in_one_dtype() -> None:
    (output,) = extract(lower("1 if iteration < 3 else 0.5"), ["value"]).outputs
    assert (output.dtype, output.scalar) == (torch.float64, True)


def test_lists_of_both_sides_are_chosen_as_a_whole() -> None:
    given = tensors()
    computation = extract(lower("p, q = (x, w) if iteration > 2 else (w, x)", given=given), ["p", "q"])
    assert same(compute(computation, given, 1), (given["w"], given["x"]))
    assert same(compute(computation, given, 3), (given["x"], given["w"]))


def test_sides_of_different_shapes_have_a_shape_that_varies() -> None:
    shapes = {
        "x if iteration > 1 else w": None,
        "x if iteration > 1 else x * 2": (2, 3),
        "x if iteration > 1 else 0": None,
        "(x if iteration > 1 else 0) * 2": None,
        "(x if iteration > 1 else 0).sum()": (),
    }
    for text, shape in shapes.items():
        assert extract(lower(text), ["value"]).outputs[0].shape == shape


def test_gradients_flow_through_the_chosen_side() -> None:
    for iteration in (1, 3):
        x = torch.randn(2, 3, requires_grad=True)
        found = value_of(
            "y = x * 2\nloss = (y ** 2).sum() if iteration > 2 else y.sum()", given={"x": x}, iteration=iteration
        )
        (gradient,) = torch.autograd.grad(found, x)
        y = x.detach().requires_grad_()
        (expected,) = torch.autograd.grad(((y * 2) ** 2).sum() if iteration > 2 else (y * 2).sum(), y)
        assert torch.equal(gradient, expected)


def test_what_is_random_in_a_side_is_known() -> None:
    assert extract(lower("randn(2) if iteration > 1 else zeros(2)"), ["value"]).random
    assert not extract(lower("r = randn(2)\ns = ones(2) if iteration > 1 else zeros(2)"), ["s"]).random


@over(
    ("text", "place", "message", "hint"),
    [
        (
            "1 if x else 2",
            (1, 5, 1),
            "`x` is a tensor of shape (2, 3), float32; `if` takes scalar conditions",
            "for tensors write `where(condition, a, b)`",
        ),
        (
            "x if x.sum() > 0 else w",
            (1, 5, 11),
            "`x.sum() > 0` is a tensor of shape (), bool; `if` takes scalar conditions",
            "for tensors write `where(condition, a, b)`",
        ),
        (
            "x and 1",
            (1, 0, 1),
            "`x` is a tensor of shape (2, 3), float32; `and` takes scalar conditions",
            "for tensors write `logical_and(a, b)` or `a & b`",
        ),
        (
            "0 or x",
            (1, 5, 1),
            "`x` is a tensor of shape (2, 3), float32; `or` takes scalar conditions",
            "for tensors write `logical_or(a, b)` or `a | b`",
        ),
        (
            "not x",
            (1, 4, 1),
            "`x` is a tensor of shape (2, 3), float32; `not` takes scalar conditions",
            "for tensors write `logical_not(a)` or `~a`",
        ),
        (
            "1 if 'a' else 2",
            (1, 5, 3),
            "`'a'` is the string 'a'; `if` takes scalar conditions",
            "for tensors write `where(condition, a, b)`",
        ),
        (
            "k if iteration > 1 else c",
            (1, 0, 25),
            "one side is int64, the other float32",
            "cast one of them: `x.to(float32)`",
        ),
        (
            "'a' if iteration > 1 else 'b'",
            (1, 0, 29),
            "one side is the string 'a', but the condition is only known at run time",
            "choose between tensors or numbers",
        ),
        (
            "None if iteration > 1 else x",
            (1, 0, 28),
            "one side is `None`, but the condition is only known at run time",
            "choose between tensors or numbers",
        ),
        (
            "float32 if iteration > 1 else float64",
            (1, 0, 37),
            "one side is the dtype float32, but the condition is only known at run time",
            "choose between tensors or numbers",
        ),
        (
            "(x, w) if iteration > 1 else x",
            (1, 0, 30),
            "one side is a tuple of 2 values, the other a tensor of shape (2, 3), float32",
            "give both sides the same kind of value",
        ),
        (
            "(x, w) if iteration > 1 else (x,)",
            (1, 0, 33),
            "one side is a tuple of 2 values, the other a tuple of 1 values",
            "give both sides the same kind of value",
        ),
    ],
)
def test_conditions_and_sides_that_do_not_fit_are_told(
    text: str, place: tuple[int, int, int], message: str, hint: str
) -> None:
    fault = fault_of(text)
    assert (fault.place.as_tuple(), fault.message, fault.hint) == (place, message, hint)


def test_a_denied_argument_cannot_be_chosen_while_it_runs() -> None:
    assert (
        "the condition is only known at run time"
        in fault_of("mse_loss(x, x, reduction='sum' if iteration > 1 else 'mean')").message
    )
    assert same(
        value_of("mse_loss(x, x + 1, reduction='sum' if n > 1 else 'mean')"),
        ((tensors()["x"] - (tensors()["x"] + 1)) ** 2).sum(),
    )
