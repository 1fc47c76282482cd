"""Pools: means, and maxima with the indices that their gradients need."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy
from jax import lax
from numpy.typing import NDArray

from runner.language.xla.operators.facts import Array, Facts, Rule, cast, computing
from runner.language.xla.operators.images.convolution import spread
from runner.language.xla.operators.images.separable import adaptive_bounds

Windows = NDArray[numpy.int64]
"""Which inputs each output of one dimension sees, `(output, kernel)`; one outside is replaced by the first inside."""


def _windows(size: int, count: int, kernel: int, stride: int, padding: int, dilation: int) -> Windows:
    begins = numpy.arange(count) * stride - padding
    places = begins[:, None] + numpy.arange(kernel) * dilation
    missing = numpy.maximum(-begins, 0)
    first = begins + -(-missing // dilation) * dilation
    return numpy.where((places >= 0) & (places < size), places, first[:, None])


def _adaptive_windows(size: int, count: int) -> Windows:
    begins, ends = adaptive_bounds(size, count)
    places = begins[:, None] + numpy.arange((ends - begins).max(initial=0))
    return numpy.where(places < ends[:, None], places, begins[:, None])


def _together(windows: Sequence[Windows], sizes: Sequence[int]) -> Windows:
    """Returns the windows of all dimensions, as places in the flattened input: `(outputs, kernels)`."""
    found = numpy.zeros((1, 1), numpy.int64)
    for window, size in zip(windows, sizes, strict=True):
        found = found[:, None, :, None] * size + window[None, :, None, :]
        found = found.reshape(found.shape[0] * found.shape[1], -1)
    return found


def _maximum(facts: Facts, x: Array, windows: Sequence[Windows]) -> tuple[Array, Array]:
    spatial = len(windows)
    places = _together(windows, x.shape[-spatial:])
    flat = x.reshape(*x.shape[:-spatial], -1)
    seen = flat[..., places]
    chosen = jnp.argmax(seen, -1)
    value = jnp.take_along_axis(seen, chosen[..., None], -1)[..., 0]
    index = jnp.asarray(places)[jnp.arange(places.shape[0]), chosen]
    return value.reshape(facts.shape), index.reshape(facts.shape)


def _max_pool(spatial: int) -> Rule:
    def rule(
        facts: Facts,
        x: Array,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        _ceil: bool,
    ) -> tuple[Array, Array]:
        numbers = zip(
            x.shape[-spatial:],
            facts.shape[-spatial:],
            spread(kernel, spatial),
            spread(stride or kernel, spatial),
            spread(padding, spatial),
            spread(dilation, spatial),
            strict=True,
        )
        return _maximum(facts, x, [_windows(*each) for each in numbers])

    return rule


def _adaptive_max_pool(spatial: int) -> Rule:
    def rule(facts: Facts, x: Array, _size: Sequence[int]) -> tuple[Array, Array]:
        numbers = zip(x.shape[-spatial:], facts.shape[-spatial:], strict=True)
        return _maximum(facts, x, [_adaptive_windows(*each) for each in numbers])

    return rule


def _fractional_windows(size: int, count: int, kernel: int, sample: Array) -> Array:
    """Returns `(*samples, output, kernel)`: where windows begin depends on random numbers. Source: Graham 2014."""
    step = (size - kernel) / (count - 1) if count > 1 else 0.0
    ratio = jnp.asarray(step, sample.dtype)
    places = jnp.trunc((jnp.arange(count) + sample[..., None]) * ratio) - jnp.trunc(sample[..., None] * ratio)
    begins = jnp.where(jnp.arange(count) == count - 1, size - kernel, places.astype(jnp.int64))
    return begins[..., None] + jnp.arange(kernel)


def _fractional_max_pool(spatial: int) -> Rule:
    def rule(facts: Facts, x: Array, kernel: Sequence[int], size: Sequence[int], samples: Array) -> tuple[Array, Array]:
        wide = x if x.ndim == spatial + 2 else x[None]
        lead, sizes = wide.shape[:2], wide.shape[2:]
        places: Array = jnp.zeros((*lead, 1, 1), jnp.int64)
        for dim in range(spatial):
            sample = samples[..., _SAMPLE[spatial][dim]]
            window = _fractional_windows(sizes[dim], size[dim], spread(kernel, spatial)[dim], sample)
            together = places[..., :, None, :, None] * sizes[dim] + window[..., None, :, None, :]
            places = together.reshape(*lead, together.shape[2] * together.shape[3], -1)
        seen = jnp.take_along_axis(wide.reshape(*lead, 1, -1), places, -1)
        chosen = jnp.argmax(seen, -1)[..., None]
        value, index = (jnp.take_along_axis(each, chosen, -1).reshape(facts.shape) for each in (seen, places))
        return value, index

    return rule


_SAMPLE: Mapping[int, tuple[int, ...]] = {2: (1, 0), 3: (0, 1, 2)}
"""Which random number each dimension takes."""


def _max_backward(spatial: int) -> Rule:
    """Makes the gradient of a pool of maxima: each gradient goes to the index that its window chose."""

    def rule(facts: Facts, grad: Array, x: Array, *options: Any) -> Array:
        index = next(each for each in options if isinstance(each, jax.Array))
        lead = x.shape[:-spatial]
        rows, size = math.prod(lead), math.prod(x.shape[-spatial:])
        values = cast(grad, computing(facts.dtype)).reshape(rows, -1)
        places = index.reshape(rows, -1)
        empty = jnp.zeros((rows, size), values.dtype)
        found = empty.at[jnp.arange(rows)[:, None], places].add(values, mode="drop")
        return cast(found.reshape(x.shape), facts.dtype)

    return rule


def _counts(size: int, count: int, kernel: int, stride: int, padding: int, with_padding: bool) -> NDArray[Any]:
    """Returns how many elements each window of one dimension counts."""
    begins = numpy.arange(count) * stride - padding
    ends = numpy.minimum(begins + kernel, size + padding)
    if with_padding:
        return ends - begins
    return numpy.minimum(ends, size) - numpy.maximum(begins, 0)


def _averaged(
    x: Array,
    counts: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    with_padding: bool,
    divisor: int | None,
) -> Array:
    spatial = len(counts)
    sizes = x.shape[-spatial:]
    kernel, stride, padding = spread(kernel, spatial), spread(stride or kernel, spatial), spread(padding, spatial)
    numbers = list(zip(sizes, counts, kernel, stride, padding, strict=True))
    ones = (1,) * (x.ndim - spatial)
    pairs = [(p, (out - 1) * s + k - size - p) for size, out, k, s, p in numbers]
    cut = tuple(slice(0, size + min(0, high)) for size, (_, high) in zip(sizes, pairs, strict=True))
    x = x[(..., *cut)]  # the windows may end before the input does
    widths = [(0, 0)] * len(ones) + [(low, max(high, 0)) for low, high in pairs]
    total: Array = lax.reduce_window(x, numpy.zeros((), x.dtype), lax.add, (*ones, *kernel), (*ones, *stride), widths)
    if divisor is not None:
        return total / divisor
    divisors = numpy.ones((1,) * spatial)
    for place, each in enumerate(numbers):
        shape = [1] * spatial
        shape[place] = -1
        divisors = divisors * _counts(*each, with_padding).reshape(shape)
    return total / jnp.asarray(divisors, x.dtype)


def _avg_pool(spatial: int) -> Rule:
    def rule(
        facts: Facts,
        x: Array,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        _ceil: bool,
        with_padding: bool,
        divisor: int | None = None,
    ) -> Array:
        x = cast(x, computing(facts.dtype))
        return cast(_averaged(x, facts.shape[-spatial:], kernel, stride, padding, with_padding, divisor), facts.dtype)

    return rule


def _avg_backward(spatial: int) -> Rule:
    def rule(
        facts: Facts,
        grad: Array,
        x: Array,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        _ceil: bool,
        with_padding: bool,
        divisor: int | None,
    ) -> Array:
        grad, x = (cast(each, computing(facts.dtype)) for each in (grad, x))

        def forward(given: Array) -> Array:
            return _averaged(given, grad.shape[-spatial:], kernel, stride, padding, with_padding, divisor)

        return cast(jax.linear_transpose(forward, x)(grad)[0], facts.dtype)

    return rule


RULES: Mapping[str, Rule] = {
    "aten.adaptive_max_pool2d.default": _adaptive_max_pool(2),
    "aten.adaptive_max_pool2d_backward.default": _max_backward(2),
    "aten.adaptive_max_pool3d.default": _adaptive_max_pool(3),
    "aten.adaptive_max_pool3d_backward.default": _max_backward(3),
    "aten.avg_pool1d.default": _avg_pool(1),
    "aten.avg_pool2d.default": _avg_pool(2),
    "aten.avg_pool2d_backward.default": _avg_backward(2),
    "aten.avg_pool3d.default": _avg_pool(3),
    "aten.avg_pool3d_backward.default": _avg_backward(3),
    "aten.fractional_max_pool2d.default": _fractional_max_pool(2),
    "aten.fractional_max_pool3d.default": _fractional_max_pool(3),
    "aten.fractional_max_pool2d_backward.default": _max_backward(2),
    "aten.fractional_max_pool3d_backward.default": _max_backward(3),
    "aten.max_pool2d_with_indices.default": _max_pool(2),
    "aten.max_pool2d_with_indices_backward.default": _max_backward(2),
    "aten.max_pool3d_with_indices.default": _max_pool(3),
    "aten.max_pool3d_with_indices_backward.default": _max_backward(3),
}
