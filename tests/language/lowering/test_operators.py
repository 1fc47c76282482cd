"""Operators are Python's between scalars and torch's wherever a tensor is."""

from __future__ import annotations

import itertools

import pytest
import torch

from runner.language.inference.inference import Inference
from runner.language.lowering.lower import lower_statements
from tests.language.lowering import fault_of, same, scope, tensors, value_of
from tests.tables import over

BINARY = ["+", "-", "*", "/", "//", "%", "**", "==", "!=", "<", "<=", ">", ">="]
OPERANDS = ["x", "w.T", "b", "k", "z", "2", "-1.5", "True", "n", "rate", "iteration", "b > 0"]


def _python(text: str) -> object:
    names = {**tensors(), "n": 3, "rate": 0.1, "iteration": 1, "torch": torch}
    return eval(text, {"__builtins__": {}}, names)


@pytest.mark.slow
@over("operator", BINARY)
def test_an_operator_gives_what_python_gives_on_the_same_operands(operator: str) -> None:
    tried = 0
    for left, right in itertools.product(OPERANDS, OPERANDS):
        text = f"({left}) {operator} ({right})"
        try:
            expected = _python(text)
        except (RuntimeError, ValueError, TypeError, ZeroDivisionError):
            fault = fault_of(text)
            assert fault.place.line == 1
            assert fault.hint
            continue
        if isinstance(expected, complex):
            continue
        assert same(value_of(text), expected), text
        tried += 1
    assert tried > 60


@over("operator", ["&", "|", "^"])
@over(("left", "right"), [("k", "k"), ("k", "1"), ("2", "k"), ("b > 0", "c > 1"), ("3", "n"), ("b > 0", "k")])
def test_bitwise_operators_take_integers_and_booleans(operator: str, left: str, right: str) -> None:
    text = f"({left}) {operator} ({right})"
    assert same(value_of(text), _python(text))


@over(
    "text",
    ["-x", "+x", "~k", "~(b > 0)", "-n", "~n", "-rate", "not n", "-iteration", "~iteration", "not (iteration > 1)"],
)
def test_unary_operators(text: str) -> None:
    assert same(value_of(text), _python(text))


@over("text", ["x @ w", "w @ x", "b @ c", "x @ b", "b @ w", "stack([x, x]) @ w"])
def test_matrix_products(text: str) -> None:
    expected = eval(text, {"stack": torch.stack}, tensors())
    assert same(value_of(text), expected)


@over("base", ["-2", "-1.5", "-inf", "-0.0", "(-n)", "-1j"])
def test_a_negative_number_to_the_power_of_a_tensor_is_not_the_negative_of_the_power(base: str) -> None:
    exponent = torch.tensor([1.0, 2.0, 3.0])
    expected = eval(f"({base}) ** e", {"e": exponent, "n": 3, "inf": torch.inf})
    assert same(value_of(f"({base}) ** e", given={"e": exponent}), expected)


def test_a_long_sum_is_lowered_without_recursion() -> None:
    assert same(value_of("x" + " + x" * 90), sum([tensors()["x"]] * 90, tensors()["x"]))


@over("text", ["1 < 2 < 3", "1 < 3 < 2", "3 > n >= 3", "1 < iteration < 3", "0 < iteration < 2 < n", "1 == 1.0 != 2"])
def test_chains_of_comparisons_take_scalars(text: str) -> None:
    assert same(value_of(text), _python(text))


@over(
    ("text", "expected"),
    [
        ("'mean' == 'mean'", True),
        ("'mean' != 'sum'", True),
        ("x.dtype == float64", False),
        ("x.shape == (2, 3)", True),
        ("x.shape != (2, 3)", False),
        ("None == None", True),
        ("[1, 2] == [1, 2]", True),
        ("[1] + [2, 3]", [1, 2, 3]),
        ("(1,) * 3", (1, 1, 1)),
        ("2 * [0]", [0, 0]),
        ("x.shape + (1,)", (2, 3, 1)),
    ],
)
def test_fixed_values_are_compared_and_joined_before_the_run(text: str, expected: object) -> None:
    assert same(value_of(text), expected)


@over(
    ("text", "place", "message", "hint"),
    [
        (
            "x + w",
            (1, 0, 5),
            "shapes (2, 3) and (3, 2) do not broadcast: `x` is (2, 3), `w` is (3, 2)",
            "sizes are compared from the last dimension on; `unsqueeze` or `reshape` one side",
        ),
        (
            "relu(x) * 2 < w.sum(0)",
            (1, 0, 22),
            "shapes (2, 3) and (2,) do not broadcast: `relu(x) * 2` is (2, 3), `w.sum(0)` is (2,)",
            "sizes are compared from the last dimension on; `unsqueeze` or `reshape` one side",
        ),
        (
            "2 * (x @ x)",
            (1, 5, 5),
            "inner sizes 3 and 2 of a product differ: `x` is (2, 3), `x` is (2, 3)",
            "transpose one side with `.mT`, or change its shape",
        ),
        (
            "x < 1 < 2",
            (1, 0, 1),
            "`x` is a tensor of shape (2, 3), float32; a chain of comparisons takes scalars",
            "for tensors write `(a < b) & (b < c)`",
        ),
        ("1 @ 2", (1, 0, 5), "`@` needs tensors", "multiply numbers with `*`"),
        ("-'a'", (1, 0, 4), "`-'a'` computes with the string 'a'", "use tensors and numbers"),
        ("x * float32", (1, 0, 11), "`x * float32` computes with the dtype float32", "use tensors and numbers"),
        ("2.0 ^ 3", (1, 0, 7), "`2.0 ^ 3`: `^` does not take a float and an int", "change the numbers in it"),
    ],
)
def test_operands_that_do_not_fit_are_told(text: str, place: tuple[int, int, int], message: str, hint: str) -> None:
    fault = fault_of(text)
    assert (fault.place.as_tuple(), fault.message, fault.hint) == (place, message, hint)


def test_a_fault_of_a_long_sum_stands_at_the_operator_that_fails() -> None:
    assert fault_of("x + 1 + w + 2").place.as_tuple() == (1, 0, 9)


def test_running_scalars_are_computed_while_it_runs_and_stay_bounded() -> None:
    found = scope(tensors())
    lowered = lower_statements("2 ** iteration * x", found, Inference())
    assert [node for node in lowered.graph.nodes if node.op == "call_function"]
    assert same(value_of("2 ** iteration * x", iteration=5), 32 * tensors()["x"])
    with pytest.raises(Exception, match=r"the result is an integer larger than 2\^63"):
        value_of("2 ** iteration * x", iteration=100)
