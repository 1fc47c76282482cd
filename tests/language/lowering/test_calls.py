"""Helper functions: inlined where they are called, with a scope of their own."""

from __future__ import annotations

import pytest
import torch

from runner.language.lowering.scope import declare_functions
from tests.language.lowering import fault_of, same, tensors, value_of
from tests.tables import over

X = tensors()["x"]


@over(
    ("text", "declarations", "expected"),
    [
        ("double(x)", {"double(a)": "2 * a"}, 2 * X),
        ("f(x, 3)", {"f(a, b)": "a * b"}, X * 3),
        ("f(b=x, a=3)", {"f(a, b)": "a - b"}, 3 - X),
        ("f(x, b=3)", {"f(a, b)": "a - b"}, X - 3),
        ("f(x)", {"f(a, b=2, c=-0.5)": "a * b + c"}, X * 2 - 0.5),
        ("f(x, c=1)", {"f(a, b=2, c=-0.5)": "a * b + c"}, X * 2 + 1),
        ("f(x)", {"f(a, b=n)": "a * b"}, X * 3),
        ("f(x)", {"f(a, dtype=torch.float64)": "a.to(dtype)"}, X.to(torch.float64)),
        ("f(x)", {"f(a, reduction='sum')": "mse_loss(a, zeros(2, 3), reduction=reduction)"}, (X * X).sum()),
        ("f(x)", {"f(a)": "u = a * 2\nv = u + 1\nv * u"}, (X * 2 + 1) * (X * 2)),
        ("f(x)", {"f(a)": "for i in range(3):\n  a = a * 2\na"}, X * 8),
        ("f(x)", {"f(a)": "y = a * 2"}, X * 2),
        ("one()", {"one()": "1.0"}, 1.0),
        ("f(g(x)) + g(f(x))", {"f(a)": "a * 2", "g(a)": "a + 1"}, ((X + 1) * 2) + (X * 2 + 1)),
        ("f(f(x))", {"f(a)": "a * 2"}, X * 2 * 2),
        ("f(x)", {"f(a)": "g(a) + 1", "g(a)": "a * 2"}, X * 2 + 1),
        ("p, q = f(x)\np * q", {"f(a)": "a + 1, a - 1"}, (X + 1) * (X - 1)),
        ("f(x)[1]", {"f(a)": "(a, a * 2)"}, X * 2),
        ("f([x, x])", {"f(pair)": "pair[0] + pair[1]"}, X + X),
        ("f('sum')", {"f(reduction)": "mse_loss(x, x + 1, reduction=reduction)"}, ((X + 1 - X) ** 2).sum()),
        ("f(c[1])", {"f(a)": "x * a"}, X * 0.25),
    ],
)
def test_a_call_gives_what_its_body_gives(text: str, declarations: dict[str, str], expected: object) -> None:
    assert same(value_of(text, declarations), expected)


def test_a_function_sees_what_was_named_at_top_level_before_the_call() -> None:
    assert same(value_of("y = x * 2\nf(3)", {"f(a)": "a * y"}), 3 * (X * 2))
    assert fault_of("p = f(3)\ny = x\np", {"f(a)": "a * y"}).message == "`y` is not declared"


def test_a_function_sees_the_last_value_of_a_name() -> None:
    assert same(value_of("y = x\np = f(1)\ny = x * 2\np + f(1)", {"f(a)": "a * y"}), 1 * X + 1 * (X * 2))


@pytest.mark.parametrize(
    ("text", "declarations"),
    [
        ("g(x)", {"f(a)": "a * secret", "g(b)": "secret = b\nf(b)"}),
        ("g(x)", {"f(a)": "a * secret", "g(secret)": "f(secret)"}),
        ("for secret in range(2):\n  y = f(x)\ny", {"f(a)": "a * secret"}),
        ("g(x)", {"f(a)": "a * secret", "g(b)": "for secret in range(2):\n  y = f(b)\ny"}),
        ("g(x, 1)", {"f(a, b=secret)": "a * b", "g(b, secret)": "f(b)"}),
    ],
)
def test_a_function_does_not_see_its_callers_locals(text: str, declarations: dict[str, str]) -> None:
    assert "`secret` is not declared" in fault_of(text, declarations).message


def test_locals_shadow_and_do_not_leak() -> None:
    assert same(value_of("f(3) * x", {"f(x)": "x * 2"}), 6 * X)
    assert same(value_of("y = x\np = f(1)\np + y", {"f(a)": "y = a * 2\ny"}), 2 + X)
    assert same(value_of("f(x) + c.sum()", {"f(c)": "c[0].sum()"}), X[0].sum() + tensors()["c"].sum())
    assert fault_of("y = f(1)\nsecret", {"f(a)": "secret = a\nsecret"}).message == "`secret` is not declared"
    assert fault_of("for i in range(2):\n  y = x\ni * x").message == "`i` is not declared"


def test_an_argument_that_is_assigned_changes_for_the_function_alone() -> None:
    assert same(value_of("f(x) + x", {"f(a)": "a = a * 2\na"}), X * 2 + X)


@over(
    ("text", "place", "message", "hint"),
    [
        ("f(x, 1, 2)", (1, 0, 10), "`f` takes 2 arguments, 3 are given", "it is declared as `f(a, b)`"),
        ("one(x, 1)", (1, 0, 9), "`one` takes 1 argument, 2 are given", "it is declared as `one(a)`"),
        ("f(x)", (1, 0, 4), "`f` needs `b`", "it is declared as `f(a, b)`"),
        ("f()", (1, 0, 3), "`f` needs `a`, `b`", "it is declared as `f(a, b)`"),
        ("f(x, c=1)", (1, 0, 9), "`f` has no argument `c`", "it is declared as `f(a, b)`"),
        ("g(x, scal=1)", (1, 0, 12), "`g` has no argument `scal`", "did you mean `scale`?"),
        ("f(x, a=1)", (1, 0, 9), "argument `a` of `f` is given twice", "remove one of them"),
        ("f", (1, 0, 1), "`f` is a function", "call it: `f(…)`"),
        ("gg(x)", (1, 0, 2), "there is no operation `gg`", "did you mean `g`?"),
    ],
)
def test_a_call_that_does_not_fit_is_told(text: str, place: tuple[int, int, int], message: str, hint: str) -> None:
    fault = fault_of(text, {"f(a, b)": "a * b", "one(a)": "a", "g(a, scale=1)": "a"})
    assert (fault.place.as_tuple(), fault.message, fault.hint) == (place, message, hint)


def test_an_argument_is_given_once() -> None:
    fault = fault_of("f(x, b=1, b=2)", {"f(a, b)": "a * b"})
    assert (fault.place.as_tuple(), fault.message) == ((1, 10, 3), "argument `b` is given twice")


def test_a_fault_inside_a_function_stands_in_its_body() -> None:
    fault = fault_of("f(x)", {"f(a)": "u = a * 2\nu @ u"})
    assert fault.origin == ("functions", "f(a)")
    assert fault.place.as_tuple() == (2, 0, 5)
    assert fault.message.startswith("inner sizes 3 and 2 of a product differ: `u` is (2, 3)")


def test_a_default_that_fails_is_told_at_the_call() -> None:
    fault = fault_of("1 + f(x)", {"f(a, b=missing)": "a * b"})
    assert (fault.origin, fault.place.as_tuple()) == (None, (1, 4, 4))
    assert fault.message == "the default of `b`: `missing` is not declared"


@over(
    ("declarations", "message"),
    [
        ({"f(a)": "f(a)"}, "`f` calls `f`"),
        ({"f(a)": "g(a)", "g(a)": "1 + f(a)"}, "`f` calls `g` calls `f`"),
        ({"f(a)": "a", "f(a, b)": "a"}, "`f` is declared twice"),
        ({"relu(a)": "a"}, "`relu` is an operation already"),
        ({"sqrt(a)": "a"}, "`sqrt` is an operation already"),
        ({"grad(a)": "a"}, "`grad` is an operation already"),
        ({"len(a)": "a"}, "`len` is an operation already"),
        ({"f(a)": ""}, "the expression is empty"),
        ({"f(a)": "a +"}, "the line ends too early"),
        ({"f(a)": "for i in range(2):\n  a = a * 2"}, "the last line is a loop, and has no value"),
        ({"f(a": "a"}, "`f(a` is not the head of a function"),
    ],
)
def test_a_function_that_cannot_be_declared_is_told(declarations: dict[str, str], message: str) -> None:
    _, faults = declare_functions(declarations)
    assert [fault.message for _, _, fault in faults] == [message]


def test_one_fault_does_not_hide_the_others() -> None:
    functions, faults = declare_functions({"f(a": "a", "g(a)": "a +", "h(a)": "a"})
    assert list(functions) == ["h"]
    assert [(declaration, head) for declaration, head, _ in faults] == [("f(a", True), ("g(a)", False)]


def test_gradients_flow_through_functions() -> None:
    x = torch.randn(2, 3, requires_grad=True)
    found = value_of("f(x).sum()", {"f(a)": "g(a) * a", "g(a)": "tanh(a)"}, given={"x": x})
    (gradient,) = torch.autograd.grad(found, x)
    y = x.detach().requires_grad_()
    (expected,) = torch.autograd.grad((torch.tanh(y) * y).sum(), y)
    assert torch.equal(gradient, expected)
