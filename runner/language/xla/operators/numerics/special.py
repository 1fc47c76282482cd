"""Error functions, gamma functions and others that JAX has."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import jax.scipy.special as special
from jax import lax

from runner.language.xla.operators.elementwise import elementwise
from runner.language.xla.operators.facts import Array, Facts, Rule, cast, computing


def _lgamma(x: Array) -> Array:
    return lax.lgamma(x)


def _digamma(x: Array) -> Array:
    """Infinite at 0 with the opposite sign, as in torch; NaN at the negative integers."""
    found = lax.digamma(x)
    found = jnp.where((x < 0) & (x == jnp.trunc(x)), jnp.nan, found)
    return jnp.where(x == 0, jnp.copysign(jnp.inf, -x), found)


def _trigamma(x: Array) -> Array:
    """The derivative of digamma, by its reflection below a half, as in torch."""
    sine = jnp.sin(math.pi * x)
    reflected = math.pi**2 / (sine * sine) - _zeta(jnp.full_like(x, 2), 1 - x)
    found = jnp.where(x < 0.5, reflected, _zeta(jnp.full_like(x, 2), x))
    return jnp.where(x == jnp.inf, 0, found)


def _polygamma(facts: Facts, order: int, x: Array) -> Array:
    x = cast(x, computing(facts.dtype))
    if order == 0:
        return cast(_digamma(x), facts.dtype)
    if order == 1:
        return cast(_trigamma(x), facts.dtype)
    n = jnp.asarray(order, x.dtype)
    sign = 1.0 if order % 2 else -1.0
    return cast(sign * jnp.exp(lax.lgamma(n + 1)) * _zeta(n + 1, x), facts.dtype)


def _zeta(x: Array, q: Array) -> Array:
    """Hurwitz's zeta function, the sum of `(q + k) ** -x` over all `k`, for negative `q` too; infinite at its poles.

    JAX's own sums too few of the terms whose base is negative. They are those of a positive base with a sign, and a
    difference of two sums: for `q = -2.3`, of `(0.3 + k) ** -x` and of `(3.3 + k) ** -x`.
    """
    x, q = jnp.broadcast_arrays(x, q)
    found = special.zeta(x, q)
    below = jnp.ceil(-q)  # how many terms have a negative base
    sign = jnp.where(x % 2 == 0, 1, -1).astype(q.dtype)
    negative = special.zeta(x, 1 - q - below) - special.zeta(x, 1 - q)
    whole = q == jnp.trunc(q)
    found = jnp.where((q < 0) & ~whole & (x == jnp.trunc(x)), special.zeta(x, q + below) + sign * negative, found)
    found = jnp.where((q <= 0) & whole, jnp.inf, found)
    return jnp.where(x == 1, jnp.inf, jnp.where(x < 1, jnp.nan, found))


_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "digamma": _digamma,
    "erf": lax.erf,
    "erfc": lax.erfc,
    "erfinv": lax.erf_inv,
    "i0": special.i0,
    "igamma": special.gammainc,
    "igammac": special.gammaincc,
    "lgamma": _lgamma,
    "special_i0e": special.i0e,
    "special_i1": special.i1,
    "special_i1e": special.i1e,
    "special_log_ndtr": special.log_ndtr,
    "special_modified_bessel_i0": special.i0,
    "special_modified_bessel_i1": special.i1,
    "special_ndtri": special.ndtri,
    "special_zeta": _zeta,
}

RULES: Mapping[str, Rule] = {
    **{f"aten.{name}.default": elementwise(function) for name, function in _FUNCTIONS.items()},
    "aten.polygamma.default": _polygamma,
    "aten.special_zeta.other_scalar": elementwise(_zeta),
    "aten.special_zeta.self_scalar": elementwise(_zeta),
}
