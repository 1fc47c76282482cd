"""Orthogonal polynomials, by their recurrences: the degree is a tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jax import lax

from runner.language.xla.operators.elementwise import elementwise
from runner.language.xla.operators.facts import Array, Rule

Next = Callable[[Array, Array, Array, Array], Array]
"""Maps `(x, value of degree k, value of degree k - 1, k)` to the value of degree k + 1."""


def _polynomial(first: Callable[[Array], Array], following: Next, shift: bool = False) -> Callable[..., Array]:
    """Makes a function of `(x, n)`: 1 for degree 0, `first(x)` for degree 1, 0 for a negative degree."""

    def function(x: Array, n: Array) -> Array:
        x, n = jnp.broadcast_arrays(x, n)
        x = 2 * x - 1 if shift else x
        degree = jnp.trunc(n)

        def step(k: Any, values: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            before, now, found = values
            after = following(x, now, before, jnp.asarray(k, x.dtype))
            return now, after, jnp.where(degree == k + 1, after, found)

        start = jnp.where(degree == 0, 1, first(x))
        last = jnp.max(degree, initial=0).astype(jnp.int64)
        found = lax.fori_loop(1, last, step, (jnp.ones_like(x), first(x), start))[2]
        return jnp.where(degree < 0, 0, found)

    return function


def _chebyshev(x: Array, now: Array, before: Array, _k: Array) -> Array:
    return 2 * x * now - before


def _hermite(x: Array, now: Array, before: Array, k: Array) -> Array:
    return 2 * (x * now - k * before)


def _hermite_e(x: Array, now: Array, before: Array, k: Array) -> Array:
    return x * now - k * before


def _laguerre(x: Array, now: Array, before: Array, k: Array) -> Array:
    return ((2 * k + 1 - x) * now - k * before) / (k + 1)


def _legendre(x: Array, now: Array, before: Array, k: Array) -> Array:
    return ((2 * k + 1) * x * now - k * before) / (k + 1)


_FIRST: Mapping[str, Callable[[Array], Array]] = {
    "t": lambda x: x,
    "u": lambda x: 2 * x,
    "v": lambda x: 2 * x - 1,
    "w": lambda x: 2 * x + 1,
}

_FUNCTIONS: Mapping[str, Callable[..., Array]] = {
    **{f"chebyshev_polynomial_{kind}": _polynomial(first, _chebyshev) for kind, first in _FIRST.items()},
    **{
        f"shifted_chebyshev_polynomial_{kind}": _polynomial(first, _chebyshev, shift=True)
        for kind, first in _FIRST.items()
    },
    "hermite_polynomial_h": _polynomial(lambda x: 2 * x, _hermite),
    "hermite_polynomial_he": _polynomial(lambda x: x, _hermite_e),
    "laguerre_polynomial_l": _polynomial(lambda x: 1 - x, _laguerre),
    "legendre_polynomial_p": _polynomial(lambda x: x, _legendre),
}

RULES: Mapping[str, Rule] = {
    f"aten.special_{name}.{form}": elementwise(function)
    for name, function in _FUNCTIONS.items()
    for form in ("default", "n_scalar", "x_scalar")
}
