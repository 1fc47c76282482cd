"""What takes long is inferred by its shape alone, and derivatives of derivatives are counted before they are taken."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from runner.language.inference.costs import has_longer_history, is_costly
from runner.language.inference.inference import Bounds, Clock, Inference
from runner.language.lowering.lower import lower_statements
from tests.language.lowering import fault_of, lower, scope, tensors
from tests.tables import over


@over(
    ("function", "shapes", "costly"),
    [
        (torch.linalg.svd, [(3000, 3000)], True),
        (torch.linalg.svd, [(300, 300)], False),
        (torch.linalg.svdvals, [(1_000_000, 3)], False),
        (torch.linalg.svd, [(2**24, 1, 1)], True),
        (torch.linalg.solve, [(2**24, 1, 1), (1, 1)], True),
        (torch.cholesky_solve, [(1, 2**14, 1, 0), (2**14, 1, 1, 1)], True),
        (torch.cholesky_solve, [(1, 2**12, 1, 0), (2**12, 1, 1, 1)], False),
        (torch.cdist, [(2**14, 1, 0, 3), (1, 2**14, 2, 3)], True),
        (torch.matmul, [(5000, 5000), (5000, 5000)], True),
        (torch.matmul, [(1024, 512), (512, 2048)], False),
        (torch.matmul, [(10_000_000,), (10_000_000,)], False),
        (torch.mm, [(5000, 5000), (5000, 5000)], True),
        (Tensor.matmul, [(5000, 5000), (5000, 5000)], True),
        (torch.cdist, [(40_000, 10), (40_000, 10)], True),
        (torch.nn.functional.conv2d, [(64, 64, 200, 200), (256, 64, 7, 7)], True),
        (torch.nn.functional.conv2d, [(64, 1, 28, 28), (32, 1, 3, 3)], False),
        (torch.add, [(50_000, 50_000), (1,)], False),
        (torch.special.chebyshev_polynomial_t, [(1,), (1,)], True),
    ],
)
def test_what_takes_long_is_told_by_its_shapes(function: object, shapes: list[tuple[int, ...]], costly: bool) -> None:
    args = tuple(torch.zeros(1).expand(shape) for shape in shapes)
    assert is_costly(function, args, {}) is costly  # type: ignore[arg-type]


def test_a_sum_over_indices_counts_each_value_of_all_of_them() -> None:
    one, other = torch.zeros(1).expand(3000, 3000), torch.zeros(1).expand(8, 8, 128, 64)
    assert is_costly(torch.einsum, ("ij,jk->ik", one, one), {})
    assert not is_costly(torch.einsum, ("bhqd,bhkd->bhqk", other, other), {})


def test_a_costly_operation_has_its_shapes_and_dtypes_and_is_not_computed() -> None:
    given = {"a": torch.ones(1).expand(3000, 3000)}
    lowered = lower(
        "U, S, V = linalg.svd(a)\nLU, pivots = linalg.lu_factor(a)\nx = linalg.lu_solve(LU, pivots, a)\nx", given=given
    )
    for name, shape in {"U": (3000, 3000), "S": (3000,), "pivots": (3000,), "x": (3000, 3000)}.items():
        assert lowered.values[name].meta["example"].shape == shape
    assert lowered.values["S"].meta["example"].sum() == 0
    assert lowered.values["pivots"].meta["example"].dtype == torch.int32


def test_the_history_of_a_value_is_counted_once_for_each_operation() -> None:
    y = torch.ones(1, requires_grad=True)
    for _ in range(100):
        y = y * y
    assert has_longer_history(y, 100)
    assert not has_longer_history(y, 101)
    assert not has_longer_history(torch.ones(1), 0)


def test_a_derivative_of_too_many_operations_is_a_fault() -> None:
    text = "y = x.sum()\nfor i in range(40):\n  y = grad(y * y * y, x).sum()\ny"
    fault = fault_of(text, bounds=Bounds(nodes=500))
    assert (fault.message, fault.hint) == (
        "this derivative goes through more than 500 operations",
        "raise it with --max-nodes",
    )


def test_planning_that_takes_too_long_is_a_fault_at_the_operation() -> None:
    class Over(Clock):
        def is_over(self) -> bool:
            return True

    inference = Inference(Bounds(clock=Over(3)))
    with pytest.raises(Exception, match=r"`x \* 2`: planning takes longer than 3 seconds") as caught:
        lower_statements("y = x * 2\nz = x * 3", scope(tensors()), inference)
    assert caught.value.others == ()  # type: ignore[attr-defined]
