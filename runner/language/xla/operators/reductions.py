"""Reductions over dimensions: sums, means, extremes, norms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
import torch
from jax import lax

from runner.language.xla.operators.facts import Array, Facts, Rule, cast, computing, dimensions

Dims = int | Sequence[int] | None


def _shaped(facts: Facts, value: Array) -> Array:
    """Gives a reduced value the dtype of the result and its shape, which has or lacks the reduced dimensions."""
    return cast(value.reshape(facts.shape), facts.dtype)


SIDE_BY_SIDE = 16
"""The sums of a small tensor that are taken side by side, as torch's vector instructions do."""

ADDED_IN_TURN = 1 << 12
"""The number of elements below which XLA adds them one after another. Equal terms then round in one direction: the sum
of 1,920 was up to 365 units in the last place off, where torch's was 3, and is 6 side by side (JAX 0.10.2)."""


def _sum(facts: Facts, x: Array, dims: Dims = None, keepdim: bool = False) -> Array:
    return _shaped(facts, _total(cast(x, computing(facts.dtype)), dimensions(dims, x.ndim)))


def _mean(facts: Facts, x: Array, dims: Dims = None, keepdim: bool = False) -> Array:
    x, over = cast(x, computing(facts.dtype)), dimensions(dims, x.ndim)
    if not _is_small_whole(x, over):
        return _shaped(facts, jnp.mean(x, over))
    return _shaped(facts, _total(x, over) / x.size)


def _total(x: Array, over: tuple[int, ...]) -> Array:
    """Returns the sum over some dimensions."""
    if not _is_small_whole(x, over):
        return jnp.sum(x, over)
    rows = jnp.pad(x.reshape(-1), (0, -x.size % SIDE_BY_SIDE)).reshape(-1, SIDE_BY_SIDE)
    return jnp.sum(lax.optimization_barrier(jnp.sum(rows, 0)))  # type: ignore[no-untyped-call]  # or XLA joins them


def _is_small_whole(x: Array, over: tuple[int, ...]) -> bool:
    return len(over) == x.ndim and SIDE_BY_SIDE < x.size < ADDED_IN_TURN and jnp.issubdtype(x.dtype, jnp.inexact)


def _prod(facts: Facts, x: Array, dims: Dims = None, keepdim: bool = False) -> Array:
    return _shaped(facts, jnp.prod(cast(x, computing(facts.dtype)), dimensions(dims, x.ndim)))


def _extreme(reduce: Callable[..., Array]) -> Rule:
    def rule(facts: Facts, x: Array, dims: Dims = None, keepdim: bool = False) -> Array:
        return _shaped(facts, reduce(x, dimensions(dims, x.ndim)))

    return rule


def _extreme_with_index(first: Callable[..., Array]) -> Rule:
    """Makes the rule of `max` or `min` over a dimension, which gives the first index of the extreme."""

    def rule(facts: Facts, x: Array, dim: int, keepdim: bool) -> tuple[Array, Array]:
        if not x.ndim:
            return x, jnp.zeros((), jnp.int64)
        place = first(x, dim, keepdims=True)
        value = jnp.take_along_axis(x, place, dim)
        return value.reshape(facts.shape), place.reshape(facts.shape).astype(jnp.int64)

    return rule


def _place(first: Callable[..., Array]) -> Rule:
    """Makes the rule of `argmax` or `argmin`."""

    def rule(facts: Facts, x: Array, dim: int | None, keepdim: bool) -> Array:
        found = first(x, dim) if x.ndim else jnp.zeros((), jnp.int64)
        return _shaped(facts, found)

    return rule


def _any(facts: Facts, x: Array, dims: Dims = None, keepdim: bool = False) -> Array:
    return _shaped(facts, jnp.any(cast(x, torch.bool), dimensions(dims, x.ndim)))


def _moments(x: Array, dims: Dims, correction: float | None) -> tuple[Array, Array]:
    """Returns the variance and the mean, with the reduced dimensions."""
    over = dimensions(dims, x.ndim)
    mean = jnp.mean(x, over, keepdims=True)
    count = 1
    for dim in over:
        count *= x.shape[dim]
    distance = x - mean
    square = jnp.real(distance * jnp.conj(distance)) if jnp.iscomplexobj(x) else distance * distance
    freedom = max(count - (1 if correction is None else correction), 0)
    total = jnp.sum(square, over, keepdims=True)
    return total / jnp.asarray(freedom, total.dtype), mean


def _as_computed(x: Array) -> Array:
    return x.astype(jnp.float32) if x.dtype in (jnp.bfloat16, jnp.float16) else x


def _var(facts: Facts, x: Array, dims: Dims, correction: float | None, keepdim: bool) -> Array:
    return _shaped(facts, _moments(_as_computed(x), dims, correction)[0])


def _var_of_dims(facts: Facts, x: Array, dims: Dims, unbiased: bool, keepdim: bool) -> Array:
    return _var(facts, x, dims, float(unbiased), keepdim)


def _var_mean(facts: Facts, x: Array, dims: Dims, correction: float | None, keepdim: bool) -> tuple[Array, Array]:
    mean_like = facts.results[1]
    assert mean_like is not None
    variance, mean = _moments(_as_computed(x), dims, correction)
    return _shaped(facts, variance), cast(mean.reshape(facts.shape), mean_like.dtype)


def _vector_norm(facts: Facts, x: Array, order: float, dims: Dims, keepdim: bool) -> Array:
    over = dimensions(dims, x.ndim)
    size = cast(jnp.abs(_as_computed(x)), computing(facts.dtype))
    return _shaped(facts, norm(size, float(order), over))


def norm(size: Array, order: float, over: tuple[int, ...]) -> Array:
    """Returns the norm of absolute values, without the reduced dimensions."""
    if order == 0:
        return jnp.sum((size != 0).astype(size.dtype), over)
    if order == 1:
        return jnp.sum(size, over)
    if order == 2:
        return jnp.sqrt(jnp.sum(size * size, over))
    if order == float("inf"):
        return jnp.max(size, over, initial=0)
    if order == float("-inf"):
        return jnp.min(size, over, initial=jnp.inf)
    return jnp.sum(size**order, over) ** (1 / order)


def _cumulative(function: Callable[..., Array]) -> Rule:
    """Makes the rule of a running sum or product."""

    def rule(facts: Facts, x: Array, dim: int) -> Array:
        x = cast(x, computing(facts.dtype))
        return cast(function(x, dim) if x.ndim else x, facts.dtype)

    return rule


def _logcumsumexp(facts: Facts, x: Array, dim: int) -> Array:
    x = cast(x, computing(facts.dtype))
    if not x.ndim or not x.size:
        return cast(x, facts.dtype)
    return cast(lax.associative_scan(jnp.logaddexp, x, axis=dim % x.ndim), facts.dtype)


def _running(better: Callable[[Array, Array], Array]) -> Rule:
    """Makes the rule of `cummax` or `cummin`: a later element wins a tie, and NaN wins over all."""

    def rule(facts: Facts, x: Array, dim: int) -> tuple[Array, Array]:
        if not x.ndim or not x.size:
            return x, jnp.zeros(x.shape, jnp.int64)
        dim %= x.ndim
        places = lax.broadcasted_iota(jnp.int64, x.shape, dim)

        def combine(before: tuple[Array, Array], after: tuple[Array, Array]) -> tuple[Array, Array]:
            wins = (after[0] != after[0]) | ((before[0] == before[0]) & better(after[0], before[0]))
            return jnp.where(wins, after[0], before[0]), jnp.where(wins, after[1], before[1])

        value, place = lax.associative_scan(combine, (x, places), axis=dim)
        return value, place

    return rule


def _dist(facts: Facts, x: Array, y: Array, order: float) -> Array:
    dtype = computing(facts.dtype)
    size = jnp.abs(x - y).astype(cast(0, dtype).dtype)
    return _shaped(facts, norm(size, float(order), tuple(range(size.ndim))))


RULES: Mapping[str, Rule] = {
    "aten.amax.default": _extreme(jnp.max),
    "aten.amin.default": _extreme(jnp.min),
    "aten.any.default": _any,
    "aten.any.dim": _any,
    "aten.any.dims": _any,
    "aten.argmax.default": _place(jnp.argmax),
    "aten.argmin.default": _place(jnp.argmin),
    "aten.cummax.default": _running(jnp.greater_equal),
    "aten.cummin.default": _running(jnp.less_equal),
    "aten.cumprod.default": _cumulative(jnp.cumprod),
    "aten.cumsum.default": _cumulative(jnp.cumsum),
    "aten.dist.default": _dist,
    "aten.linalg_vector_norm.default": _vector_norm,
    "aten.logcumsumexp.default": _logcumsumexp,
    "aten.max.default": _extreme(jnp.max),
    "aten.max.dim": _extreme_with_index(jnp.argmax),
    "aten.mean.default": _mean,
    "aten.mean.dim": _mean,
    "aten.min.default": _extreme(jnp.min),
    "aten.min.dim": _extreme_with_index(jnp.argmin),
    "aten.prod.default": _prod,
    "aten.prod.dim_int": _prod,
    "aten.sum.default": _sum,
    "aten.sum.dim_IntList": _sum,
    "aten.var.correction": _var,
    "aten.var.dim": _var_of_dims,
    "aten.var_mean.correction": _var_mean,
}
