"""Counts that torch would be busy with for ever are refused before anything is called."""

from __future__ import annotations

import pytest
import torch

from tests.language.lowering import fault_of, same, tensors, value_of
from tests.tables import over


@over(
    ("text", "message"),
    [
        ("svd_lowrank(x, niter=10 ** 9)", "`niter` of `svd_lowrank` is 1,000,000,000, and at most 1,000"),
        ("pca_lowrank(x, 2, True, 10 ** 9)", "`niter` of `pca_lowrank` is 1,000,000,000, and at most 1,000"),
        (
            "special.laguerre_polynomial_l(x, 10 ** 9)",
            "`n` of `laguerre_polynomial_l` is 1,000,000,000, and at most 10,000",
        ),
        ("matrix_power(x @ w, -2 ** 33)", "`n` of `matrix_power` is -8,589,934,592, and at most 2,147,483,648"),
        ("(x @ w).matrix_power(2 ** 33)", "`n` of `matrix_power` is 8,589,934,592, and at most 2,147,483,648"),
        ("linalg.multi_dot([x @ w] * 5000)", "`tensors` of `multi_dot` is 5,000, and at most 100"),
        ("combinations(x[0, :0], 2 ** 31)", "`r` of `combinations` is 2,147,483,648, and at most 64"),
        ("max_pool1d(x, 2 ** 62)", "`kernel_size` of `max_pool1d` is larger than 2^24"),
        ("F.avg_pool1d(x, kernel_size=(2 ** 62,))", "`kernel_size` of `avg_pool1d` is larger than 2^24"),
        ("zeros(10 ** 6).split(1)", "`split` would give 1,000,000 tensors, and at most 10,000"),
        ("split(zeros(10 ** 5), split_size_or_sections=2)", "`split` would give 50,000 tensors, and at most 10,000"),
        ("chunk(zeros(10 ** 6), 10 ** 5)", "`chunk` would give 100,000 tensors, and at most 10,000"),
        ("zeros(3, 10 ** 6).unbind(dim=1)", "`unbind` would give 1,000,000 tensors, and at most 10,000"),
        ("tensor_split(x, 10 ** 9)", "`tensor_split` would give 1,000,000,000 tensors, and at most 10,000"),
        ("tensor_split(x, tensor(10 ** 9))", "`tensor_split` would give 1,000,000,000 tensors, and at most 10,000"),
        ("max_pool1d(x, huge[0])", "`kernel_size` of `max_pool1d` is larger than 2^24"),
        ("max_pool1d(x, [iteration * 2 ** 40])", "`kernel_size` of `max_pool1d` is larger than 2^24"),
        ("x.hsplit(10 ** 8)", "`hsplit` would give 100,000,000 tensors, and at most 10,000"),
    ],
)
def test_an_endless_count_is_refused(text: str, message: str) -> None:
    given = {**tensors(), "huge": torch.tensor([2**40])}
    fault = fault_of(text, given=given, tables={"huge": (2**40,)})
    assert (fault.message, fault.hint) == (message, "use fewer")


@pytest.mark.parametrize(
    ("text", "argument"),
    [
        ("max_pool1d(x, [tensor(2 ** 62)])", "`kernel_size` of `max_pool1d`"),
        ("F.avg_pool1d(x, 1, padding=[tensor(2 ** 62)])", "`padding` of `avg_pool1d`"),
        ("matrix_power(x @ w, tensor(2 ** 62))", "`n` of `matrix_power`"),
        ("svd_lowrank(x, niter=tensor(10 ** 9))", "`niter` of `svd_lowrank`"),
    ],
)
def test_a_count_in_a_tensor_is_refused_where_it_is_bounded(text: str, argument: str) -> None:
    assert fault_of(text).message == f"{argument} is a tensor, and a number is needed, which is bounded"


def test_what_is_finite_is_computed() -> None:
    x = tensors()["x"]
    assert same(value_of("x.split(1)[1]"), x.split(1)[1])
    assert same(value_of("chunk(x, 10 ** 9, dim=1)[2]"), x.chunk(10**9, dim=1)[2])
    assert same(value_of("x.unbind(1)[0]"), x.unbind(1)[0])
    assert same(value_of("tensor_split(x, [1])[0]"), x.tensor_split([1])[0])
    assert same(value_of("matrix_power(x @ w, 3)"), (x @ tensors()["w"]).matrix_power(3))


def test_a_tensor_has_at_most_64_dimensions() -> None:
    fault = fault_of(f"zeros({'1, ' * 65})")
    assert fault.message.endswith("the result has 65 dimensions")
    assert fault.hint == "use at most 64"
