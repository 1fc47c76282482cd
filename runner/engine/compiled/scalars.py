"""Numbers of a step computed once, rather than again for each element that they meet."""

from __future__ import annotations

import torch
from torch import Tensor, fx
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files


class ScalarsOnce(CustomGraphPass):
    """Puts numbers into memory before they meet tensors.

    inductor computes a tensor without dimensions wherever it is read: in a fused loop, as often as the loop turns. Of
    Adam that is two powers in double precision for a few elements, more than everything else that the loop does. A
    view by strides is what inductor needs its operand in memory for.
    """

    def __call__(self, graph: fx.Graph) -> None:
        for node in list(graph.nodes):
            readers = [user for user in node.users if _has_dimensions(user)]
            if readers and node.all_input_nodes and _is_computed_number(node):
                with graph.inserting_after(node):
                    kept = graph.call_function(torch.ops.aten.as_strided.default, (node, [], []))
                kept.meta["val"] = node.meta["val"]
                for reader in readers:
                    reader.replace_input_with(node, kept)

    def uuid(self) -> object:
        return get_hash_for_files((__file__,))


def _is_computed_number(node: fx.Node) -> bool:
    """Whether a node computes a number. One that is taken out of a tensor has a place in it, which must stay."""
    value, target = node.meta.get("val"), node.target
    computes = isinstance(target, torch._ops.OpOverload) and torch.Tag.pointwise in target.tags
    return computes and isinstance(value, Tensor) and value.dim() == 0 and value.is_floating_point()


def _has_dimensions(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.dim() > 0
