"""An evaluation and its gradients as one function over tensors, traced while torch computes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from runner.engine.steps.micro_batches import Share, scaled
from runner.language.graph.scalar_split import SplitComputation
from runner.language.graph.tracing import flat_graph


@dataclass(frozen=True, slots=True)
class Differentiated:
    """`function(*inputs, *numbers)` returns the results that are tensors, then the gradients."""

    function: Callable[..., list[Tensor]]
    results: int
    reached: tuple[str, ...]  # the parameters that get a gradient
    bytes: int  # of all intermediate results, an estimate of the cost of a step


def differentiated(
    split: SplitComputation, objective: int, parameters: Sequence[str], share: Share, examples: Sequence[Tensor]
) -> Differentiated:
    """Traces the backward pass of a share of an objective with respect to some parameters.

    The trace contains the operations that torch itself performs. So a parameter has a gradient here exactly if
    `.backward()` gives it one.

    Args:
        objective: its index among the results of `split.function`.
        examples: the inputs and numbers to trace with.
    """
    places = [place for place, name in enumerate(split.inputs) if name in parameters]
    reached: list[str] = []
    count = 0

    def compute(*given: Tensor) -> list[Tensor]:
        nonlocal count
        with torch.enable_grad():
            inputs = [value.detach() for value in given]
            for place in places:
                inputs[place].requires_grad_()
            results = split.function(None, *inputs)
            value = results[objective]
            one = scaled(torch.ones_like(value), share)
            found = torch.autograd.grad((value,), [inputs[place] for place in places], (one,), allow_unused=True)
        reached[:] = [split.inputs[place] for place, value in zip(places, found, strict=True) if value is not None]
        count = len(results)
        return [value.detach() for value in (*results, *found) if value is not None]

    with torch.random.fork_rng(devices=[]):
        module = flat_graph(compute, examples)
    size = sum(_bytes(node.meta.get("val")) for node in module.graph.nodes)
    return Differentiated(module.forward, count, tuple(reached), size)


def _bytes(value: Any) -> int:
    if isinstance(value, (tuple, list)):
        return sum(map(_bytes, value))
    return value.numel() * value.element_size() if isinstance(value, Tensor) else 0
