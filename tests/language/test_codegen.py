"""A fault while it runs is told at the part of the expression that it happened in."""

from __future__ import annotations

from typing import Any

import pytest

from runner.language.codegen import fault_place
from runner.language.computation import extract
from tests.language.lowering import compute, lower, tensors


@pytest.mark.parametrize(
    ("text", "declarations", "place", "origin"),
    [
        ("y = x * 2\ny * (1 / (iteration - 3))", {}, (2, 5, 19), None),
        ("x * c[iteration]", {}, (1, 4, 12), None),
        ("x[0].sum() + stack([x[0]] * 3)[iteration]", {}, (1, 13, 28), None),
        ("f(x)", {"f(a)": "u = a * 2\nu * (1 / (iteration - 3))"}, (2, 5, 19), ("functions", "f(a)")),
        ("g(x)", {"g(a)": "f(a) + 1", "f(a)": "a * sqrt(2.5 - iteration)"}, (1, 4, 21), ("functions", "f(a)")),
        ("x if iteration < 2 else x * (1 / (iteration - 3))", {}, (1, 29, 19), None),
        ("x if iteration < 2 else (x if iteration > 5 else x * (1 / (iteration - 3)))", {}, (1, 54, 19), None),
        ("f(x)", {"f(a)": "a if iteration < 2 else a * (1 / (iteration - 3))"}, (1, 29, 19), ("functions", "f(a)")),
        ("f(x) if iteration > 1 else x", {"f(a)": "a * (1 / (iteration - 3))"}, (1, 5, 19), ("functions", "f(a)")),
        ("y = x\nfor i in range(2):\n  y = y / i if i > 3 else y * (1 / (3 - iteration))\ny", {}, (3, 31, 19), None),
    ],
)
def test_a_fault_while_running_stands_at_its_place(
    text: str, declarations: dict[str, str], place: tuple[int, int, int], origin: Any
) -> None:
    given = tensors()
    lowered = lower(text, declarations, given)
    computation = extract(lowered, [lowered.result])
    compute(computation, given, 1)
    with pytest.raises((ArithmeticError, ValueError, IndexError), match=r"zero|domain|outside|out of bounds") as caught:
        compute(computation, given, 3)
    found = fault_place(caught.value.__traceback__)
    assert found is not None
    assert (found[0].as_tuple(), found[1]) == (place, origin)


def test_a_fault_elsewhere_has_no_place() -> None:
    with pytest.raises(ZeroDivisionError, match="division by zero") as caught:
        _ = 1 / 0
    assert fault_place(caught.value.__traceback__) is None
