"""Numbers are put into memory before they meet tensors, and stay the same."""

from __future__ import annotations

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from runner.engine.compiled.regions import ScalarsOnce

AS_STRIDED = torch.ops.aten.as_strided.default


def computation(t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    rate = 0.1 / (1 - 0.9**t)
    return x * rate + x.sum(), rate + 1


def traced() -> fx.GraphModule:
    module: fx.GraphModule = make_fx(computation)(*inputs())
    ScalarsOnce()(module.graph)
    module.graph.lint()
    module.recompile()
    return module


def inputs() -> tuple[Tensor, Tensor]:
    return torch.tensor(3.0, dtype=torch.float64), torch.linspace(-1, 1, 7)


def test_numbers_that_meet_tensors_are_in_memory() -> None:
    kept = [node for node in traced().graph.nodes if node.target is AS_STRIDED]
    assert [node.args[0].name for node in kept] == ["mul"]
    for node in kept:
        assert all(user.meta["val"].dim() for user in node.users)


def test_numbers_among_themselves_are_left_as_they_are() -> None:
    nodes = {node.name: node for node in traced().graph.nodes}
    assert nodes["mul"] in nodes["add_1"].all_input_nodes


def test_nothing_is_computed_otherwise() -> None:
    for found, expected in zip(traced()(*inputs()), computation(*inputs()), strict=True):
        assert torch.equal(found, expected)


def test_what_is_taken_out_of_a_tensor_is_left_where_it_is() -> None:
    module: fx.GraphModule = make_fx(lambda x: (2 * x)[1] * x)(torch.ones(3))
    ScalarsOnce()(module.graph)
    assert AS_STRIDED not in [node.target for node in module.graph.nodes]


def test_what_was_compiled_by_another_version_is_not_taken_from_the_cache() -> None:
    assert ScalarsOnce().uuid() == ScalarsOnce().uuid() is not None
