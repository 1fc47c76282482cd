"""Convolutions of any number of dimensions, transposed ones, and their gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from runner.language.xla.operators.facts import Array, Facts, Rule, cast, computing
from runner.language.xla.operators.linear.products import HIGHEST

Numbers = Sequence[int]


def spread(numbers: Numbers, count: int) -> tuple[int, ...]:
    """Returns one number for each dimension; a single number stands for all."""
    return tuple(numbers) * count if len(numbers) == 1 else tuple(numbers)


def convolved(
    x: Array,
    weight: Array,
    stride: Numbers,
    padding: Numbers,
    dilation: Numbers,
    transposed: bool,
    output_padding: Numbers,
    groups: int,
) -> Array:
    """Returns the convolution of `(N, C, *spatial)` without a bias."""
    count = x.ndim - 2
    stride, padding, dilation = (spread(each, count) for each in (stride, padding, dilation))
    if not transposed:
        pairs = [(each, each) for each in padding]
        return _general(x, weight, stride, pairs, (1,) * count, dilation, groups)
    kernel = weight.shape[2:]
    per_group = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    turned = jnp.swapaxes(per_group, 1, 2).reshape(-1, weight.shape[0] // groups, *kernel)
    turned = jnp.flip(turned, range(2, 2 + count))
    reach = [d * (k - 1) - p for d, k, p in zip(dilation, kernel, padding, strict=True)]
    more = spread(output_padding, count)
    pairs = [(each, each + extra) for each, extra in zip(reach, more, strict=True)]
    return _general(x, turned, (1,) * count, pairs, stride, dilation, groups)


def _general(
    x: Array,
    weight: Array,
    stride: Numbers,
    padding: Sequence[tuple[int, int]],
    spacing: Numbers,
    dilation: Numbers,
    groups: int,
) -> Array:
    return lax.conv_general_dilated(
        x,
        weight,
        stride,
        padding,
        lhs_dilation=spacing,
        rhs_dilation=dilation,
        feature_group_count=groups,
        precision=HIGHEST,
    )


def _convolution(facts: Facts, x: Array, weight: Array, bias: Array | None, *options: Any) -> Array:
    dtype = computing(facts.dtype)
    found = convolved(cast(x, dtype), cast(weight, dtype), *options)
    if bias is not None:
        found = found + cast(bias, dtype).reshape(-1, *(1,) * (x.ndim - 2))
    return cast(found, facts.dtype)


def _convolution_backward(
    facts: Facts, grad: Array, x: Array, weight: Array, _bias_sizes: Any, *options: Any
) -> tuple[Array | None, ...]:
    *how, wanted = options
    dtype = computing(facts.arguments[0].dtype)
    grad, x, weight = (cast(each, dtype) for each in (grad, x, weight))
    found: list[Array | None] = [None, None, None]
    if wanted[0]:
        (found[0],) = jax.linear_transpose(lambda each: convolved(each, jnp.conj(weight), *how), x)(grad)
    if wanted[1]:
        (found[1],) = jax.linear_transpose(lambda each: convolved(jnp.conj(x), each, *how), weight)(grad)
    if wanted[2]:
        found[2] = jnp.sum(grad, (0, *range(2, grad.ndim)))
    return tuple(
        None if each is None or result is None else cast(each, result.dtype)
        for each, result in zip(found, facts.results, strict=True)
    )


RULES: Mapping[str, Rule] = {
    "aten.convolution.default": _convolution,
    "aten.convolution_backward.default": _convolution_backward,
}
