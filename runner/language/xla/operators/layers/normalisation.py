"""Normalisation over batches, layers and groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from runner.language.xla.operators.facts import Array, Facts, Refusal, Rule, cast, computing


def _normalised(x: Array, over: tuple[int, ...], eps: float) -> tuple[Array, Array, Array]:
    """Returns the normalised values, the mean and one over the standard deviation, with the reduced dimensions."""
    mean = jnp.mean(x, over, keepdims=True)
    distance = x - mean
    inverse = 1 / jnp.sqrt(jnp.mean(distance * distance, over, keepdims=True) + eps)
    return distance * inverse, mean, inverse


def _scaled(x: Array, weight: Array | None, bias: Array | None, shape: Sequence[int]) -> Array:
    if weight is not None:
        x = x * weight.astype(x.dtype).reshape(shape)
    return x if bias is None else x + bias.astype(x.dtype).reshape(shape)


def _results(facts: Facts, *found: Array) -> tuple[Array, ...]:
    """Gives the results the shapes and dtypes that torch gives them."""
    pairs = zip(found, facts.results, strict=True)
    return tuple(cast(each.reshape(tuple(like.shape)), like.dtype) for each, like in pairs if like is not None)


def _layer_norm(
    facts: Facts, x: Array, shape: Sequence[int], weight: Array | None, bias: Array | None, eps: float
) -> tuple[Array, ...]:
    x = cast(x, computing(facts.dtype))
    found, mean, inverse = _normalised(x, tuple(range(x.ndim - len(shape), x.ndim)), eps)
    return _results(facts, _scaled(found, weight, bias, shape), mean, inverse)


def _group_norm(
    facts: Facts,
    x: Array,
    weight: Array | None,
    bias: Array | None,
    rows: int,
    channels: int,
    _space: int,
    groups: int,
    eps: float,
) -> tuple[Array, ...]:
    x = cast(x, computing(facts.dtype))
    found, mean, inverse = _normalised(x.reshape(rows, groups, -1), (2,), eps)
    per_channel = (1, channels) + (1,) * (x.ndim - 2)
    return _results(facts, _scaled(found.reshape(x.shape), weight, bias, per_channel), mean, inverse)


def _batch_norm(
    facts: Facts,
    x: Array,
    weight: Array | None,
    bias: Array | None,
    mean: Array | None,
    variance: Array | None,
    training: bool,
    _momentum: float,
    eps: float,
) -> tuple[Array, ...]:
    x = cast(x, computing(facts.dtype))
    shape = (1, -1) + (1,) * (x.ndim - 2)
    if training:
        found, centre, inverse = _normalised(x, (0, *range(2, x.ndim)), eps)
        return _results(facts, _scaled(found, weight, bias, shape), centre, inverse)
    assert mean is not None
    assert variance is not None
    inverse = lax.rsqrt(cast(variance, computing(facts.dtype)) + eps)
    found = (x - cast(mean, computing(facts.dtype)).reshape(shape)) * inverse.reshape(shape)
    nothing = jnp.zeros(0, x.dtype)
    return _results(facts, _scaled(found, weight, bias, shape), nothing, nothing)


def _batch_norm_without_statistics(
    facts: Facts, x: Array, weight: Array | None, bias: Array | None, training: bool, momentum: float, eps: float
) -> tuple[Array, ...]:
    return _batch_norm(facts, x, weight, bias, None, None, True, momentum, eps)


def _batch_norm_of_statistics(
    facts: Facts, x: Array, weight: Any, bias: Any, mean: Array, variance: Array, momentum: float, eps: float
) -> tuple[Array, ...]:
    return _batch_norm(facts, x, weight, bias, mean, variance, False, momentum, eps)


def _refuse_running_statistics(facts: Facts) -> str | None:
    mean, training = facts.arguments[3], facts.arguments[5]
    return "it writes into its running statistics" if training and mean is not None else None


RULES: Mapping[str, Rule] = {
    "aten._native_batch_norm_legit.no_stats": _batch_norm_without_statistics,
    "aten._native_batch_norm_legit_no_training.default": _batch_norm_of_statistics,
    "aten.native_batch_norm.default": _batch_norm,
    "aten.native_group_norm.default": _group_norm,
    "aten.native_layer_norm.default": _layer_norm,
}

REFUSALS: Mapping[str, Refusal] = {"aten.native_batch_norm.default": _refuse_running_statistics}
