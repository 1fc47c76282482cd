"""A function of tensors as a graph of ATen operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, fx
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx


def aten_graph(
    function: Callable[..., Sequence[Tensor]],
    examples: Sequence[Tensor],
    decompositions: Mapping[Any, Any] | None = None,
) -> fx.GraphModule:
    """Records the operations of a function while torch computes it with examples.

    The shape of each result is noted in `meta["val"]`, in one fake mode for all of them. torch would make a mode for
    each, which takes a third of the time: it looks through the stack each time.
    """
    with tracing(TracingContext(FakeTensorMode(allow_fallback_kernels=True))):
        graph: fx.GraphModule = make_fx(function, decomposition_table=decompositions)(*examples)
    return graph
