"""Indexes that are tensors without dimensions select what torch selects, and a trace follows them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from runner.language.graph.computation import extract
from runner.language.graph.elements import at
from runner.language.graph.scalar_split import split_scalars
from runner.language.text.faults import LanguageError
from tests.language.lowering import lower, same
from tests.tables import over

X = torch.arange(24.0, dtype=torch.float64).reshape(2, 3, 4)
LIST = [0, 1]
MASK = [[True, False, True], [False, True, False]]


@over(
    "index",
    [
        (1,),
        (-1,),
        (1, 2),
        (slice(None), 1),
        (..., 3),
        (0, ..., -2),
        (1, ..., 0, 2),
        (None, 1, None, 2),
        (slice(0, 2), slice(1, None), -1),
        (..., None, 2),
        (LIST, 1),
        (1, LIST, LIST),
        (slice(None), LIST, 1),
        (MASK, 3),
        (1, 2, 3),
    ],
)
def test_an_index_of_tensors_selects_what_numbers_select(index: tuple[Any, ...]) -> None:
    given = tuple(torch.tensor(part) if isinstance(part, list) else part for part in index)
    numbers = tuple(torch.tensor(part) if type(part) is int else part for part in given)
    x, y = X.clone().requires_grad_(), X.clone().requires_grad_()
    found, expected = at(x, numbers), y[given]
    assert same(found.detach(), expected.detach())
    (found**2).sum().backward()  # type: ignore[no-untyped-call]
    (expected**2).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert y.grad is not None
    assert torch.equal(x.grad, y.grad)


@over("index", [(3,), (-4,), (0, 3), (slice(None), -4)])
def test_an_index_out_of_range_is_an_error(index: tuple[Any, ...]) -> None:
    numbers = tuple(torch.tensor(part) if type(part) is int else part for part in index)
    with pytest.raises((IndexError, RuntimeError), match=r"index out of range|element is out of DATA bounds"):
        at(X[0, :, :3], numbers)


def test_too_many_indices_are_an_error() -> None:
    with pytest.raises(IndexError, match=r"^too many indices for tensor of dimension 1$"):
        at(X[0, 0], (0, torch.tensor(1)))


def test_a_trace_reads_every_index_anew() -> None:
    given = {"x": X, "k": torch.tensor(0)}
    text = "a = x[iteration - 1, ..., k]\na + x[k, 1, iteration] + x[0, [0, 1, 1], iteration]"
    split = split_scalars(extract(lower(text, given=given, roles={}, tables={}), ["value"]))

    def compute(x: Tensor, k: Tensor, *numbers: Tensor) -> Tensor:
        return split.function(None, x, k, *numbers)[0]  # type: ignore[no-any-return]

    def numbers(iteration: int) -> list[Tensor]:
        return [torch.tensor(float(number)) for number in split.numbers(None, iteration)[: split.read]]

    traced = make_fx(compute)(X, torch.tensor(0), *numbers(1))
    for iteration, k in ((1, 0), (2, 1)):
        by_hand = X[iteration - 1, ..., k] + X[k, 1, iteration] + X[0, [0, 1, 1], iteration]
        assert same(traced(X, torch.tensor(k), *numbers(iteration)), by_hand)


def test_a_list_that_holds_the_iteration_is_no_tuple() -> None:
    computation = extract(lower("x[[iteration - 1, 1]]", given={"x": X}, roles={}, tables={}), ["value"])
    with pytest.raises(LanguageError, match="`iteration` can only be an operand or an index here"):
        split_scalars(computation)


def test_a_mask_without_dimensions_is_no_index() -> None:
    given = {"x": X, "m": torch.tensor(True)}
    computation = extract(lower("x[m].sum()", given=given, roles={}, tables={}), ["value"])
    assert split_scalars(computation).function is computation.function
