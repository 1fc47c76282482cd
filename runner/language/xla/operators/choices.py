"""Comparisons, logic and bits, and operations that choose between elements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy
import torch

from runner.language.xla.operators.facts import Array, Facts, Rule, cast, computing


def compared(function: Callable[[Array, Array], Array]) -> Rule:
    """Makes a rule of a comparison: both sides have torch's common dtype."""

    def rule(facts: Facts, x: Any, y: Any) -> Array:
        common = torch.result_type(*facts.arguments[:2])
        return function(cast(x, common), cast(y, common))

    return rule


def logical(function: Callable[..., Array]) -> Rule:
    """Makes a rule of an operation on truth values."""

    def rule(_facts: Facts, *values: Array) -> Array:
        return function(*(cast(value, torch.bool) for value in values))

    return rule


def bitwise(function: Callable[..., Array]) -> Rule:
    """Makes a rule of an operation on bits."""

    def rule(facts: Facts, *values: Any) -> Array:
        return function(*(cast(value, facts.dtype) for value in values))

    return rule


def _shift_left(x: Array, count: Array) -> Array:
    """A count outside the width of the dtype gives 0."""
    width = numpy.iinfo(x.dtype).bits
    outside = (count < 0) | (count >= width)
    return jnp.where(outside, 0, jnp.left_shift(x, jnp.where(outside, 0, count)))


def _shift_right(x: Array, count: Array) -> Array:
    """A count outside the width of the dtype leaves only the sign."""
    most = numpy.iinfo(x.dtype).bits - 1
    outside = (count < 0) | (count > most)
    sign = jnp.zeros_like(x) if numpy.iinfo(x.dtype).min == 0 else jnp.right_shift(x, most)
    return jnp.where(outside, sign, jnp.right_shift(x, jnp.where(outside, 0, count)))


def _where(facts: Facts, condition: Array, x: Array, y: Array) -> Array:
    return jnp.where(cast(condition, torch.bool), cast(x, facts.dtype), cast(y, facts.dtype))


def _clamp(facts: Facts, x: Array, least: Any, most: Any) -> Array:
    dtype = computing(facts.dtype)
    x = cast(x, dtype)
    if least is not None:
        x = jnp.maximum(x, cast(least, dtype))
    if most is not None:
        x = jnp.minimum(x, cast(most, dtype))
    return cast(jnp.broadcast_to(x, facts.shape), facts.dtype)


def _isnan(_facts: Facts, x: Array) -> Array:
    return x != x


def _test(function: Callable[[Array], Array]) -> Rule:
    def rule(_facts: Facts, x: Array) -> Array:
        return function(x)

    return rule


_COMPARISONS: Mapping[str, Callable[[Array, Array], Array]] = {
    "eq": jnp.equal,
    "ge": jnp.greater_equal,
    "gt": jnp.greater,
    "le": jnp.less_equal,
    "lt": jnp.less,
    "ne": jnp.not_equal,
}

_BITS: Mapping[str, Callable[..., Array]] = {
    "bitwise_and": jnp.bitwise_and,
    "bitwise_left_shift": _shift_left,
    "bitwise_or": jnp.bitwise_or,
    "bitwise_right_shift": _shift_right,
    "bitwise_xor": jnp.bitwise_xor,
}

RULES: Mapping[str, Rule] = {
    **{f"aten.{name}.{form}": compared(each) for name, each in _COMPARISONS.items() for form in ("Scalar", "Tensor")},
    **{f"aten.{name}.Tensor": bitwise(each) for name, each in _BITS.items()},
    **{f"aten.{name}.Scalar_Tensor": bitwise(each) for name, each in _BITS.items()},
    **{f"aten.{name}.Scalar": bitwise(each) for name, each in _BITS.items() if "shift" not in name},
    **{f"aten.{name}.Tensor_Scalar": bitwise(each) for name, each in _BITS.items() if "shift" in name},
    "aten.bitwise_not.default": bitwise(jnp.bitwise_not),
    "aten.clamp.Tensor": _clamp,
    "aten.clamp.default": _clamp,
    "aten.isinf.default": _test(jnp.isinf),
    "aten.isnan.default": _isnan,
    "aten.logical_and.default": logical(jnp.logical_and),
    "aten.logical_not.default": logical(jnp.logical_not),
    "aten.logical_or.default": logical(jnp.logical_or),
    "aten.logical_xor.default": logical(jnp.logical_xor),
    "aten.signbit.default": _test(jnp.signbit),
    "aten.where.self": _where,
}
