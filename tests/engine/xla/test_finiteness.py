"""The look at bits finds what `torch.isfinite` finds; the longest chain decides whether XLA fuses a step."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, fx

from runner.engine.xla.finiteness import are_finite

pytest.importorskip("jax")

from runner.engine.xla.regions import _longest_chain

REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@pytest.mark.parametrize("dtype", REAL)
def test_every_kind_of_number_is_told_as_torch_tells_it(dtype: torch.dtype) -> None:
    about = torch.finfo(dtype)
    values = [0.0, -0.0, 1.0, -1.0, about.max, about.min, about.tiny, about.smallest_normal / 2]
    values += [float("inf"), -float("inf"), float("nan"), -float("nan")]
    for value in values:
        tensor = torch.tensor([[1.0, value], [-2.0, 0.0]], dtype=dtype)
        assert bool(are_finite([tensor])) == bool(torch.isfinite(tensor).all()), value
        assert bool(are_finite([tensor.T])) == bool(torch.isfinite(tensor).all()), value
        assert bool(are_finite([tensor[0, 1]])) == bool(torch.isfinite(tensor[0, 1])), value


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_both_parts_of_a_complex_number_count(dtype: torch.dtype) -> None:
    parts = (1.0, float("inf"), float("nan"))
    for real, imaginary in itertools.product(parts, parts):
        tensor = torch.complex(torch.tensor([1.0, real]), torch.tensor([0.0, imaginary])).to(dtype)
        assert bool(are_finite([tensor])) == (real == imaginary == 1.0)


def test_one_of_several_tensors_is_enough() -> None:
    fine, wrong = torch.ones(3), torch.tensor(float("nan"), dtype=torch.float64)
    assert bool(are_finite([fine, fine]))
    assert not bool(are_finite([fine, wrong]))
    assert not bool(are_finite([wrong, fine]))


def test_the_longest_chain_is_that_of_operations_that_need_one_another() -> None:
    def function(x: Tensor) -> Tensor:
        for _ in range(5):
            x = x.sin()
        return x + sum(x.cos() for _ in range(20))

    graph = fx.symbolic_trace(function)
    assert len(graph.graph.nodes) == 1 + 5 + 41 + 1
    assert _longest_chain(graph) == 1 + 5 + 1 + 20 + 1 + 1
