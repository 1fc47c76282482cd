"""`evaluate`: means over a whole data source, which leave the run as it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from runner.engine.binding import Binding
from runner.language.computation import Computation
from runner.language.generators import manual_seed
from runner.plan.instructions import Evaluate
from runner.plan.streams import stream_seed


def whole_pass(binding: Binding, argument: Evaluate, loops: Sequence[int]) -> Callable[[], list[Tensor]]:
    """The mean of each result over all samples, batches weighted by their size, accumulated in float64.

    Random numbers come from streams of their own, the same at every call: `stream_seed(seed, "evaluate", source,
    batch)`, so that neither those of training nor its counters move.
    """
    source, evaluation, plan = argument.source, argument.evaluation, binding.plan
    batches = binding.state.batches[source]
    current: dict[str, Tensor] = {}

    def bound(computation: Computation) -> Callable[[], tuple[Any, ...]]:
        function = computation.function
        found = [
            (None, _reading(current, name)) if name in batches.plan else binding.getter(name, loops)
            for name in computation.inputs
        ]
        mode = torch.enable_grad if computation.gradients else torch.no_grad

        def call() -> tuple[Any, ...]:
            with mode():
                return function(None, *(tensor if get is None else get() for tensor, get in found))

        return call

    variants = {lengths[0]: bound(computation) for lengths, computation in evaluation.variants}
    only = None if variants else bound(evaluation.computation)
    random = any(computation.random for computation in evaluation.computations())
    outputs = [result.output for result in argument.results]
    column = next(name for name, _ in evaluation.batches)

    def whole() -> list[Tensor]:
        totals: list[Tensor] = []
        for number, batch in enumerate(batches.whole_pass()):
            current.update(batch)
            length = len(batch[column])
            if random:
                manual_seed(stream_seed(plan.seed, "evaluate", source, number), plan.device)
            results = variants[length]() if only is None else only()
            weighted = [_wide(results[output]) * length for output in outputs]
            totals = [total + value for total, value in zip(totals, weighted, strict=True)] if totals else weighted
        current.clear()
        samples = batches.plan.samples
        return [
            (total / samples).to(plan.device, result.dtype)
            for total, result in zip(totals, argument.results, strict=True)
        ]

    return whole


def _reading(current: dict[str, Tensor], name: str) -> Callable[[], Tensor]:
    return lambda: current[name]


def _wide(value: Any) -> Tensor:
    """A detached copy in float64 or complex128."""
    if not isinstance(value, Tensor):
        return torch.tensor(value, dtype=torch.float64)
    copied = value.detach()
    if copied.device.type == "mps":  # which has no float64
        copied = copied.cpu()
    return copied.to(torch.complex128 if value.is_complex() else torch.float64)
