"""Reductions of a column over its samples, computed in blocks: float64 for floating dtypes, int64 for integers.

The result is a function of the values and their order alone: blocks have a fixed number of rows, whatever the file's
layout or the memory. Means and variances of blocks are combined as in Chan, Golub and LeVeque, "Updating formulae and a
pairwise algorithm for computing sample variances", 1979.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch import Tensor

BLOCK_ELEMENTS = 1 << 18
"""Elements of a block: 2 MiB of float64."""

Array = numpy.ndarray[Any, numpy.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Reduction:
    """A reduction over the samples of a column, and over the dimensions `inner` of each sample."""

    operation: str
    axes: tuple[int, ...]  # sorted; the first is 0
    indexed: bool  # whether the result also has the index of each extreme
    correction: float = 1  # of `std` and `var`


def reduction_of(operation: str, dimensions: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Reduction | None:
    """The reduction that a call describes; None if it does not reduce over samples, or in a way that needs them all.

    Args:
        operation: the name of a torch function or method.
        dimensions: of the column, with that of samples.
        args, kwargs: its arguments besides the column, which torch has accepted.
    """
    named = {_ALIASES.get(key, key): value for key, value in kwargs.items()}
    positional = list(args)
    if positional and isinstance(positional[0], bool):  # `x.std(False)`
        named["unbiased"] = positional.pop(0)
    elif positional:
        named["dim"] = positional.pop(0)
    if positional and operation in _SPREADS:  # `x.std(0, False)`
        named["unbiased"] = positional.pop(0)
    if positional:
        named["keepdim"] = positional.pop(0)
    dtype = named.pop("dtype", None)
    unknown = named.keys() - {"dim", "keepdim", "unbiased", "correction"}
    if positional or unknown or (dtype is not None and not dtype.is_floating_point):
        return None
    dim = named.get("dim")
    chosen = range(dimensions) if dim is None or dim == () else (dim,) if isinstance(dim, int) else dim
    axes = tuple(sorted(axis % dimensions for axis in chosen))
    if axes[:1] != (0,):
        return None
    correction = named.get("correction", 1 if named.get("unbiased", True) else 0)
    indexed = operation in ("max", "min") and dim is not None
    return Reduction(operation, axes, indexed, 1 if correction is None else correction)


_ALIASES = {"axis": "dim", "keepdims": "keepdim"}
_SPREADS = ("std", "var")


def block_rows(shape: tuple[int, ...]) -> int:
    """The number of rows in each block of a column, by the shape of one sample."""
    return max(1, BLOCK_ELEMENTS // max(1, math.prod(shape)))


def reduce(reduction: Reduction, blocks: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """Reduce a column.

    Args:
        blocks: the column in order, in blocks of `block_rows`; real, at least one row.
    Returns:
        float64, or int64 for integers and booleans: the result without the reduced dimensions; with `indexed` also
        the indices of the first extremes.
    """
    arrays = map(_array, blocks)
    with numpy.errstate(all="ignore"):  # as torch, which gives NaN and infinities without a warning
        found = _KINDS[reduction.operation](reduction, arrays)
    return tuple(torch.from_numpy(numpy.ascontiguousarray(value).reshape(value.shape)) for value in found)


def _array(block: Tensor) -> Array:
    exact = torch.float64 if block.is_floating_point() else torch.int64
    made: Array = block.to(exact).numpy()
    return made


def _sum(reduction: Reduction, blocks: Iterator[Array]) -> tuple[Array, ...]:
    total: Any = 0
    for block in blocks:
        total = total + block.sum(reduction.axes)
    return (numpy.asarray(total),)


def _nansum(reduction: Reduction, blocks: Iterator[Array]) -> tuple[Array, ...]:
    return _sum(reduction, (numpy.where(numpy.isnan(block), 0, block) for block in blocks))


def _nanmean(reduction: Reduction, blocks: Iterator[Array]) -> tuple[Array, ...]:
    total: Any = 0.0
    count: Any = 0
    for block in blocks:
        missing = numpy.isnan(block)
        total = total + numpy.where(missing, 0, block).sum(reduction.axes)
        count = count + (~missing).sum(reduction.axes)
    return (numpy.asarray(total) / numpy.asarray(count),)


def _mean(reduction: Reduction, blocks: Iterator[Array]) -> tuple[Array, ...]:
    total: Any = 0.0
    count = 0
    for block in blocks:
        total = total + block.sum(reduction.axes)
        count += _size(block, reduction.axes)
    return (numpy.asarray(total / count),)


def _var(reduction: Reduction, blocks: Iterator[Array]) -> tuple[Array, ...]:
    count: int = 0
    mean: Any = 0.0
    squares: Any = 0.0  # the sum of squared distances from the mean
    for block in blocks:
        size = _size(block, reduction.axes)
        own = block.mean(reduction.axes, keepdims=True)
        spread = numpy.square(block - own).sum(reduction.axes)
        own = own.squeeze(reduction.axes)
        shift, together = own - mean, count + size
        mean = mean + shift * (size / together)
        squares = squares + spread + numpy.square(shift) * (count * size / together)
        count = together
    return (numpy.asarray(squares) / numpy.float64(max(0, count - reduction.correction)),)


def _std(reduction: Reduction, blocks: Iterator[Array]) -> tuple[Array, ...]:
    return (numpy.sqrt(_var(reduction, blocks)[0]),)


def _extreme(largest: bool) -> Callable[[Reduction, Iterator[Array]], tuple[Array, ...]]:
    def find(reduction: Reduction, blocks: Iterator[Array]) -> tuple[Array, ...]:
        if reduction.indexed:
            return _first_extremes(blocks, largest)
        best: Array | None = None
        combine = numpy.maximum if largest else numpy.minimum
        for block in blocks:
            own = block.max(reduction.axes) if largest else block.min(reduction.axes)
            best = own if best is None else combine(best, own)
        return (numpy.asarray(best),)

    return find


def _first_extremes(blocks: Iterator[Array], largest: bool) -> tuple[Array, ...]:
    """The extreme over samples and the index of its first sample; a NaN is more extreme than any number."""
    best: Array | None = None
    index: Array | None = None
    start = 0
    for block in blocks:
        at = block.argmax(0) if largest else block.argmin(0)
        own = numpy.take_along_axis(block, at[None], 0)[0]
        if best is None or index is None:
            best, index = own, at
        else:
            better = (own > best if largest else own < best) | ((own != own) & (best == best))
            best, index = numpy.where(better, own, best), numpy.where(better, at + start, index)
        start += len(block)
    assert best is not None
    assert index is not None
    return best, index


def _size(block: Array, axes: tuple[int, ...]) -> int:
    return math.prod(block.shape[axis] for axis in axes)


_KINDS: Mapping[str, Callable[[Reduction, Iterator[Array]], tuple[Array, ...]]] = {
    "amax": _extreme(True),
    "amin": _extreme(False),
    "max": _extreme(True),
    "mean": _mean,
    "min": _extreme(False),
    "nanmean": _nanmean,
    "nansum": _nansum,
    "std": _std,
    "sum": _sum,
    "var": _var,
}
