"""Activations, softmax, and backward functions of activations and losses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from runner.language.xla.operators.elementwise import elementwise
from runner.language.xla.operators.facts import Array, Facts, Rule, cast, computing


def _gelu(facts: Facts, x: Array, approximate: str) -> Array:
    value = cast(x, computing(facts.dtype))
    if approximate == "tanh":
        inner = math.sqrt(2 / math.pi) * (value + 0.044715 * value * value * value)
        return cast(0.5 * value * (1 + jnp.tanh(inner)), facts.dtype)
    return cast(0.5 * value * (1 + lax.erf(value * math.sqrt(0.5))), facts.dtype)


def _elu(x: Array, alpha: Array, scale: Array, input_scale: Array) -> Array:
    return jnp.where(x > 0, x * scale, jnp.expm1(x * input_scale) * alpha * scale)


def _leaky_relu(x: Array, slope: Array) -> Array:
    return jnp.where(x > 0, x, x * slope)


def _hardtanh(x: Array, least: Array, most: Array) -> Array:
    return jnp.minimum(jnp.maximum(x, least), most)


def _softmax(facts: Facts, x: Array, dim: int, _half_to_float: bool) -> Array:
    value = cast(x, computing(facts.dtype))
    if not value.size:
        return cast(value, facts.dtype)
    return cast(jax.nn.softmax(value, dim) if x.ndim else jnp.ones_like(value), facts.dtype)


def _log_softmax(facts: Facts, x: Array, dim: int, _half_to_float: bool) -> Array:
    value = cast(x, computing(facts.dtype))
    if not value.size:
        return cast(value, facts.dtype)
    return cast(jax.nn.log_softmax(value, dim) if x.ndim else jnp.zeros_like(value), facts.dtype)


def _shrunk(grad: Array, x: Array, size: Array) -> Array:
    return jnp.where((x >= -size) & (x <= size), 0, grad)


def _rrelu_backward(
    facts: Facts, grad: Array, x: Array, noise: Array, lower: Any, upper: Any, training: bool, _is_result: bool
) -> Array:
    if training and upper - lower > 1e-6:
        return grad * noise
    return jnp.where(x > 0, grad, grad * ((lower + upper) / 2))


RULES: Mapping[str, Rule] = {
    "aten._log_softmax.default": _log_softmax,
    "aten._softmax.default": _softmax,
    "aten.elu.default": elementwise(_elu),
    "aten.gelu.default": _gelu,
    "aten.hardshrink_backward.default": elementwise(_shrunk),
    "aten.hardtanh.default": elementwise(_hardtanh),
    "aten.leaky_relu.default": elementwise(_leaky_relu),
    "aten.rrelu_with_noise_backward.default": _rrelu_backward,
    "aten.softshrink_backward.default": elementwise(_shrunk),
}
