"""Distances between rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy

from runner.language.xla.operators.facts import Array, Facts, Rule
from runner.language.xla.operators.reductions import norm


def _safe(x: Array) -> Array:
    return jnp.where(x == 0, 1, x)


def _slope(difference: Array, distance: Array, order: float) -> Array:
    """Returns the derivative of a norm with respect to the difference; 0 where the difference or distance is 0."""
    size, sign = jnp.abs(difference), jnp.sign(difference)
    if order == 0:
        return jnp.zeros_like(difference)
    if order == 1:
        return sign
    if order == math.inf:
        return sign * (size == distance)
    if order == 2:
        return jnp.where(distance == 0, 0, difference / _safe(distance))
    found = sign * _safe(size) ** (order - 1) / _safe(distance) ** (order - 1)
    return jnp.where((distance == 0) | (size == 0), 0, found)


def _cdist(facts: Facts, x: Array, y: Array, order: float, _mode: Any) -> Array:
    return norm(jnp.abs(x[..., :, None, :] - y[..., None, :, :]), order, (-1,)).reshape(facts.shape)


def _cdist_backward(facts: Facts, grad: Array, x: Array, y: Array, order: float, distance: Array) -> Array:
    difference = x[..., :, None, :] - y[..., None, :, :]
    found = (grad[..., None] * _slope(difference, distance[..., None], order)).sum(-2)
    return jnp.broadcast_to(found, facts.shape)


def _pairs(rows: int) -> Any:
    return numpy.triu_indices(rows, 1)


def _pdist(facts: Facts, x: Array, order: float) -> Array:
    first, second = _pairs(x.shape[0])
    return norm(jnp.abs(x[first] - x[second]), order, (-1,))


def _pdist_backward(facts: Facts, grad: Array, x: Array, order: float, distance: Array) -> Array:
    first, second = _pairs(x.shape[0])
    found = grad[:, None] * _slope(x[first] - x[second], distance[:, None], order)
    return jnp.zeros_like(x).at[first].add(found).at[second].add(-found)


RULES: Mapping[str, Rule] = {
    "aten._cdist_backward.default": _cdist_backward,
    "aten._cdist_forward.default": _cdist,
    "aten._pdist_backward.default": _pdist_backward,
    "aten._pdist_forward.default": _pdist,
}
