"""Reads and writes at indices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy
import torch
from jax import lax

from runner.language.xla.operators.facts import Array, Facts, Refusal, Rule, cast, computing, positive

Indices = Sequence[Array | None]


def within(facts: Facts, index: Array, size: int, *, negative: bool = False) -> Array:
    """Adds the check that an index is in range, and returns it counted from the front."""
    index = index.astype(jnp.int64)
    facts.fails_if((index >= size) | (index < (-size if negative else 0)))
    return jnp.where(index < 0, index + size, index) if negative else index


def _along(facts: Facts, x: Array, dim: int, index: Array) -> tuple[Array, ...]:
    """Returns the index of every element that `gather(x, dim, index)` reads."""
    places = [lax.broadcasted_iota(jnp.int64, index.shape, each) for each in range(index.ndim)]
    places[dim] = within(facts, index, x.shape[dim])
    return tuple(places)


def _gather(facts: Facts, x: Array, dim: int, index: Array, _sparse: bool) -> Array:
    if not x.ndim:
        return jnp.broadcast_to(x, facts.shape)
    if not index.ndim:
        return _gather(facts, x, dim, index.reshape(1), False).reshape(facts.shape)
    return x.at[_along(facts, x, positive(dim, x.ndim), index)].get(mode="clip")


def _scatter(facts: Facts, x: Array, dim: int, index: Array, source: Any, how: str | None = None) -> Array:
    if not x.ndim or not index.ndim:
        source = jnp.atleast_1d(source) if isinstance(source, Array) else source
        return _scatter(facts, jnp.atleast_1d(x), dim, jnp.atleast_1d(index), source, how).reshape(facts.shape)
    places = _along(facts, x, positive(dim, x.ndim), index)
    value = cast(source, facts.dtype)
    if value.ndim:
        value = value[tuple(slice(0, length) for length in index.shape)]
    return _put(x, places, value, how)


def _put(x: Array, places: tuple[Any, ...], value: Array, how: str | None) -> Array:
    """Writes values at places, which may repeat."""
    at = x.at[places]
    if how in (None, "set"):
        return at.set(value, mode="drop")
    if how in ("sum", "add", "mean"):
        return (
            x | jnp.zeros_like(x).at[places].max(value, mode="drop") if x.dtype == bool else at.add(value, mode="drop")
        )
    if how in ("prod", "multiply"):
        return at.multiply(value, mode="drop")
    return at.max(value, mode="drop") if how == "amax" else at.min(value, mode="drop")


def _scatter_add(facts: Facts, x: Array, dim: int, index: Array, source: Array) -> Array:
    return _scatter(facts, x, dim, index, source, "sum")


_NEUTRAL: Mapping[str, float] = {"sum": 0, "mean": 0, "prod": 1, "amax": -jnp.inf, "amin": jnp.inf}
"""What a target starts with if its own value does not count."""


def _neutral(dtype: Any, how: str) -> Array:
    if jnp.issubdtype(dtype, jnp.floating) or how in ("sum", "mean", "prod"):
        return jnp.asarray(_NEUTRAL[how], dtype)
    if jnp.issubdtype(dtype, jnp.bool_):
        return jnp.asarray(how == "amin")
    limits = numpy.iinfo(dtype)
    return jnp.asarray(limits.min if how == "amax" else limits.max, dtype)


def _reduced(x: Array, places: tuple[Any, ...], value: Array, how: str, include_self: bool) -> Array:
    """Reduces the values of each place, with the value that is there if `include_self`."""
    start = x if include_self else x.at[places].set(_neutral(x.dtype, how), mode="drop")
    found = _put(start, places, value, how)
    if how != "mean":
        return found
    counts = jnp.full(x.shape, int(include_self), jnp.int64).at[places].add(1, mode="drop")
    counts = jnp.maximum(counts, 1).astype(x.dtype)
    return found / counts if jnp.issubdtype(x.dtype, jnp.inexact) else found // counts


def _scatter_reduce(
    facts: Facts, x: Array, dim: int, index: Array, source: Array, how: str, include_self: bool
) -> Array:
    x, index, source = (jnp.atleast_1d(each) for each in (x, index, source))
    dtype = computing(facts.dtype)
    places = _along(facts, x, positive(dim, x.ndim), index)
    value = cast(source, dtype)[tuple(slice(0, length) for length in index.shape)]
    return cast(_reduced(cast(x, dtype), places, value, how, include_self).reshape(facts.shape), facts.dtype)


def _index_reduce(facts: Facts, x: Array, dim: int, index: Array, source: Array, how: str, include_self: bool) -> Array:
    x, index, source = (jnp.atleast_1d(each) for each in (x, index, source))
    dim = positive(dim, x.ndim)
    places = (slice(None),) * dim + (within(facts, index, x.shape[dim]),)
    dtype = computing(facts.dtype)
    found = _reduced(cast(x, dtype), places, cast(source, dtype), _LONG.get(how, how), include_self)
    return cast(found.reshape(facts.shape), facts.dtype)


_LONG: Mapping[str, str] = {"multiply": "prod"}


def _put_flat(facts: Facts, x: Array, index: Array, source: Array, accumulate: bool) -> Array:
    places = within(facts, index, x.size, negative=True).reshape(-1)
    values = source.reshape(-1)
    return _put(x.reshape(-1), (places,), values, "sum" if accumulate else None).reshape(x.shape)


def _index_select(facts: Facts, x: Array, dim: int, index: Array) -> Array:
    if not x.ndim:
        return jnp.broadcast_to(x, facts.shape)
    places = within(facts, jnp.atleast_1d(index), x.shape[dim])
    return jnp.take(x, places, positive(dim, x.ndim), mode="clip").reshape(facts.shape)


def _full_index(facts: Facts, x: Array, indices: Indices) -> tuple[Any, ...]:
    return tuple(
        slice(None) if index is None else within(facts, index, x.shape[dim], negative=True)
        for dim, index in enumerate(indices)
    )


def _index(facts: Facts, x: Array, indices: Indices) -> Array:
    return x.at[_full_index(facts, x, indices)].get(mode="clip").reshape(facts.shape)


def _index_put(facts: Facts, x: Array, indices: Indices, values: Array, accumulate: bool) -> Array:
    first = indices[0]
    value = cast(values, facts.dtype)
    if first is not None and first.dtype == bool:
        mask, value = first.reshape(first.shape + (1,) * (x.ndim - first.ndim)), value.reshape(())
        return jnp.where(mask, x + value if accumulate else value, x)
    return _put(x, _full_index(facts, x, indices), value, "sum" if accumulate else None)


def _masks(facts: Facts) -> list[Any]:
    return [index for index in facts.arguments[1] if index is not None and index.dtype in (torch.bool, torch.uint8)]


def _refuse_masks(facts: Facts) -> str | None:
    return "an index that is a mask gives a shape that depends on data" if _masks(facts) else None


def _refuse_masked_values(facts: Facts) -> str | None:
    if not _masks(facts):
        return None
    alone = len([index for index in facts.arguments[1] if index is not None]) == 1
    if alone and facts.arguments[1][0] is not None and facts.arguments[2].numel() == 1:
        return None
    return "a mask takes only one value to write"


RULES: Mapping[str, Rule] = {
    "aten.gather.default": _gather,
    "aten.index.Tensor": _index,
    "aten.index_put.default": _index_put,
    "aten.index_select.default": _index_select,
    "aten.index_reduce.default": _index_reduce,
    "aten.put.default": _put_flat,
    "aten.scatter.reduce": _scatter,
    "aten.scatter.src": _scatter,
    "aten.scatter.value": _scatter,
    "aten.scatter.value_reduce": _scatter,
    "aten.scatter_add.default": _scatter_add,
    "aten.scatter_reduce.two": _scatter_reduce,
}

REFUSALS: Mapping[str, Refusal] = {
    "aten.index.Tensor": _refuse_masks,
    "aten.index_put.default": _refuse_masked_values,
}
