"""Adaptive means and images in other sizes: a matrix for each dimension of space."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy
from numpy.typing import NDArray

from runner.language.xla.operators.facts import Array, Facts, Rule, cast, computing
from runner.language.xla.operators.linear.products import HIGHEST

Matrix = NDArray[numpy.floating[Any]]
"""The weight of each input in each output, `(output, input)`."""

Weights = Callable[[int, int, Any, bool], Matrix]
"""Maps `(input, output, scale, align_corners)` to the weights of one dimension."""


def _applied(x: Array, matrices: Sequence[Matrix]) -> Array:
    """Multiplies the last dimensions with a matrix each."""
    first = x.ndim - len(matrices)
    for place, matrix in enumerate(matrices):
        product = jnp.tensordot(x, jnp.asarray(matrix, x.dtype), ((first + place,), (1,)), precision=HIGHEST)
        x = jnp.moveaxis(product, -1, first + place)
    return x


def adaptive_bounds(size: int, count: int) -> tuple[NDArray[numpy.int64], NDArray[numpy.int64]]:
    """Returns where the windows of an adaptive pool begin and end."""
    places = numpy.arange(count)
    return places * size // count, -(-(places + 1) * size // count)


def _mean_weights(size: int, count: int) -> Matrix:
    begins, ends = adaptive_bounds(size, count)
    column = numpy.arange(size)
    inside = (column >= begins[:, None]) & (column < ends[:, None])
    return inside / (ends - begins)[:, None]


def _adaptive_mean(spatial: int) -> Rule:
    def rule(facts: Facts, x: Array, size: Sequence[int]) -> Array:
        matrices = [_mean_weights(a, b) for a, b in zip(x.shape[-spatial:], facts.shape[-spatial:], strict=True)]
        return cast(_applied(cast(x, computing(facts.dtype)), matrices), facts.dtype)

    return rule


def _adaptive_mean_backward(spatial: int) -> Rule:
    def rule(facts: Facts, grad: Array, x: Array) -> Array:
        pairs = zip(x.shape[-spatial:], grad.shape[-spatial:], strict=True)
        matrices = [_mean_weights(a, b).T for a, b in pairs]
        return cast(_applied(cast(grad, computing(facts.dtype)), matrices), facts.dtype)

    return rule


def _positions(size: int, count: int, scale: float | None, aligned: bool) -> NDArray[numpy.floating[Any]]:
    """Returns the position in the input of each output, as `area_pixel_compute_source_index` of torch."""
    places = numpy.arange(count)
    if aligned:
        return places * ((size - 1) / (count - 1) if count > 1 else 0.0)
    step = 1 / scale if scale is not None and scale > 0 else size / count
    return (places + 0.5) * step - 0.5


def _weighted(size: int, count: int, taps: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> Matrix:
    """Returns a matrix from the input and the weight of each tap; positions outside take the edge."""
    found = numpy.zeros((count, size))
    for place, weight in taps:
        numpy.add.at(found, (numpy.arange(count), numpy.clip(place, 0, size - 1)), weight)
    return found


def _linear(size: int, count: int, scale: float | None, aligned: bool) -> Matrix:
    position = numpy.maximum(_positions(size, count, scale, aligned), 0)
    left = numpy.minimum(numpy.floor(position).astype(int), size - 1)
    share = numpy.where(left == size - 1, 0.0, position - left)
    return _weighted(size, count, [(left, 1 - share), (left + 1, share)])


def _cubic(size: int, count: int, scale: float | None, aligned: bool) -> Matrix:
    position = _positions(size, count, scale, aligned)
    left = numpy.floor(position).astype(int)
    share = position - left
    return _weighted(size, count, [(left + k - 1, cubic_weight(numpy.abs(share - (k - 1)))) for k in range(4)])


def cubic_weight(distance: Any) -> Any:
    """Returns the weight of a sample at a distance up to 2. Source: Keys 1981, with a = -0.75."""
    a = -0.75
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((distance - 5) * distance + 8) * distance * a - 4 * a
    module = jnp if isinstance(distance, Array) else numpy
    return module.where(distance <= 1, near, far)


def _nearest(exact: bool) -> Weights:
    def weights(size: int, count: int, scale: float | None, _aligned: bool) -> Matrix:
        step = numpy.float32(1 / scale if scale is not None and scale > 0 else numpy.float32(size) / count)
        places = numpy.arange(count, dtype=numpy.float32) + numpy.float32(0.5 if exact else 0)
        chosen = numpy.minimum(numpy.floor(places * step).astype(int), size - 1)
        return _weighted(size, count, [(chosen, numpy.ones(count))])

    return weights


def _matrices(
    weights: Weights, sizes: Sequence[int], counts: Sequence[int], aligned: bool, scales: Sequence[float | None]
) -> list[Matrix]:
    found = zip(sizes, counts, scales, strict=True)
    return [weights(size, count, scale, aligned) for size, count, scale in found]


def _resized(weights: Weights) -> Rule:
    def rule(facts: Facts, x: Array, size: Sequence[int], *options: Any) -> Array:
        aligned, scales = _options(options, len(size))
        matrices = _matrices(weights, x.shape[2:], size, aligned, scales)
        return cast(_applied(cast(x, computing(facts.dtype)), matrices), facts.dtype)

    return rule


def _resized_backward(weights: Weights) -> Rule:
    def rule(facts: Facts, grad: Array, size: Sequence[int], input_size: Sequence[int], *options: Any) -> Array:
        aligned, scales = _options(options, len(size))
        matrices = [each.T for each in _matrices(weights, input_size[2:], size, aligned, scales)]
        return cast(_applied(cast(grad, computing(facts.dtype)), matrices), facts.dtype)

    return rule


def _options(options: Sequence[Any], count: int) -> tuple[bool, Sequence[float | None]]:
    """Returns `align_corners`, which nearest neighbours lack, and the scales."""
    return (options[0] if len(options) > count else False), options[-count:]


def _padded_backward(facts: Facts, grad: Array, _x: Array, padding: Sequence[int]) -> Array:
    """The gradient of padding with the edge: the gradients of all copies, summed."""
    spatial = len(padding) // 2
    matrices = []
    for place, size in enumerate(facts.shape[-spatial:]):
        low = padding[2 * (spatial - 1 - place)]
        count = grad.shape[grad.ndim - spatial + place]
        chosen = numpy.clip(numpy.arange(count) - low, 0, size - 1)
        matrices.append(_weighted(size, count, [(chosen, numpy.ones(count))]).T)
    return cast(_applied(cast(grad, computing(facts.dtype)), matrices), facts.dtype)


_KINDS: Mapping[str, Weights] = {
    "upsample_linear1d": _linear,
    "upsample_bilinear2d": _linear,
    "upsample_trilinear3d": _linear,
    "upsample_bicubic2d": _cubic,
    **{f"upsample_nearest{count}d": _nearest(exact=False) for count in (1, 2, 3)},
    **{f"_upsample_nearest_exact{count}d": _nearest(exact=True) for count in (1, 2, 3)},
}

RULES: Mapping[str, Rule] = {
    **{f"aten.{name}.default": _resized(weights) for name, weights in _KINDS.items()},
    **{f"aten.{name}_backward.default": _resized_backward(weights) for name, weights in _KINDS.items()},
    **{f"aten.replication_pad{count}d_backward.default": _padded_backward for count in (1, 2, 3)},
    "aten._adaptive_avg_pool2d.default": _adaptive_mean(2),
    "aten._adaptive_avg_pool2d_backward.default": _adaptive_mean_backward(2),
    "aten._adaptive_avg_pool3d.default": _adaptive_mean(3),
    "aten._adaptive_avg_pool3d_backward.default": _adaptive_mean_backward(3),
    "aten.adaptive_avg_pool1d.default": _adaptive_mean(1),
}
