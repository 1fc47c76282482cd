"""`evaluate`: values over a whole data source, without changing the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from runner.engine.binding import Binding
from runner.engine.data.pooling import Pooling, wide
from runner.language.graph.computation import Computation
from runner.language.inference.generators import manual_seed
from runner.plan.program.instructions import Evaluate, Result, Whole
from runner.plan.streams import stream_seed


def whole_pass(binding: Binding, argument: Evaluate, loops: Sequence[int]) -> Callable[[], list[Tensor]]:
    """A function that returns each result over all samples: pooled in float64, or computed from pooled values.

    Random numbers come from separate streams, the same at every call: `stream_seed(seed, "evaluate", source, batch)`.
    So training draws the same numbers with and without `evaluate`.
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
    column = next(name for name, _ in evaluation.batches)
    derived = _derived(binding, argument, loops)
    computed = [_computed(binding, whole, loops) for whole in argument.wholes]
    takes = [_taking(result) for result in argument.results]

    def whole() -> list[Tensor]:
        pools = [Pooling(part) for part in argument.parts]
        for number, batch in enumerate(batches.whole_pass()):
            current.update(batch)
            length = len(batch[column])
            if random:
                manual_seed(stream_seed(plan.seed, "evaluate", source, number), plan.device)
            results = variants[length]() if only is None else only()
            for pool, value in zip(pools, results, strict=True):
                pool.add(value, length, results)
        current.clear()
        wholes = [pool.whole() for pool in pools]
        further = derived(wholes)
        gathered = [compute(wholes) for compute in computed]
        found = [take(wholes, further, gathered) for take in takes]
        return [value.to(plan.device, result.dtype) for value, result in zip(found, argument.results, strict=True)]

    return whole


def _taking(result: Result) -> Callable[[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]], Tensor]:
    """A function that takes a result from the pooled outputs, from what is derived, or from what is gathered."""
    output, derived, whole = result.output, result.derived, result.whole
    if whole is not None:
        return lambda pooled, further, gathered: gathered[whole]
    if derived is not None:
        return lambda pooled, further, gathered: further[derived]
    assert output is not None
    return lambda pooled, further, gathered: pooled[output]


def _computed(binding: Binding, whole: Whole, loops: Sequence[int]) -> Callable[[Sequence[Tensor]], Tensor]:
    """A function that computes a value from those of all samples."""
    computation, gathered = whole.computation, dict(whole.gathered)
    found = [(name, None if name in gathered else binding.getter(name, loops)) for name in computation.inputs]
    mode = torch.enable_grad if computation.gradients else torch.no_grad

    def compute(pooled: Sequence[Tensor]) -> Tensor:
        inputs: list[Any] = []
        for name, getter in found:
            tensor, get = (pooled[gathered[name]], None) if getter is None else getter
            inputs.append(tensor if get is None else get())
        with mode():
            return wide(computation.function(None, *inputs)[0])

    return compute


def _derived(binding: Binding, argument: Evaluate, loops: Sequence[int]) -> Callable[[Sequence[Tensor]], list[Tensor]]:
    """A function that computes results from pooled outputs."""
    computation = argument.derived
    if computation is None:
        return lambda wholes: []
    outputs, device = argument.evaluation.computation.outputs, binding.plan.device
    mode = torch.enable_grad if computation.gradients else torch.no_grad

    def value(name: str, wholes: Sequence[Tensor]) -> Any:
        if name.isdecimal():
            return wholes[int(name)].to(device, outputs[int(name)].dtype)
        tensor, get = binding.getter(name, loops)
        return tensor if get is None else get()

    def compute(wholes: Sequence[Tensor]) -> list[Tensor]:
        inputs = [value(name, wholes) for name in computation.inputs]
        with mode():
            return [wide(result) for result in computation.function(None, *inputs)]

    return compute


def _reading(current: dict[str, Tensor], name: str) -> Callable[[], Tensor]:
    return lambda: current[name]
