"""Fourier transforms."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from runner.language.xla.operators.facts import Array, Facts, Rule, cast

_SCALES: Mapping[int, Callable[[int], float]] = {0: lambda _n: 1.0, 1: lambda n: 1 / math.sqrt(n), 2: lambda n: 1 / n}
"""The factor of each normalisation, from the number of points."""


def _transformed(x: Array, dims: Sequence[int], forward: bool) -> Array:
    """Returns the transform without a factor, one dimension after another."""
    for dim in dims:
        x = jnp.fft.fft(x, axis=dim) if forward else jnp.fft.ifft(x, axis=dim, norm="forward")
    return x


def _scaled(facts: Facts, x: Array, shape: Sequence[int], dims: Sequence[int], normalisation: int) -> Array:
    count = math.prod(shape[dim] for dim in dims)
    return cast(x if normalisation == 0 else x * _SCALES[normalisation](count), facts.dtype)


def _complex_to_complex(facts: Facts, x: Array, dims: Sequence[int], normalisation: int, forward: bool) -> Array:
    return _scaled(facts, _transformed(x, dims, forward), x.shape, dims, normalisation)


def _real_to_complex(facts: Facts, x: Array, dims: Sequence[int], normalisation: int, onesided: bool) -> Array:
    if onesided:
        found = _transformed(jnp.fft.rfft(x, axis=dims[-1]), dims[:-1], True)
    else:
        found = _transformed(cast(x, facts.dtype), dims, True)
    return _scaled(facts, found, x.shape, dims, normalisation)


def _complex_to_real(facts: Facts, x: Array, dims: Sequence[int], normalisation: int, size: int) -> Array:
    found: Any = jnp.fft.irfft(_transformed(x, dims[:-1], False), size, axis=dims[-1], norm="forward")
    return _scaled(facts, found, found.shape, dims, normalisation)


RULES: Mapping[str, Rule] = {
    "aten._fft_c2c.default": _complex_to_complex,
    "aten._fft_c2r.default": _complex_to_real,
    "aten._fft_r2c.default": _real_to_complex,
}
