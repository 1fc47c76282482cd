"""A function of tensors is recorded as the operations that torch performs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions
from torch._guards import detect_fake_mode

from runner.language.graph.aten import aten_graph


def _called(graph: torch.fx.GraphModule) -> list[tuple[str, tuple[int, ...], torch.dtype]]:
    values = [(str(node.target), node.meta["val"]) for node in graph.graph.nodes if node.op == "call_function"]
    return [(name, tuple(value.shape), value.dtype) for name, value in values]


def test_a_graph_has_the_operations_of_a_function_with_their_shapes_and_dtypes() -> None:
    def function(x: Tensor, index: Tensor) -> list[Tensor]:
        return [(x @ x.mT).to(torch.float64), x[index]]

    graph = aten_graph(function, [torch.ones(2, 3), torch.tensor([1])])
    assert _called(graph) == [
        ("aten.transpose.int", (3, 2), torch.float32),
        ("aten.mm.default", (2, 2), torch.float32),
        ("aten._to_copy.default", (2, 2), torch.float64),
        ("aten.index.Tensor", (1, 3), torch.float32),
    ]
    doubled = torch.arange(6.0).reshape(2, 3) * 2
    assert torch.equal(graph(doubled, torch.tensor([0]))[1], doubled[:1])


def test_operations_are_decomposed_by_a_table() -> None:
    graph = aten_graph(lambda x: [torch.addcmul(x, x, x)], [torch.ones(2)], core_aten_decompositions())
    assert [name for name, _, _ in _called(graph)] == ["aten.mul.Tensor", "aten.mul.Tensor", "aten.add.Tensor"]


def test_one_fake_mode_has_the_shapes_of_a_graph_and_none_is_left() -> None:
    graph = aten_graph(lambda x: [x.exp().sum(0) + 1], [torch.ones(2, 3)])
    modes = {id(node.meta["val"].fake_mode) for node in graph.graph.nodes if "val" in node.meta}
    assert len(modes) == 1
    assert detect_fake_mode() is None
