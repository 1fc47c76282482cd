"""Regions: many iterations of a step in one call of compiled code."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch._higher_order_ops.scan import scan
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files

from runner.engine.compiled.training import Step, Tensors

Region = Callable[[Tensors, Tensors, Tensors], tuple[Tensors, Tensors]]
"""Maps `(carry, each, fixed)` to the carry after the last iteration and the stacked outputs, `(iterations, *shape)`.

`each` is stacked in the same way. The size of its first dimension is the number of iterations.
"""


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


OPTIONS: Mapping[str, str | int | bool | Callable[..., object]] = {
    "post_grad_custom_post_pass": ScalarsOnce(),
    "cpp_wrapper": torch.__version__ >= "2.13",  # before, torch generates none for loops
    "compile_threads": 1,
    "emulate_precision_casts": True,
    "fallback_random": True,
    "guard_filter_fn": torch.compiler.skip_all_guards_unsafe,
    "joint_graph_constant_folding": False,
}
"""Options of inductor: no Python between kernels, no worker processes, torch's own random numbers, and no guards.
`compiled_region` explains why guards are not needed. Inductor keeps casts to narrower dtypes, and does not replace a
product with 0, which is NaN where the other factor is infinite."""


def compiled_region(step: Step, *, several: bool) -> Region:
    """Compiles a step, alone or in a loop over any number of iterations.

    The loop is part of the compiled code. So the code does not grow with the number of iterations, and another number
    needs no recompilation. Callers must always pass the same shapes and dtypes: no call checks them.
    """
    if several:

        def region(carry: Tensors, each: Tensors, fixed: Tensors) -> tuple[Tensors, Tensors]:
            def body(before: Tensors, given: Tensors) -> tuple[Tensors, Tensors]:
                return step(before, given, fixed)

            after, stacked = scan(body, carry, each)
            return list(after), list(stacked)

    else:

        def region(carry: Tensors, each: Tensors, fixed: Tensors) -> tuple[Tensors, Tensors]:
            after, outputs = step(carry, [value[0] for value in each], fixed)
            return after, [value.unsqueeze(0) for value in outputs]

    compiled: Region = torch.compile(_with_own_code(region), fullgraph=True, options=dict(OPTIONS))
    return compiled


def mark_length(each: Tensors) -> None:
    """Marks the first dimension of example tensors as dynamic."""
    for value in each:
        torch._dynamo.mark_dynamic(value, 0)


def _with_own_code(function: Region) -> Region:
    """Returns a copy of the function with its own code object: torch keys compiled code by code object."""
    made: Any = types.FunctionType(
        function.__code__.replace(),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    compiled: Region = made
    return compiled
