"""Products of matrices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax
from torch import Tensor

from runner.language.xla.operators.facts import Array, Facts, Rule, cast, computing

HIGHEST = lax.Precision.HIGHEST
"""Products in the full precision of their dtype, on every device."""

COPIED = 256, 8192
"""Elements of a transposed first factor that is copied: a product of (64, 128) and (64, 64) then takes 6.2 instead of
7.7 µs, and one of (64, 10) and (64, 128) 1.1 instead of 1.7. Products of smaller or larger matrices take longer so."""


def product(x: Array, y: Array) -> Array:
    """Returns `x @ y`."""
    return jnp.matmul(x, y, precision=HIGHEST)


def _matmul(facts: Facts, x: Array, y: Array) -> Array:
    dtype = computing(facts.dtype)
    return cast(product(cast(x, dtype), cast(y, dtype)), facts.dtype)


def _mm(facts: Facts, x: Array, y: Array) -> Array:
    copied: Callable[[Array], Array] = lax.optimization_barrier
    return _matmul(facts, copied(x) if _is_small_transpose(facts.arguments[0]) else x, y)


def _is_small_transpose(x: Tensor) -> bool:
    """Whether a matrix is the view of a transposed one that XLA multiplies faster as a copy, on processors."""
    return x.stride(0) == 1 < x.stride(1) and COPIED[0] <= x.numel() <= COPIED[1]


def _added(facts: Facts, bias: Array, x: Array, y: Array, beta: Any, alpha: Any) -> Array:
    """`beta * bias + alpha * (x @ y)`; a `beta` of 0 ignores `bias`, even if it is NaN."""
    dtype = computing(facts.dtype)
    found = product(cast(x, dtype), cast(y, dtype))
    if alpha != 1:
        found = cast(alpha, dtype) * found
    if beta != 0:
        found = (cast(bias, dtype) if beta == 1 else cast(beta, dtype) * cast(bias, dtype)) + found
    return cast(jnp.broadcast_to(found, facts.shape), facts.dtype)


def _sum_of_products(facts: Facts, bias: Array, x: Array, y: Array, beta: Any, alpha: Any) -> Array:
    wide = jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1)
    return _added(facts, bias, wide, y.reshape(-1, y.shape[-1]), beta, alpha)


def _trilinear(
    facts: Facts,
    x: Array,
    y: Array,
    z: Array,
    expand_x: Sequence[int],
    expand_y: Sequence[int],
    expand_z: Sequence[int],
    over: Sequence[int],
    _unroll: int,
) -> Array:
    for dims, name in ((expand_x, "x"), (expand_y, "y"), (expand_z, "z")):
        for dim in sorted(dims):
            if name == "x":
                x = jnp.expand_dims(x, dim)
            elif name == "y":
                y = jnp.expand_dims(y, dim)
            else:
                z = jnp.expand_dims(z, dim)
    return jnp.sum(x * y * z, tuple(over))


def _dot(facts: Facts, x: Array, y: Array) -> Array:
    return _matmul(facts, x, y)


RULES: Mapping[str, Rule] = {
    "aten._trilinear.default": _trilinear,
    "aten.addbmm.default": _sum_of_products,
    "aten.addmm.default": _added,
    "aten.addmv.default": _added,
    "aten.baddbmm.default": _added,
    "aten.bmm.default": _matmul,
    "aten.dot.default": _dot,
    "aten.mm.default": _mm,
    "aten.mv.default": _matmul,
}
