"""Functions of tensors are traced as torch traces them, with all shapes in one mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions
from torch._guards import detect_fake_mode
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.experimental.proxy_tensor import make_fx

from runner.language.graph.aten import aten_graph
from tests.tables import over


def _slope(x: Tensor, y: Tensor) -> Tensor:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (found,) = torch.autograd.grad((x @ y).tanh().sum(), x)
    return found


def _several(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    values, places = x.T.sort(dim=1)
    return values, places, torch.stack([x.mean(1), y.mean(0)[:3]]).to(torch.bfloat16), x[:, ::2].real


@over("function", [_slope, _several])
@over("decomposed", [False, True])
def test_a_graph_has_the_operations_and_shapes_of_torch(function: Callable[..., object], decomposed: bool) -> None:
    given = (torch.arange(15.0).reshape(3, 5).sin(), torch.arange(20.0).reshape(5, 4).cos())
    table = core_aten_decompositions() if decomposed else None
    found, expected = aten_graph(function, given, table), make_fx(function, decomposition_table=table)(*given)
    assert found.code == expected.code
    modes = set()
    for mine, theirs in zip(found.graph.nodes, expected.graph.nodes, strict=True):
        for one, other in zip(_leaves(mine.meta.get("val")), _leaves(theirs.meta.get("val")), strict=True):
            assert isinstance(one, FakeTensor)
            assert (one.shape, one.stride(), one.dtype, one.device) == (
                other.shape, other.stride(), other.dtype, other.device,
            )  # fmt: skip
            modes.add(id(one.fake_mode))
    assert len(modes) == 1
    for mine, theirs in zip(_leaves(found(*given)), _leaves(function(*given)), strict=True):
        assert torch.equal(mine, theirs)


def _leaves(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [*(value or ())]


def test_no_mode_is_left_after_a_trace() -> None:
    graph = aten_graph(lambda x: [x.exp().sum(0) + 1], [torch.ones(2, 3)])
    called = [(str(node.target), tuple(node.meta["val"].shape)) for node in graph.graph.nodes if node.op[0] == "c"]
    assert called == [("aten.exp.default", (2, 3)), ("aten.sum.dim_IntList", (3,)), ("aten.add.Tensor", (3,))]
    assert detect_fake_mode() is None
