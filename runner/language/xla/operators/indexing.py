"""Reads and writes at indices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import torch
from jax import lax

from runner.language.xla.operators.facts import Array, Facts, Refusal, Rule, cast, computing, positive

Indices = Sequence[Array | None]


def _within(facts: Facts, index: Array, size: int, *, negative: bool = False) -> Array:
    """Adds the check that an index is in range, and returns it counted from the front."""
    index = index.astype(jnp.int64)
    facts.fails_if((index >= size) | (index < (-size if negative else 0)))
    return jnp.where(index < 0, index + size, index) if negative else index


def _along(facts: Facts, x: Array, dim: int, index: Array) -> tuple[Array, ...]:
    """Returns the index of every element that `gather(x, dim, index)` reads."""
    places = [lax.broadcasted_iota(jnp.int64, index.shape, each) for each in range(index.ndim)]
    places[dim] = _within(facts, index, x.shape[dim])
    return tuple(places)


def _gather(facts: Facts, x: Array, dim: int, index: Array, _sparse: bool) -> Array:
    if not x.ndim:
        return jnp.broadcast_to(x, facts.shape)
    if not index.ndim:
        return _gather(facts, x, dim, index.reshape(1), False).reshape(facts.shape)
    return x.at[_along(facts, x, positive(dim, x.ndim), index)].get(mode="clip")


def _scatter(facts: Facts, x: Array, dim: int, index: Array, source: Any, how: str | None = None) -> Array:
    if not x.ndim or not index.ndim:
        wide = (
            value.reshape(1) if isinstance(value, type(x)) and not value.ndim else value for value in (x, index, source)
        )
        x, index, source = wide
        return _scatter(facts, x, dim, index, source, how).reshape(facts.shape)
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


def _index_select(facts: Facts, x: Array, dim: int, index: Array) -> Array:
    if not x.ndim:
        return jnp.broadcast_to(x, facts.shape)
    places = _within(facts, jnp.atleast_1d(index), x.shape[dim])
    return jnp.take(x, places, positive(dim, x.ndim), mode="clip").reshape(facts.shape)


def _full_index(facts: Facts, x: Array, indices: Indices) -> tuple[Any, ...]:
    return tuple(
        slice(None) if index is None else _within(facts, index, x.shape[dim], negative=True)
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


def _embedding(facts: Facts, weight: Array, indices: Array, *_others: Any) -> Array:
    return jnp.take(weight, _within(facts, indices, weight.shape[0]), 0, mode="clip")


def _embedding_backward(
    facts: Facts, grad: Array, indices: Array, rows: int, padding: int, by_frequency: bool
) -> Array:
    places = _within(facts, indices, rows).reshape(-1)
    values = cast(grad.reshape(places.size, -1), computing(facts.dtype))
    if by_frequency:
        counts = jnp.zeros(rows, values.dtype).at[places].add(1)
        values = values / counts[places][:, None]
    values = jnp.where((places == padding)[:, None], 0, values)
    return cast(jnp.zeros((rows, values.shape[1]), values.dtype).at[places].add(values, mode="drop"), facts.dtype)


RULES: Mapping[str, Rule] = {
    "aten.embedding.default": _embedding,
    "aten.embedding_dense_backward.default": _embedding_backward,
    "aten.gather.default": _gather,
    "aten.index.Tensor": _index,
    "aten.index_put.default": _index_put,
    "aten.index_select.default": _index_select,
    "aten.scatter.reduce": _scatter,
    "aten.scatter.src": _scatter,
    "aten.scatter.value": _scatter,
    "aten.scatter.value_reduce": _scatter,
    "aten.scatter_add.default": _scatter_add,
}

REFUSALS: Mapping[str, Refusal] = {
    "aten.index.Tensor": _refuse_masks,
    "aten.index_put.default": _refuse_masked_values,
}
