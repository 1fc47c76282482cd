"""Rows of a table of weights, alone or in bags, and their gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from runner.language.xla.operators.facts import DTYPES, Array, Facts, Refusal, Rule, cast, computing
from runner.language.xla.operators.indexing import within

_SUM, _MEAN, _MAX = range(3)


def _embedding(facts: Facts, weight: Array, indices: Array, *_others: Any) -> Array:
    return jnp.take(weight, within(facts, indices, weight.shape[0]), 0, mode="clip")


def _embedding_backward(
    facts: Facts, grad: Array, indices: Array, rows: int, padding: int, by_frequency: bool
) -> Array:
    places = within(facts, indices, rows).reshape(-1)
    values = cast(grad.reshape(places.size, -1), computing(facts.dtype))
    if by_frequency:
        values = values / _frequency(places, rows, values)[:, None]
    values = jnp.where((places == padding)[:, None], 0, values)
    return cast(jnp.zeros((rows, values.shape[1]), values.dtype).at[places].add(values, mode="drop"), facts.dtype)


def _frequency(places: Array, rows: int, like: Array) -> Array:
    """Returns how often the index of each place occurs."""
    return jnp.zeros(rows, like.dtype).at[places].add(1)[places]


def _bags(offsets: Array, count: int, bags: int) -> Array:
    """Returns the bag of each index."""
    return jnp.searchsorted(offsets[:bags], jnp.arange(count), side="right") - 1


def _empty(facts: Facts, place: int) -> Array:
    result = facts.results[place]
    assert result is not None
    return jnp.zeros(tuple(result.shape), DTYPES[result.dtype])


def _embedding_bag(
    facts: Facts,
    weight: Array,
    indices: Array,
    offsets: Array,
    _by_frequency: bool,
    mode: int,
    _sparse: bool,
    factors: Array | None,
    _last: bool,
    padding: int,
) -> tuple[Array, ...]:
    places = within(facts, indices, weight.shape[0])
    bags, width = facts.shape
    bag = _bags(offsets, places.size, bags)
    kept = (places != padding)[:, None]
    values = cast(weight, computing(facts.dtype))[places]
    sizes = jnp.zeros(bags, jnp.int64).at[bag].add(kept[:, 0])
    _, _, size_like, index_like = facts.results
    assert size_like is not None
    assert index_like is not None
    most = _empty(facts, 3)
    if mode == _MAX:
        start = jnp.full((bags, width), -jnp.inf, values.dtype)
        found = start.at[bag].max(jnp.where(kept, values, -jnp.inf))
        first = jnp.full((bags, width), places.size).at[bag]
        at = first.min(jnp.where(kept & (values == found[bag]), jnp.arange(places.size)[:, None], places.size))
        most = jnp.append(places, -1)[at].astype(DTYPES[index_like.dtype]) if places.size else most - 1
        found = jnp.where(sizes[:, None] == 0, 0, found)
    else:
        values = values if factors is None else values * cast(factors, computing(facts.dtype))[:, None]
        found = jnp.zeros((bags, width), values.dtype).at[bag].add(jnp.where(kept, values, 0))
        if mode == _MEAN:
            found = found / jnp.maximum(sizes, 1)[:, None]
    size = sizes.astype(DTYPES[size_like.dtype]) if tuple(size_like.shape) == sizes.shape else _empty(facts, 2)
    return cast(found, facts.dtype), _empty(facts, 1), size, most


def _embedding_bag_backward(
    facts: Facts,
    grad: Array,
    indices: Array,
    offsets: Array,
    _bag: Array,
    _sizes: Array,
    most: Array,
    rows: int,
    by_frequency: bool,
    mode: int,
    _sparse: bool,
    factors: Array | None,
    padding: int,
) -> Array:
    bags, width = grad.shape
    grad = cast(grad, computing(facts.dtype))
    empty = jnp.zeros((rows, width), grad.dtype)
    if mode == _MAX:
        index = jnp.where(most < 0, rows, most)
        return cast(empty.at[index, jnp.arange(width)].add(grad, mode="drop"), facts.dtype)
    bag = _bags(offsets, indices.size, bags)
    kept = indices != padding
    if mode == _MEAN:
        sizes = jnp.zeros(bags, grad.dtype).at[bag].add(kept)
        grad = grad / jnp.maximum(sizes, 1)[:, None]
    values = grad[bag]
    if factors is not None:
        values = values * cast(factors, computing(facts.dtype))[:, None]
    if by_frequency:
        values = values / _frequency(indices, rows, grad)[:, None]
    return cast(empty.at[indices].add(jnp.where(kept[:, None], values, 0), mode="drop"), facts.dtype)


def _factors_backward(
    facts: Facts, grad: Array, weight: Array, indices: Array, offsets: Array, _bag: Array, _mode: int, padding: int
) -> Array:
    bag = _bags(offsets, indices.size, grad.shape[0])
    dtype = computing(facts.dtype)
    found = (cast(grad, dtype)[bag] * cast(weight, dtype)[indices]).sum(-1)
    return cast(jnp.where(indices == padding, 0, found), facts.dtype)


def _refuse_sparse(place: int) -> Refusal:
    def refusal(facts: Facts) -> str | None:
        return "XLA has no sparse tensors" if facts.arguments[place] else None

    return refusal


RULES: Mapping[str, Rule] = {
    "aten._embedding_bag.default": _embedding_bag,
    "aten._embedding_bag_backward.default": _embedding_bag_backward,
    "aten._embedding_bag_forward_only.default": _embedding_bag,
    "aten._embedding_bag_per_sample_weights_backward.default": _factors_backward,
    "aten.embedding.default": _embedding,
    "aten.embedding_dense_backward.default": _embedding_backward,
}

REFUSALS: Mapping[str, Refusal] = {
    "aten._embedding_bag_backward.default": _refuse_sparse(9),
    "aten.embedding.default": _refuse_sparse(4),
}
