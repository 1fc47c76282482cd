"""`evaluate`: values over a whole data source, without changing the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from runner.engine.binding import Binding
from runner.engine.data.batches import Batches
from runner.engine.data.pooling import NotPooled, Pool, pooling, wide
from runner.language.graph.computation import Computation
from runner.language.inference.generators import manual_seed
from runner.plan.program.instructions import Evaluate, Result, Whole
from runner.plan.streams import stream_seed

Wholes = Mapping[int, Tensor]
"""The pooled outputs of an evaluation by their index."""


def whole_pass(binding: Binding, argument: Evaluate, loops: Sequence[int]) -> Callable[[], list[Tensor]]:
    """A function that returns each result over all samples: pooled in float64, or computed from pooled values.

    Random numbers come from separate streams, the same at every call: `stream_seed(seed, "evaluate", source, batch)`.
    So training draws the same numbers with and without `evaluate`.
    """
    source, evaluation, plan = argument.source, argument.evaluation, binding.plan
    batches = binding.state.batches[source]
    variants = {
        lengths[0]: _bound(binding, computation, loops, batches) for lengths, computation in evaluation.variants
    }
    only = None if variants else _bound(binding, evaluation.computation, loops, batches)
    random = any(computation.random for computation in evaluation.computations())
    gradients = any(computation.gradients for computation in evaluation.computations())
    size = batches.plan.batch_size
    full, rest = divmod(batches.plan.samples, size)
    derived = _derived(binding, argument, loops)
    computed = [_computed(binding, whole, loops) for whole in argument.wholes]
    takes = [_taking(result) for result in argument.results]
    makes = _pools(argument, batches, plan.device)

    def whole() -> list[Tensor]:
        pools = [(place, make()) for place, make in makes]
        adds = [(place, pool.add) for place, pool in pools]
        calls = {length: start() for length, start in variants.items()}
        alone = None if only is None else only()
        with torch.set_grad_enabled(gradients):
            for number, batch in enumerate(batches.whole_pass()):
                length = size if number < full else rest
                if random:
                    manual_seed(stream_seed(plan.seed, "evaluate", source, number), plan.device)
                results = calls[length](batch) if alone is None else alone(batch)
                for place, add in adds:
                    add(results[place], length, results)
        wholes = {place: pool.whole() for place, pool in pools}
        further = derived(wholes)
        gathered = [compute(wholes) for compute in computed]
        found = [take(wholes, further, gathered) for take in takes]
        return [value.to(plan.device, result.dtype) for value, result in zip(found, argument.results, strict=True)]

    return whole


Call = Callable[[tuple[Tensor, ...]], tuple[Any, ...]]
"""Computes the outputs of an evaluation for a batch, which has a tensor for each column of its source."""


def _bound(binding: Binding, computation: Computation, loops: Sequence[int], batches: Batches) -> Callable[[], Call]:
    """A function that reads the inputs of a computation that no batch changes, and returns the rest as a function."""
    function = computation.function
    order = {column.name: position for position, column in enumerate(batches.plan.columns)}
    columns = tuple((place, order[name]) for place, name in enumerate(computation.inputs) if name in order)
    fixed = [(None, None) if name in order else binding.getter(name, loops) for name in computation.inputs]

    def start() -> Call:
        inputs: list[Any] = [tensor if get is None else get() for tensor, get in fixed]

        def call(batch: tuple[Tensor, ...]) -> tuple[Any, ...]:
            for place, position in columns:
                inputs[place] = batch[position]
            return function(None, *inputs)

        return call

    return start


def _pools(argument: Evaluate, batches: Batches, device: str) -> list[tuple[int, Callable[[], Pool]]]:
    """Makers of the pools of the outputs, with the index of each output."""
    computation = argument.evaluation.computation
    found = []
    for place, part in enumerate(argument.parts):
        per_sample = None
        if part.weights is not None and part.weights[1] is None:
            target = computation.results[part.weights[0]]
            name = target.meta["input"] if isinstance(target, fx.Node) and target.op == "placeholder" else ""
            if name in batches.plan and batches.lacks(name, part.weights[2]):
                per_sample = math.prod(batches.plan[name].shape)
        found.append((place, pooling(part, computation.outputs[place], device, per_sample)))
    return [(place, make) for place, make in found if make is not NotPooled]


def _taking(result: Result) -> Callable[[Wholes, Sequence[Tensor], Sequence[Tensor]], Tensor]:
    """A function that takes a result from the pooled outputs, from what is derived, or from what is gathered."""
    output, derived, whole = result.output, result.derived, result.whole
    if whole is not None:
        return lambda pooled, further, gathered: gathered[whole]
    if derived is not None:
        return lambda pooled, further, gathered: further[derived]
    assert output is not None
    return lambda pooled, further, gathered: pooled[output]


def _computed(binding: Binding, whole: Whole, loops: Sequence[int]) -> Callable[[Wholes], Tensor]:
    """A function that computes a value from those of all samples."""
    computation, gathered = whole.computation, dict(whole.gathered)
    found = [(name, None if name in gathered else binding.getter(name, loops)) for name in computation.inputs]
    mode = torch.enable_grad if computation.gradients else torch.no_grad

    def compute(pooled: Wholes) -> Tensor:
        inputs: list[Any] = []
        for name, getter in found:
            tensor, get = (pooled[gathered[name]], None) if getter is None else getter
            inputs.append(tensor if get is None else get())
        with mode():
            return wide(computation.function(None, *inputs)[0])

    return compute


def _derived(binding: Binding, argument: Evaluate, loops: Sequence[int]) -> Callable[[Wholes], list[Tensor]]:
    """A function that computes results from pooled outputs."""
    computation = argument.derived
    if computation is None:
        return lambda wholes: []
    outputs, device = argument.evaluation.computation.outputs, binding.plan.device
    mode = torch.enable_grad if computation.gradients else torch.no_grad

    def value(name: str, wholes: Wholes) -> Any:
        if name.isdecimal():
            return wholes[int(name)].to(device, outputs[int(name)].dtype)
        tensor, get = binding.getter(name, loops)
        return tensor if get is None else get()

    def compute(wholes: Wholes) -> list[Tensor]:
        inputs = [value(name, wholes) for name in computation.inputs]
        with mode():
            return [wide(result) for result in computation.function(None, *inputs)]

    return compute
