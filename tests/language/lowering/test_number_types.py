"""A running number is of one type in all iterations, so a tensor that reads it has the dtype that was planned."""

from __future__ import annotations

import pytest
import torch

import runner
from tests.tables import over

CONFIG = """\
parameters: {w: 1.0}
constants: {k: {init: [3, 4]}, late: {init: [0, 0, 0, -1, 2]}}
expression: w * 2
metrics:
  n: |-
    NUMBER
  p: |-
    k * (NUMBER)
steps: [{repeat: {times: 5, steps: [forward]}}]
"""


def rows(number: str) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The number and its product with integers, at five iterations."""
    found = list(runner.execute(runner.compile(runner.loads(CONFIG.replace("NUMBER", number)))))[1:]
    numbers, products = [row["n"] for row in found], [row["p"] for row in found]
    assert all(isinstance(each, torch.Tensor) for each in (*numbers, *products))
    return numbers, products  # type: ignore[return-value]


@over(
    ("number", "kind"),
    [
        ("min(iteration, 2.5)", float),
        ("max(1, 0.5 * iteration)", float),
        ("min(iteration, 3)", int),
        ("max(iteration < 3, 1)", int),
        ("2 ** (1 - iteration)", float),
        ("2 ** (iteration - 2)", float),
        ("2 ** -(iteration // 3)", float),
        ("math.pow(2, 3 - iteration)", float),
        ("2 ** iteration", int),
        ("iteration ** (iteration - 1)", int),
        ("2.0 ** (3 - iteration)", float),
        ("1 if iteration < 2 else 2.5", float),
        ("2.5 if iteration < 2 else 1", float),
        ("iteration > 2 and 2.5", float),
        ("2 ** (iteration - 3) if iteration > 2 else 0", int),
        ("2 ** (3 - iteration) if iteration < 5 else 7", float),
        ("(2 ** (3 - iteration) if iteration < 4 else 7) if iteration > 1 else 5", int),
    ],
)
def test_a_running_number_is_pythons_and_of_one_type(number: str, kind: type) -> None:
    numbers, products = rows(number)
    dtype = {int: torch.int64, float: torch.float64}[kind]
    integers = torch.tensor([3, 4])
    for iteration, (found, product) in enumerate(zip(numbers, products, strict=True), 1):
        expected = kind(eval(number, {"iteration": iteration, "math": __import__("math")}))
        assert found.dtype == dtype
        assert found.item() == expected
        assert product.dtype == (integers * expected).dtype
        assert torch.equal(product, integers * expected)


def test_a_fraction_where_an_integer_was_planned_is_a_fault() -> None:
    told = r"the result is 0\.5, and before the run it was an integer: write a base like `2\.0`"
    with pytest.raises(runner.RunError, match=rf"(?s)<stdin>:6:5  metrics\.n.*\^ {told}"):
        rows("2 ** late[iteration - 1]")
