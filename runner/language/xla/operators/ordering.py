"""Sorting, ranks, medians and searches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import torch

from runner.language.xla.operators.facts import DTYPES, Array, Facts, Rule, cast, positive


def order(x: Array, dim: int, *, descending: bool = False) -> Array:
    """Returns the indices that sort a dimension, stably; NaN counts as the largest."""
    if not descending:
        return jnp.argsort(x, dim, stable=True).astype(jnp.int64)
    return (x.shape[dim] - 1 - jnp.flip(jnp.argsort(jnp.flip(x, dim), dim, stable=True), dim)).astype(jnp.int64)


def _sorted(x: Array, dim: int, descending: bool) -> tuple[Array, Array]:
    if not x.ndim:
        return x, jnp.zeros((), jnp.int64)
    places = order(x, dim, descending=descending)
    return jnp.take_along_axis(x, places, dim), places


def _sort(_facts: Facts, x: Array, dim: int, descending: bool) -> tuple[Array, Array]:
    return _sorted(x, dim, descending)


def _sort_stable(_facts: Facts, x: Array, _stable: Any, dim: int, descending: bool) -> tuple[Array, Array]:
    return _sorted(x, dim, descending)


def _topk(_facts: Facts, x: Array, count: int, dim: int, largest: bool, _sorted_result: bool) -> tuple[Array, Array]:
    values, places = _sorted(x, dim, largest)
    if not x.ndim:
        return values, places
    kept = (slice(None),) * positive(dim, x.ndim) + (slice(0, count),)
    return values[kept], places[kept]


def _at_rank(facts: Facts, x: Array, rank: Array, dim: int) -> tuple[Array, Array]:
    """Returns the elements at a rank of each slice, and their indices."""
    values, places = _sorted(x, dim, False)
    if not x.ndim:
        return values, places
    where = jnp.broadcast_to(rank, jnp.take(x, jnp.zeros(1, jnp.int64), dim).shape)
    found = (jnp.take_along_axis(each, where, dim).reshape(facts.shape) for each in (values, places))
    value, place = found
    return value, place


def _kthvalue(facts: Facts, x: Array, rank: int, dim: int, _keepdim: bool) -> tuple[Array, Array]:
    return _at_rank(facts, x, jnp.asarray(rank - 1), dim)


def _middle(x: Array, dim: int, ignoring: bool) -> Array:
    """Returns the rank of the median; of an even number the lower one. NaN has the last rank."""
    if not x.ndim:
        return jnp.asarray(0)
    missing = jnp.isnan(x).sum(dim, keepdims=True) if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.asarray(0)
    size = x.shape[dim]
    if ignoring:
        return jnp.maximum((size - missing - 1) // 2, 0)
    return jnp.where(missing > 0, size - missing, (size - 1) // 2)


def _median(ignoring: bool) -> Rule:
    def rule(facts: Facts, x: Array, dim: int, _keepdim: bool) -> tuple[Array, Array]:
        return _at_rank(facts, x, _middle(x, dim, ignoring), dim)

    return rule


def _median_of_all(ignoring: bool) -> Rule:
    def rule(facts: Facts, x: Array) -> Array:
        flat = x.reshape(-1)
        if not flat.size:
            return jnp.full((), jnp.nan, x.dtype)
        return _at_rank(facts, flat, _middle(flat, 0, ignoring), 0)[0].reshape(())

    return rule


def _mode(facts: Facts, x: Array, dim: int, _keepdim: bool) -> tuple[Array, Array]:
    """Returns the smallest of the most frequent values, and its last index."""
    if not x.ndim:
        return x, jnp.zeros((), jnp.int64)
    values, places = _sorted(x, dim, False)
    values, places = jnp.moveaxis(values, dim, -1), jnp.moveaxis(places, dim, -1)
    counts = (values[..., :, None] == values[..., None, :]).sum(-1)
    first = jnp.argmax(counts, -1)[..., None]
    last = first + jnp.take_along_axis(counts, first, -1) - 1
    value, place = (jnp.take_along_axis(each, last, -1).reshape(facts.shape) for each in (values, places))
    return value, place


def _side(right: bool, side: str | None) -> str:
    return "right" if right or side == "right" else "left"


def _bucketize(facts: Facts, x: Any, edges: Array, _int32: bool, right: bool) -> Array:
    common = torch.result_type(facts.arguments[0], facts.arguments[1])
    found = jnp.searchsorted(cast(edges, common), cast(x, common), "right" if right else "left")
    return found.astype(DTYPES[facts.dtype])


def _searchsorted(
    facts: Facts, edges: Array, x: Any, _int32: bool, right: bool, side: str | None, sorter: Array | None
) -> Array:
    common = torch.result_type(facts.arguments[0], facts.arguments[1])
    edges, x = cast(edges, common), cast(x, common)
    if sorter is not None:
        edges = jnp.take_along_axis(edges, sorter, -1)
    where = _side(right, side)
    if edges.ndim == 1:
        found = jnp.searchsorted(edges, x, where)
    else:
        rows: Callable[[Array, Array], Array] = jax.vmap(lambda row, values: jnp.searchsorted(row, values, where))
        found = rows(edges.reshape(-1, edges.shape[-1]), x.reshape(-1, x.shape[-1])).reshape(x.shape)
    return found.astype(DTYPES[facts.dtype])


def _histc(facts: Facts, x: Array, bins: int, least: Any, most: Any) -> Array:
    """Counts elements in bins of one width; those outside are left out. Equal bounds stand for those of the data."""
    flat = x.reshape(-1)
    low, high = cast(least, facts.dtype), cast(most, facts.dtype)
    if least == most and flat.size:
        low, high = flat.min(), flat.max()
    low, high = jnp.where(low == high, low - 1, low), jnp.where(low == high, high + 1, high)
    place = jnp.clip(((flat - low) / (high - low) * bins).astype(jnp.int64), 0, bins - 1)
    inside = (flat >= low) & (flat <= high)
    return jnp.zeros(bins, DTYPES[facts.dtype]).at[place].add(inside.astype(DTYPES[facts.dtype]))


def _nonzero_static(_facts: Facts, x: Array, size: int, fill: int) -> Array:
    found = jnp.nonzero(x, size=size, fill_value=fill) if x.ndim else ()
    return jnp.stack(found, -1).astype(jnp.int64) if found else jnp.zeros((size, 0), jnp.int64)


def _masked_scatter(facts: Facts, x: Array, mask: Array, source: Array) -> Array:
    shape = jnp.broadcast_shapes(x.shape, mask.shape)
    x, mask = jnp.broadcast_to(x, shape), jnp.broadcast_to(mask, shape)
    place = jnp.cumsum(mask.reshape(-1).astype(jnp.int64)) - 1
    facts.fails_if(place.max(initial=-1) >= source.size)
    if not source.size:
        return x
    taken = source.reshape(-1)[jnp.clip(place, 0, source.size - 1)].reshape(shape)
    return jnp.where(mask, cast(taken, facts.dtype), x)


def _masked_scatter_backward(facts: Facts, grad: Array, mask: Array, _sizes: Any) -> Array:
    """Returns the gradient of the source: the gradients under the mask, then zeros."""
    shape = jnp.broadcast_shapes(grad.shape, mask.shape)
    chosen = jnp.broadcast_to(mask, shape).reshape(-1)
    flat = jnp.broadcast_to(grad, shape).reshape(-1)
    size = facts.result.numel()
    place = jnp.where(chosen, jnp.cumsum(chosen.astype(jnp.int64)) - 1, size)
    return jnp.zeros(size, flat.dtype).at[place].set(flat, mode="drop").reshape(facts.shape)


RULES: Mapping[str, Rule] = {
    "aten.bucketize.Scalar": _bucketize,
    "aten.bucketize.Tensor": _bucketize,
    "aten.histc.default": _histc,
    "aten.kthvalue.default": _kthvalue,
    "aten.masked_scatter.default": _masked_scatter,
    "aten.masked_scatter_backward.default": _masked_scatter_backward,
    "aten.median.default": _median_of_all(False),
    "aten.median.dim": _median(False),
    "aten.mode.default": _mode,
    "aten.nanmedian.default": _median_of_all(True),
    "aten.nanmedian.dim": _median(True),
    "aten.nonzero_static.default": _nonzero_static,
    "aten.searchsorted.Scalar": _searchsorted,
    "aten.searchsorted.Tensor": _searchsorted,
    "aten.sort.default": _sort,
    "aten.sort.stable": _sort_stable,
    "aten.topk.default": _topk,
}
