"""Traces functions of tensors as flat graphs of ATen operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, fx
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx


def flat_graph(
    function: Callable[..., Any], examples: Sequence[Tensor], decompositions: Mapping[Any, Any] | None = None
) -> fx.GraphModule:
    """Traces a function while torch computes it with examples.

    The shapes of all results are held in one mode. By default torch makes one for each result, and copies the stack of
    the process into it, which takes up to a fifth of the time of planning.
    """
    with tracing(TracingContext(FakeTensorMode())):
        return make_fx(function, decomposition_table=decompositions)(*examples)
