"""Bessel, modified Bessel, Airy and scaled error functions, computed in float64.

Source of the formulas: NIST's Digital Library of Mathematical Functions, sections named below.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy
from jax import lax
from numpy.typing import NDArray

from runner.language.xla.operators.facts import Array, Facts, Rule, cast

_FAR = 25.0
"""Where the asymptotic series of Hankel begin."""

_NODES = 256
_ANGLES = numpy.arange(_NODES) * (2 * math.pi / _NODES)
_ORDERS = numpy.arange(1, 61)


def _mean(weights: NDArray[numpy.float64], terms: Array) -> Array:
    return jnp.sum(jnp.asarray(weights) * terms, -1) / _NODES


def _near_j(x: Array, order: int) -> Array:
    """The mean over a period of Bessel's integral, 10.9.2."""
    angle = jnp.asarray(_ANGLES)
    return _mean(numpy.ones(_NODES), jnp.cos(order * angle - x[..., None] * jnp.sin(angle)))


def _near_y0(x: Array) -> Array:
    """Neumann's series 10.8.3 over Bessel functions of even order, summed under their integral."""
    weights = ((-1.0) ** _ORDERS / _ORDERS) @ numpy.cos(2 * _ORDERS[:, None] * _ANGLES)
    total = _mean(weights, jnp.cos(x[..., None] * numpy.sin(_ANGLES)))
    return 2 / math.pi * ((jnp.log(x / 2) + numpy.euler_gamma) * _near_j(x, 0) - 2 * total)


def _near_y1(x: Array) -> Array:
    """The derivative of the series for order 0, with the opposite sign."""
    weights = ((-1.0) ** _ORDERS / _ORDERS) @ numpy.cos(2 * _ORDERS[:, None] * _ANGLES) * numpy.sin(_ANGLES)
    slope = -_mean(weights, jnp.sin(x[..., None] * numpy.sin(_ANGLES)))
    found = _near_j(x, 0) / x - (jnp.log(x / 2) + numpy.euler_gamma) * _near_j(x, 1) - 2 * slope
    return -2 / math.pi * found


def _far(x: Array, order: int, second: bool) -> Array:
    """Hankel's expansions, 10.17.3 and 10.17.4."""
    even, odd, term = jnp.zeros_like(x), jnp.zeros_like(x), jnp.ones_like(x)
    for k in range(24):
        if k % 2:
            odd = odd + term * (-1) ** (k // 2)
        else:
            even = even + term * (-1) ** (k // 2)
        term = term * (4 * order**2 - (2 * k + 1) ** 2) / ((k + 1) * 8 * x)
    phase = x - (order / 2 + 0.25) * math.pi
    sine, cosine = jnp.sin(phase), jnp.cos(phase)
    value = sine * even + cosine * odd if second else cosine * even - sine * odd
    return jnp.where(jnp.isinf(x), 0, jnp.sqrt(2 / (math.pi * x)) * value)


def _first_kind(order: int) -> Callable[[Array], Array]:
    def function(x: Array) -> Array:
        size = jnp.abs(x)
        found = jnp.where(
            size > _FAR,
            _far(jnp.maximum(size, _FAR), order, False),
            _near_j(jnp.minimum(size, _FAR), order),
        )
        return jnp.where(x < 0, -found, found) if order else found

    return function


def _second_kind(order: int, near: Callable[[Array], Array]) -> Callable[[Array], Array]:
    def function(x: Array) -> Array:
        found = jnp.where(x > _FAR, _far(jnp.maximum(x, _FAR), order, True), near(jnp.clip(x, 1e-300, _FAR)))
        return jnp.where(x == 0, -jnp.inf, jnp.where(x < 0, jnp.nan, found))

    return function


def _spherical_j0(x: Array) -> Array:
    square = x * x
    series = 1 - square / 6 * (1 - square / 20 * (1 - square / 42 * (1 - square / 72)))
    ratio = jnp.sin(x) / jnp.where(x == 0, 1, x)
    return jnp.where(jnp.isinf(x), 0, jnp.where(jnp.abs(x) < 0.1, series, ratio))


def _decaying(x: Array, order: float) -> Array:
    """`exp(x)` times the modified function of the second kind for `x >= 1`, from 10.32.9 by the trapezoidal rule."""
    step = jnp.minimum(0.25, 0.5 / jnp.sqrt(x))[..., None]
    t = step * numpy.arange(48)
    weights = numpy.where(numpy.arange(48) == 0, 0.5, 1.0)
    half = jnp.sinh(t / 2)
    return jnp.sum(weights * jnp.exp(-2 * x[..., None] * half * half) * jnp.cosh(order * t), -1) * step[..., 0]


def _small_k0(x: Array) -> Array:
    """The series 10.31.2."""
    quarter, term, total, harmonic = x * x / 4, jnp.ones_like(x), jnp.zeros_like(x), 0.0
    plain = jnp.zeros_like(x)
    for k in range(20):
        plain = plain + term
        total = total + term * harmonic
        harmonic += 1 / (k + 1)
        term = term * quarter / (k + 1) ** 2
    return total - (jnp.log(x / 2) + numpy.euler_gamma) * plain


def _small_k1(x: Array) -> Array:
    """The series 10.31.1 for order 1."""
    quarter, term, total, plain = x * x / 4, jnp.ones_like(x), jnp.zeros_like(x), jnp.zeros_like(x)
    psi = 1 - 2 * numpy.euler_gamma
    for k in range(20):
        plain = plain + term
        total = total + term * psi
        psi += 1 / (k + 1) + 1 / (k + 2)
        term = term * quarter / ((k + 1) * (k + 2))
    return 1 / x + jnp.log(x / 2) * x / 2 * plain - x / 4 * total


def _modified(order: int, small: Callable[[Array], Array], scaled: bool) -> Callable[[Array], Array]:
    def function(x: Array) -> Array:
        far = _decaying(jnp.maximum(x, 1), order)
        near = small(jnp.clip(x, 1e-300, 2))
        found = jnp.where(x > 2, far if scaled else far * jnp.exp(-x), near * jnp.exp(x) if scaled else near)
        found = jnp.where(jnp.isinf(x), 0, found)
        return jnp.where(x == 0, jnp.inf, jnp.where(x < 0, jnp.nan, found))

    return function


def _airy(x: Array) -> Array:
    """9.4.1 near zero, 9.6.2 above, 9.7.9 below."""
    third = math.gamma(1 / 3)
    first, second = 1 / (3 ** (2 / 3) * math.gamma(2 / 3)), 1 / (3 ** (1 / 3) * third)
    near = jnp.clip(x, -9, 3)
    cube, one, two = near**3, jnp.ones_like(x), near
    f, g = jnp.zeros_like(x), jnp.zeros_like(x)
    for k in range(60):
        f, g = f + one, g + two
        one = one * cube / ((3 * k + 2) * (3 * k + 3))
        two = two * cube / ((3 * k + 3) * (3 * k + 4))
    above = jnp.maximum(x, 3)
    zeta = 2 / 3 * above * jnp.sqrt(above)
    decaying = jnp.sqrt(above / 3) / math.pi * _decaying(zeta, 1 / 3) * jnp.exp(-zeta)
    below = jnp.maximum(-x, 9)
    zeta = 2 / 3 * below * jnp.sqrt(below)
    even, odd, term = jnp.zeros_like(x), jnp.zeros_like(x), jnp.ones_like(x)
    for k in range(16):
        if k % 2:
            odd = odd + term * (-1) ** (k // 2)
        else:
            even = even + term * (-1) ** (k // 2)
        term = term * (6 * k + 5) * (6 * k + 1) / (72 * (k + 1)) / zeta
    phase = zeta - math.pi / 4
    waving = (jnp.cos(phase) * even + jnp.sin(phase) * odd) / (math.sqrt(math.pi) * below**0.25)
    found = jnp.where(x > 3, decaying, jnp.where(x < -9, waving, first * f - second * g))
    return jnp.where(jnp.isposinf(x), 0, jnp.where(jnp.isneginf(x), jnp.nan, found))


def _erfcx(x: Array) -> Array:
    """The scaled complementary error function: its definition, and the series 7.12.1 far from zero."""
    near, far = jnp.clip(x, -27, 8), jnp.maximum(x, 8)
    total, term = jnp.zeros_like(x), jnp.ones_like(x)
    for k in range(20):
        total = total + term
        term = -term * (2 * k + 1) / (2 * far * far)
    found = jnp.where(x > 8, total / (far * math.sqrt(math.pi)), jnp.exp(near * near) * lax.erfc(near))
    return jnp.where(x < -27, jnp.inf, found)


def _in_float64(function: Callable[[Array], Array]) -> Rule:
    def rule(facts: Facts, x: Array) -> Array:
        wide = x.astype(jnp.float64)
        return cast(jnp.where(jnp.isnan(wide), wide, function(wide)), facts.dtype)

    return rule


_FUNCTIONS: Mapping[str, Callable[[Array], Array]] = {
    "airy_ai": _airy,
    "bessel_j0": _first_kind(0),
    "bessel_j1": _first_kind(1),
    "bessel_y0": _second_kind(0, _near_y0),
    "bessel_y1": _second_kind(1, _near_y1),
    "erfcx": _erfcx,
    "modified_bessel_k0": _modified(0, _small_k0, scaled=False),
    "modified_bessel_k1": _modified(1, _small_k1, scaled=False),
    "scaled_modified_bessel_k0": _modified(0, _small_k0, scaled=True),
    "scaled_modified_bessel_k1": _modified(1, _small_k1, scaled=True),
    "spherical_bessel_j0": _spherical_j0,
}

RULES: Mapping[str, Rule] = {
    f"aten.special_{name}.default": _in_float64(function) for name, function in _FUNCTIONS.items()
}
