"""Arithmetic and functions of each element: torch's promotion, its signs of remainders, its NaN."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy
import torch
from jax import lax

from runner.language.xla.operators.facts import Array, Facts, Rule, cast, computing
from runner.language.xla.operators.rewriting import as_written


def elementwise(function: Callable[..., Array]) -> Rule:
    """Makes a rule of a function of arrays: they have the dtype of the result, or float32 where that is half."""

    def rule(facts: Facts, *arguments: Any) -> Array:
        dtype = computing(facts.dtype)
        return cast(function(*(_operand(value, dtype) for value in arguments)), facts.dtype)

    return rule


def _operand(value: Any, dtype: torch.dtype) -> Any:
    """Casts an operand; complex numbers keep their imaginary part even if the result is real."""
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.complexfloating) and not dtype.is_complex:
        return value
    return value if value is None or isinstance(value, str) else cast(value, dtype)


def _plus(sign: Callable[[Array, Array], Array]) -> Rule:
    """Makes the rule of a sum or difference, whose second operand has a factor."""

    def rule(facts: Facts, x: Any, y: Any, alpha: Any) -> Array:
        dtype = computing(facts.dtype)
        second = cast(y, dtype) if alpha == 1 else cast(alpha, dtype) * cast(y, dtype)
        return cast(sign(cast(x, dtype), second), facts.dtype)

    return rule


def _is_integer(x: Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.integer)


def _divide(facts: Facts, x: Any, y: Any, mode: str | None) -> Array:
    dtype = computing(facts.dtype)
    x, y = cast(x, dtype), cast(y, dtype)
    if mode is None:
        return cast(_quotient(x, y), facts.dtype)
    if _is_integer(x):
        facts.fails_if(y == 0)
        y = jnp.where(y == 0, 1, y)
    quotient = _trunc_divide(x, y) if mode == "trunc" else _floor_divide(x, y)
    return cast(quotient, facts.dtype)


def _quotient(x: Array, y: Array) -> Array:
    """Returns `x / y`. XLA would multiply by the inverse of a divisor that is one number, which may be 0."""
    shape = jnp.broadcast_shapes(x.shape, y.shape)
    divisor = y if y.shape == shape else as_written(jnp.broadcast_to(y, shape))
    return as_written(jnp.true_divide(x, divisor))


def _trunc_divide(x: Array, y: Array) -> Array:
    return lax.div(*jnp.broadcast_arrays(x, y)) if _is_integer(x) else jnp.trunc(_quotient(x, y))


def _floor_divide(x: Array, y: Array) -> Array:
    """Source: `div_floor_floating` of torch, which is Python's floor division."""
    if _is_integer(x):
        return jnp.floor_divide(x, y)
    remainder = jnp.fmod(x, y)
    quotient = _quotient(x - remainder, y)
    quotient = jnp.where((remainder != 0) & ((y < 0) != (remainder < 0)), quotient - 1, quotient)
    floor = jnp.floor(quotient)
    floor = jnp.where(quotient - floor > 0.5, floor + 1, floor)
    floor = jnp.where(quotient == 0, jnp.copysign(jnp.zeros_like(x), _quotient(x, y)), floor)
    return jnp.where(y == 0, _quotient(x, y), floor)


def _remainder(facts: Facts, x: Any, y: Any) -> Array:
    dtype = computing(facts.dtype)
    x, y = cast(x, dtype), cast(y, dtype)
    if _is_integer(x):
        facts.fails_if(y == 0)
        return jnp.remainder(x, jnp.where(y == 0, 1, y))
    left = jnp.fmod(x, y)
    return cast(jnp.where((left != 0) & ((y < 0) != (left < 0)), left + y, left), facts.dtype)


def _fmod(facts: Facts, x: Any, y: Any) -> Array:
    dtype = computing(facts.dtype)
    x, y = cast(x, dtype), cast(y, dtype)
    if _is_integer(x):
        facts.fails_if(y == 0)
        y = jnp.where(y == 0, 1, y)
    return cast(jnp.fmod(x, y), facts.dtype)


_POWERS: Mapping[float, Callable[[Array], Array]] = {
    0.5: jnp.sqrt,
    -0.5: lambda x: 1 / jnp.sqrt(x),
    1: lambda x: x,
    2: lambda x: x * x,
    3: lambda x: x * x * x,
    -1: lambda x: 1 / x,
    -2: lambda x: 1 / (x * x),
}
"""The powers that torch computes without `pow`."""


def _power(facts: Facts, x: Any, y: Any) -> Array:
    dtype = computing(facts.dtype)
    if not isinstance(y, jax.Array) and y in _POWERS and (dtype.is_floating_point or dtype.is_complex):
        return cast(_POWERS[y](cast(x, dtype)), facts.dtype)
    x, y = cast(x, dtype), cast(y, dtype)
    if _is_integer(x):
        return _integer_power(x, y)
    return cast(as_written(jnp.power(x, y)), facts.dtype)


def _integer_power(x: Array, y: Array) -> Array:
    """An integer to a negative power is 0, except for 1 and -1."""
    x, y = jnp.broadcast_arrays(x, y)
    negative = jnp.where(x == 1, 1, jnp.where(x == -1, 1 - 2 * (y & 1), 0)).astype(x.dtype)

    def square(_place: Any, values: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        found, factor, rest = values
        return jnp.where(rest & 1, found * factor, found), factor * factor, rest >> 1

    found = lax.fori_loop(0, 8 * x.dtype.itemsize, square, (jnp.ones_like(x), x, y))[0]
    return jnp.where(y < 0, negative, found)


def _sign(x: Array) -> Array:
    return x if x.dtype == bool else (x > 0).astype(x.dtype) - (x < 0).astype(x.dtype)


def _sgn(x: Array) -> Array:
    if not jnp.iscomplexobj(x):
        return _sign(x)
    size = jnp.abs(x)
    return jnp.where(size == 0, 0, x / jnp.where(size == 0, 1, size))


def _angle(x: Array) -> Array:
    return jnp.angle(x) if jnp.iscomplexobj(x) else jnp.where(jnp.isnan(x), x, jnp.where(x < 0, math.pi, 0.0))


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + jnp.exp(-x))


def _round_to(x: Array, decimals: Any) -> Array:
    places = int(decimals)
    if places == 0:
        return jnp.round(x)
    factor = jnp.asarray(10.0 ** abs(places), x.dtype)
    return _quotient(jnp.round(x * factor), factor) if places > 0 else jnp.round(_quotient(x, factor)) * factor


def _rounded(facts: Facts, x: Array, decimals: int) -> Array:
    return cast(_round_to(cast(x, computing(facts.dtype)), decimals), facts.dtype)


def _frexp(facts: Facts, x: Array) -> tuple[Array, Array]:
    mantissa, exponent = jnp.frexp(cast(x, computing(facts.dtype)))
    special = ~jnp.isfinite(mantissa)
    return cast(mantissa, facts.dtype), jnp.where(special, 0, exponent).astype(jnp.int32)


def _for_floats(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Makes a function that returns integers as they are."""
    return lambda x: function(x) if jnp.issubdtype(x.dtype, jnp.inexact) else x


def _to_copy(facts: Facts, x: Array) -> Array:
    return cast(x, facts.dtype)


def _nextafter(facts: Facts, x: Array, y: Array) -> Array:
    x, y = jnp.broadcast_arrays(cast(x, facts.dtype), cast(y, facts.dtype))
    return jnp.nextafter(x, y)


def _complex(_facts: Facts, real: Array, imaginary: Array) -> Array:
    return lax.complex(*jnp.broadcast_arrays(real, imaginary))


def _polar(_facts: Facts, size: Array, angle: Array) -> Array:
    return lax.complex(size * jnp.cos(angle), size * jnp.sin(angle))


def _gcd(x: Array, y: Array) -> Array:
    """Euclid's algorithm without signs: `jnp.gcd` does not end for the least integer of a dtype."""
    x, y = jnp.broadcast_arrays(x, y)
    unsigned = numpy.dtype(f"uint{8 * x.dtype.itemsize}")

    def step(pair: tuple[Array, Array]) -> tuple[Array, Array]:
        a, b = pair
        return jnp.where(b == 0, a, b), jnp.where(b == 0, 0, lax.rem(a, jnp.where(b == 0, 1, b)))

    start = (jnp.abs(x).astype(unsigned), jnp.abs(y).astype(unsigned))
    return lax.while_loop(lambda pair: jnp.any(pair[1] != 0), step, start)[0].astype(x.dtype)


def _lcm(x: Array, y: Array) -> Array:
    divisor = _gcd(x, y)
    return jnp.where(divisor == 0, 0, jnp.abs(lax.div(x + 0 * y, jnp.where(divisor == 0, 1, divisor)) * y))


def _scaled(facts: Facts, x: Array, exponent: Array) -> Array:
    """Returns `x * 2 ** exponent`; of a float and integers also where that power is beyond the dtype, as in torch."""
    dtype = computing(facts.dtype)
    exact = _is_integer(exponent) and not _is_integer(x)
    x, exponent, two = cast(x, dtype), cast(exponent, dtype), cast(2, dtype)  # powers are exact, those of `exp2` not
    if not exact:
        return cast(x * jnp.power(two, exponent), facts.dtype)
    quarter = jnp.trunc(exponent / 4)
    power, rest = as_written(jnp.power(two, quarter)), as_written(jnp.power(two, exponent - 3 * quarter))
    for factor in (power, power, power, rest):
        x = as_written(x * factor)
    return cast(x, facts.dtype)


UNARY: Mapping[str, Callable[[Array], Array]] = {
    "aten.abs.default": lambda x: x if x.dtype == bool else jnp.abs(x),
    "aten.acos.default": jnp.arccos,
    "aten.acosh.default": jnp.arccosh,
    "aten.angle.default": _angle,
    "aten.asin.default": jnp.arcsin,
    "aten.asinh.default": jnp.arcsinh,
    "aten.atan.default": jnp.arctan,
    "aten.atanh.default": jnp.arctanh,
    "aten.ceil.default": _for_floats(jnp.ceil),
    "aten._conj_copy.default": jnp.conj,
    "aten._neg_view_copy.default": jnp.negative,
    "aten._conj_physical.default": jnp.conj,
    "aten._conj.default": jnp.conj,
    "aten.conj_physical.default": jnp.conj,
    "aten.cos.default": jnp.cos,
    "aten.cosh.default": jnp.cosh,
    "aten.exp.default": lambda x: as_written(jnp.exp(x)),
    "aten.exp2.default": jnp.exp2,
    "aten.expm1.default": jnp.expm1,
    "aten.floor.default": _for_floats(jnp.floor),
    "aten.log.default": jnp.log,
    "aten.log10.default": jnp.log10,
    "aten.log1p.default": jnp.log1p,
    "aten.log2.default": jnp.log2,
    "aten.neg.default": jnp.negative,
    "aten.reciprocal.default": lambda x: _quotient(jnp.ones((), x.dtype), x),
    "aten.relu.default": lambda x: jnp.maximum(x, jnp.zeros((), x.dtype)),
    "aten.round.default": _for_floats(jnp.round),
    "aten.rsqrt.default": lambda x: 1 / jnp.sqrt(x),
    "aten.sgn.default": _sgn,
    "aten.sigmoid.default": _sigmoid,
    "aten.sign.default": _sign,
    "aten.sin.default": jnp.sin,
    "aten.sinh.default": jnp.sinh,
    "aten.sqrt.default": jnp.sqrt,
    "aten.square.default": lambda x: x * x,
    "aten.tan.default": jnp.tan,
    "aten.tanh.default": jnp.tanh,
    "aten.trunc.default": _for_floats(jnp.trunc),
}

BINARY: Mapping[str, Callable[..., Array]] = {
    "aten.atan2.default": jnp.arctan2,
    "aten.copysign.Scalar": jnp.copysign,
    "aten.copysign.Tensor": jnp.copysign,
    "aten.div.Tensor": _quotient,
    "aten.div.Scalar": _quotient,
    "aten.fmax.default": jnp.fmax,
    "aten.fmin.default": jnp.fmin,
    "aten.gcd.default": _gcd,
    "aten.hypot.default": jnp.hypot,
    "aten.lcm.default": _lcm,
    "aten.maximum.default": jnp.maximum,
    "aten.minimum.default": jnp.minimum,
    "aten.mul.Tensor": jnp.multiply,
    "aten.mul.Scalar": jnp.multiply,
}

RULES: Mapping[str, Rule] = {
    **{name: elementwise(function) for name, function in {**UNARY, **BINARY}.items()},
    "aten._to_copy.default": _to_copy,
    "aten.add.Scalar": _plus(jnp.add),
    "aten.add.Tensor": _plus(jnp.add),
    "aten.complex.default": _complex,
    "aten.div.Tensor_mode": _divide,
    "aten.div.Scalar_mode": _divide,
    "aten.fmod.Scalar": _fmod,
    "aten.fmod.Tensor": _fmod,
    "aten.frexp.Tensor": _frexp,
    "aten.ldexp.Tensor": _scaled,
    "aten.nextafter.default": _nextafter,
    "aten.polar.default": _polar,
    "aten.pow.Scalar": _power,
    "aten.pow.Tensor_Scalar": _power,
    "aten.pow.Tensor_Tensor": _power,
    "aten.remainder.Scalar": _remainder,
    "aten.remainder.Scalar_Tensor": _remainder,
    "aten.remainder.Tensor": _remainder,
    "aten.round.decimals": _rounded,
    "aten.sub.Scalar": _plus(jnp.subtract),
    "aten.sub.Tensor": _plus(jnp.subtract),
    "prims.convert_element_type.default": _to_copy,
}
