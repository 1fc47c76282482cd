"""Treats the micro-batches of a step as one batch: the share of each, and their combined results."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from runner.engine.data.batches import Batches
from runner.engine.data.pooling import class_weight
from runner.language.graph.computation import Computation
from runner.language.inference.runtime import quotient
from runner.plan.program.instructions import Classes, Part, Train

Share = tuple[float, float]
"""A fraction `(numerator, denominator)`: `(1, k)` for each of k micro-batches of equal length."""


def shares_of(weights: Sequence[float]) -> list[Share]:
    """The shares of micro-batches with these weights; integers are divided by their greatest common divisor."""
    if len(set(weights)) == 1 and weights[0]:
        return [(1, len(weights))] * len(weights)
    total = math.fsum(weights)
    if all(float(weight).is_integer() for weight in weights) and total:
        common = math.gcd(*map(int, weights))
        return [(int(weight) // common, int(total) // common) for weight in weights]
    return [(weight, total) for weight in weights]


Read = Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class Shares:
    """The share of each micro-batch in its step."""

    objective: Sequence[Share]  # scales its objective before its backward
    samples: Sequence[Share]


def shares_by_length(argument: Train, lengths: Sequence[int]) -> Shares:
    """The shares of micro-batches with these lengths. An objective that is a sum is not scaled."""
    assert argument.accumulation is not None
    samples = shares_of(lengths)
    return Shares([(1, 1)] * len(lengths) if argument.accumulation.adds else samples, samples)


def scaled(value: Tensor, share: Share) -> Tensor:
    """A value times a share, in the same dtype; for the share `(1, k)` it is `value / k` bit for bit."""
    numerator, denominator = share
    part = value if numerator == 1 else value * numerator
    return part if denominator == 1 else part / denominator


def together(parts: Sequence[Part], micro: Sequence[Sequence[Any]], shares: Shares) -> tuple[Any, ...]:
    """Combines the results of all micro-batches into those of one batch; `parts` says how, for each result."""
    return tuple(
        _together(part, [results[place] for results in micro], shares)
        if part.ratio is None
        else _ratio(part.ratio, micro)
        for place, part in enumerate(parts)
    )


def _ratio(parts: tuple[int, int], micro: Sequence[Sequence[Any]]) -> Tensor:
    """One sum over all micro-batches, divided by another."""
    first, second = (functools.reduce(torch.add, [results[part].detach() for results in micro]) for part in parts)
    return quotient(first, second)


def without_last(parts: Sequence[Part], results: Sequence[Any]) -> tuple[Any, ...]:
    """The results of an earlier micro-batch, with None for those that are taken from the last one."""
    return tuple(None if part.pool == "last" else value for part, value in zip(parts, results, strict=True))


def _together(part: Part, values: Sequence[Any], shares: Shares) -> Any:
    if part.pool == "last" or not isinstance(values[-1], Tensor):
        return values[-1]
    tensors = [value.detach() for value in values]
    if part.pool == "rows":
        return torch.cat(tensors, part.dim)
    if part.pool in ("max", "min"):
        return functools.reduce(torch.maximum if part.pool == "max" else torch.minimum, tensors)
    if part.pool == "sum":
        return functools.reduce(torch.add, tensors)
    own = shares.objective if part.pool == "weighted" else shares.samples
    numerators = [tensor if share[0] == 1 else tensor * share[0] for tensor, share in zip(tensors, own, strict=True)]
    total, denominator = functools.reduce(torch.add, numerators), own[0][1]
    return total if denominator == 1 else total / denominator


def weighing(argument: Train, batches: Mapping[str, Batches], read: Read) -> Callable[[], Shares]:
    """A function that returns the shares of the next micro-batches; the first of these is the current batch.

    Args:
        read: returns the current value of a parameter, a constant or a running scalar.
    """
    accumulation, evaluation = argument.accumulation, argument.evaluation
    assert accumulation is not None
    counted = _counting(argument, batches)
    again = [name for name in evaluation.sources if name in argument.draws_again]
    first = batches[again[0]] if evaluation.variants and again else None
    equal = {argument.accumulate: shares_by_length(argument, [1] * argument.accumulate)}

    def by_length(count: int) -> Shares:
        if first is None:
            return equal.get(count) or shares_by_length(argument, [1] * count)
        return shares_by_length(argument, [first.length, *first.lengths(count - 1)])

    if accumulation.classes is None or not again:
        return lambda: by_length(counted())
    weigh = _by_classes(argument, accumulation.classes, batches, read)

    def shares() -> Shares:
        count = counted()
        weights = weigh(count)
        if accumulation.ratio is None:
            return Shares(shares_of(weights), by_length(count).samples)
        return Shares([(1, math.fsum(weights))] * count, by_length(count).samples)

    return shares


def _counting(argument: Train, batches: Mapping[str, Batches]) -> Callable[[], int]:
    """A function that returns the number of the next micro-batches: fewer at the end of a pass that ends short."""
    most, ends = argument.accumulate, [batches[name] for name in argument.ends_with]
    if not ends:
        return lambda: most
    return lambda: min(most, *(1 + each.left for each in ends))


def _by_classes(
    argument: Train, classes: Classes, batches: Mapping[str, Batches], read: Read
) -> Callable[[int], list[float]]:
    """A function that returns the weight of each of the next micro-batches."""
    evaluation = argument.evaluation
    sources, columns, variants = evaluation.sources, dict(evaluation.batches), dict(classes.variants)

    def weight(cursors: Mapping[str, Batches]) -> float:
        lengths = tuple(cursors[name].length for name in sources)
        computation: Computation = variants.get(lengths, classes.computation)
        inputs = [cursors[columns[name]].batch[name] if name in columns else read(name) for name in computation.inputs]
        with torch.no_grad():
            return class_weight(classes.part, computation.function(None, *inputs))

    def weigh(count: int) -> list[float]:
        cursors = {name: batches[name].ahead() for name in sources}
        for cursor in cursors.values():
            if not cursor.batch:
                cursor.next()
        weights = [weight(cursors)]
        for _ in range(count - 1):
            for name in argument.draws_again:
                cursors[name].next()
            weights.append(weight(cursors))
        return weights

    return weigh
