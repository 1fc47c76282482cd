"""Parameters and constants: short forms, initialisers, shapes of lists."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.catalogue import initialisers
from runner.config import InitCall, InitExpression, TensorDeclaration, loads
from runner.errors import ConfigError
from tests.tables import over


def parameter(written: str, **constants: object) -> TensorDeclaration:
    text = f"parameters: {{x: {written}}}\nexpression: f = x\nconstants: {constants or {}}\n"
    return loads(text).parameters["x"]


def constant(written: str) -> Any:
    return loads(f"parameters: {{x: 1}}\nexpression: f = x\nconstants: {{c: {written}}}\n").constants["c"]


@over(
    ("written", "expected"),
    [
        ("100", TensorDeclaration(init=100, shape=())),
        ("1e-3", TensorDeclaration(init=1e-3, shape=())),
        ("[1, 2]", TensorDeclaration(init=(1, 2))),
        ("[[1, 2], [3, 4]]", TensorDeclaration(init=((1, 2), (3, 4)))),
        ("[]", TensorDeclaration(init=())),
        ("[[], []]", TensorDeclaration(init=((), ()))),
        ("[true, false]", TensorDeclaration(init=(True, False))),
        ("[d, 2 * d]", TensorDeclaration(init=("d", "2 * d"))),
        ("{init: 3}", TensorDeclaration(init=3)),
        ("{init: true}", TensorDeclaration(init=True)),
        ("{init: d, shape: [d, 3 * d, 1]}", TensorDeclaration(init="d", shape=("d", "3 * d", 1))),
        ("{init: 2 * d}", TensorDeclaration(init="2 * d")),
        ("{init: zeros}", TensorDeclaration(init=InitCall(name="zeros"))),
        ("{init: {zeros: }}", TensorDeclaration(init=InitCall(name="zeros"))),
        (
            "{init: {normal: {std: d / 10}}}",
            TensorDeclaration(init=InitCall(name="normal", arguments={"std": "d / 10"})),
        ),
        (
            "{init: {kaiming_normal: {mode: fan_out}}}",
            TensorDeclaration(init=InitCall(name="kaiming_normal", arguments={"mode": "fan_out"})),
        ),
        ('{init: {expression: "randn(3)"}}', TensorDeclaration(init=InitExpression(expression="randn(3)"))),
        ("{file: x.npz#key, dtype: torch.float64}", TensorDeclaration(file="x.npz#key", dtype="float64")),
        (
            "{init: 1, dtype: double, requires_grad: false, stacked: 1}",
            TensorDeclaration(init=1, dtype="float64", requires_grad=False, stacked=1),
        ),
    ],
)
def test_every_form_of_a_parameter(written: str, expected: TensorDeclaration) -> None:
    assert parameter(written, d=4) == expected


@pytest.mark.parametrize(
    ("written", "expected"), [("3", 3), ("0.5", 0.5), ("true", True), ("d // heads", "d // heads"), ("'3'", "3")]
)
def test_a_bare_constant_is_a_scalar(written: str, expected: object) -> None:
    found = constant(written)
    assert found == expected
    assert type(found) is type(expected)


def test_a_constant_tensor_needs_no_init() -> None:
    assert constant("{shape: [3]}") == TensorDeclaration(shape=(3,))
    assert constant("[1, 2]") == TensorDeclaration(init=(1, 2))
    assert constant("{init: 1, requires_grad: false}") == TensorDeclaration(init=1, requires_grad=False)


@over("name", initialisers())
def test_every_initialiser_takes_its_own_arguments(name: str) -> None:
    table = initialisers()[name]
    arguments: dict[str, Any] = {
        argument.name: "fan_in" if argument.type == "str" else 1 for argument in table.arguments
    }
    assert parameter(f"{{init: {{{name}: {arguments}}}}}").init == InitCall(name=name, arguments=arguments)
    with pytest.raises(ConfigError, match=f"{name} has no argument `generator`"):
        parameter(f"{{init: {{{name}: {arguments | {'generator': 1}}}}}}")


def test_an_initialiser_goes_before_a_constant_of_its_name() -> None:
    assert parameter("{init: ones}", ones=3).init == InitCall(name="ones")


LISTS = st.recursive(
    st.integers(0, 9) | st.floats(0, 1) | st.booleans(),
    lambda inner: st.lists(inner, min_size=1, max_size=3),
    max_leaves=8,
)


def shape_of(value: object) -> tuple[int, ...] | None:
    """The shape of a nested list, or None where it has none."""
    if not isinstance(value, list):
        return ()
    shapes = {shape_of(item) for item in value}
    return None if len(shapes) > 1 or None in shapes else (len(value), *(shapes.pop() or ()))


@given(LISTS.filter(lambda value: isinstance(value, list)))
def test_a_list_is_taken_exactly_where_it_has_a_shape(value: list[Any]) -> None:
    written = str(value).replace("True", "true").replace("False", "false")
    if shape_of(value) is None:
        with pytest.raises(ConfigError, match="a ragged list"):
            parameter(written)
    else:
        assert str(parameter(written).init).replace(",)", ")") == str(value).replace("[", "(").replace("]", ")")
