"""Computes the numbers of a step once, instead of again for each element that uses them."""

from __future__ import annotations

import torch
from torch import Tensor, fx
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files


class ScalarsOnce(CustomGraphPass):
    """Materializes numbers before operations with tensors read them.

    inductor recomputes a 0-d tensor wherever it is read: in a fused loop, once per loop iteration. For Adam these are
    two double-precision powers for a few elements, more than all other work of the loop. The pass inserts an
    `as_strided`, because inductor materializes the operand of a strided view.
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
    """Whether a node computes a number. A number that is read out of a tensor has a storage offset, which must stay."""
    value, target = node.meta.get("val"), node.target
    computes = isinstance(target, torch._ops.OpOverload) and torch.Tag.pointwise in target.tags
    return computes and isinstance(value, Tensor) and value.dim() == 0 and value.is_floating_point()


def _has_dimensions(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.dim() > 0
