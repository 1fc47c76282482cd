"""Samples of an image at the points of a grid, and their gradients."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp

from runner.language.xla.operators.facts import Array, Facts, Rule, cast, computing
from runner.language.xla.operators.images.separable import cubic_weight

_BILINEAR, _NEAREST, _BICUBIC = range(3)
_ZEROS, _BORDER, _REFLECTION = range(3)


def _unnormalised(coordinate: Array, size: int, aligned: bool) -> Array:
    """Maps -1 and 1 to the centres of the outer pixels if `aligned`, else to their outer edges."""
    return (coordinate + 1) / 2 * (size - 1) if aligned else ((coordinate + 1) * size - 1) / 2


def _clipped(x: Array, size: int) -> Array:
    """Moves positions outside to the edge, where the gradient is 0."""
    return jnp.where(x <= 0, 0, jnp.where(x >= size - 1, size - 1, x)).astype(x.dtype)


def _reflected(x: Array, size: int, aligned: bool) -> Array:
    low, span = (0.0, float(size - 1)) if aligned else (-0.5, float(size))
    if span == 0:
        return jnp.zeros_like(x)
    distance = jnp.abs(x - low)
    turns = jnp.floor(distance / span)
    rest = jnp.fmod(distance, span)
    return jnp.where(turns % 2 == 0, rest + low, span - rest + low)


def _placed(x: Array, size: int, padding: int, aligned: bool) -> Array:
    if padding == _BORDER:
        return _clipped(x, size)
    if padding == _REFLECTION:
        return _clipped(_reflected(x, size, aligned), size)
    return x


def _pixels(image: Array, places: Sequence[Array]) -> Array:
    """Returns `(N, C, *points)` at whole positions `(N, *points)`, 0 outside."""
    sizes = image.shape[2:]
    inside = jnp.ones(places[0].shape, bool)
    index = []
    for place, size in zip(places, sizes, strict=True):
        inside &= (place >= 0) & (place <= size - 1)
        index.append(jnp.clip(jnp.nan_to_num(place), 0, size - 1).astype(jnp.int64))
    rows = jnp.arange(image.shape[0]).reshape(-1, *(1,) * (places[0].ndim - 1))
    found = jnp.moveaxis(image, 1, -1)[(rows, *index)]
    return jnp.moveaxis(jnp.where(inside[..., None], found, 0), -1, 1)


def sampled(image: Array, grid: Array, mode: int, padding: int, aligned: bool) -> Array:
    """Returns `image`, `(N, C, *spatial)`, at the points of `grid`, `(N, *points, dimensions)`."""
    sizes = image.shape[2:]
    raw = [_unnormalised(grid[..., -1 - dim], size, aligned) for dim, size in enumerate(sizes)]
    if mode == _BICUBIC:
        return _cubic(image, raw, padding, aligned)
    points = [_placed(x, size, padding, aligned) for x, size in zip(raw, sizes, strict=True)]
    if mode == _NEAREST:
        return _pixels(image, [jnp.round(x) for x in points])
    floors = [jax.lax.stop_gradient(jnp.floor(x)) for x in points]
    total = jnp.zeros((), image.dtype)
    for corner in itertools.product((0, 1), repeat=len(sizes)):
        weight = jnp.ones((), image.dtype)
        for x, floor, side in zip(points, floors, corner, strict=True):
            weight = weight * ((x - floor) if side else (floor + 1 - x))
        total = total + _pixels(image, [f + side for f, side in zip(floors, corner, strict=True)]) * weight[:, None]
    return total


def _cubic(image: Array, points: Sequence[Array], padding: int, aligned: bool) -> Array:
    sizes = image.shape[2:]
    floors = [jax.lax.stop_gradient(jnp.floor(x)) for x in points]
    total = jnp.zeros((), image.dtype)
    for taps in itertools.product(range(-1, 3), repeat=2):
        places = [_placed(f + tap, size, padding, aligned) for f, tap, size in zip(floors, taps, sizes, strict=True)]
        weight = jnp.ones((), image.dtype)
        for x, floor, tap in zip(points, floors, taps, strict=True):
            share = x - floor
            weight = weight * cubic_weight((share - tap) if tap <= 0 else (tap - share))
        total = total + _pixels(image, places) * weight[:, None]
    return total


def _grid_sampler(facts: Facts, image: Array, grid: Array, mode: int, padding: int, aligned: bool) -> Array:
    dtype = computing(facts.dtype)
    return cast(sampled(cast(image, dtype), cast(grid, dtype), mode, padding, aligned), facts.dtype)


def _grid_sampler_backward(
    facts: Facts, grad: Array, image: Array, grid: Array, mode: int, padding: int, aligned: bool, wanted: Sequence[bool]
) -> tuple[Array | None, Array | None]:
    dtype = computing(facts.arguments[0].dtype)
    backward: Callable[[Array], tuple[Array, Array]]
    image, grid, grad = (cast(each, dtype) for each in (image, grid, grad))
    _, backward = jax.vjp(lambda a, b: sampled(a, b, mode, padding, aligned), image, grid)
    found = backward(grad)
    results = facts.results
    kept = [
        None if not want or result is None else cast(each, result.dtype)
        for each, want, result in zip(found, wanted, results, strict=True)
    ]
    return kept[0], kept[1]


RULES: Mapping[str, Rule] = {
    "aten.grid_sampler_2d.default": _grid_sampler,
    "aten.grid_sampler_2d_backward.default": _grid_sampler_backward,
    "aten.grid_sampler_3d.default": _grid_sampler,
    "aten.grid_sampler_3d_backward.default": _grid_sampler_backward,
}
