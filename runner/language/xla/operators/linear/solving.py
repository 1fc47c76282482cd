"""Solutions of linear systems, inverses, determinants, functions of matrices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import jax.scipy.linalg
import numpy
from jax import lax

from runner.language.xla.operators.facts import Array, Facts, Rule, cast, computing
from runner.language.xla.operators.linear.factors import adjoint, factored_transposed, lu, permutation
from runner.language.xla.operators.linear.products import product


def triangular(a: Array, b: Array, *, upper: bool, left: bool = True, unit: bool = False, dual: bool = False) -> Array:
    """Solves `a x = b`, or `x a = b` without `left`; with the conjugate transpose of `a` if `dual`."""
    batch = jnp.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = (jnp.broadcast_to(x, (*batch, *x.shape[-2:])) for x in (a, b))
    if not b.size or not a.size:
        return b
    return lax.linalg.triangular_solve(
        a, b, left_side=left, lower=not upper, transpose_a=dual, conjugate_a=dual, unit_diagonal=unit
    )


def _solve_triangular(_facts: Facts, a: Array, b: Array, upper: bool, left: bool, unit: bool) -> Array:
    return triangular(a, b, upper=upper, left=left, unit=unit)


def _triangular_solve(
    _facts: Facts, b: Array, a: Array, upper: bool, transpose: bool, unit: bool
) -> tuple[Array, Array]:
    matrix = jnp.swapaxes(a, -1, -2) if transpose else a
    found = triangular(matrix, b, upper=upper != transpose, unit=unit)
    return found, jnp.broadcast_to(a, (*found.shape[:-2], *a.shape[-2:]))


def solved(factor: Array, pivots: Array, b: Array, *, dual: bool) -> Array:
    """Solves `a x = b` from the LU factors of `a`; with the conjugate transpose of `a` if `dual`."""
    size = factor.shape[-1]
    batch = jnp.broadcast_shapes(factor.shape[:-2], b.shape[:-2])
    if not size or not b.size:
        return jnp.broadcast_to(b, (*batch, *b.shape[-2:]))
    order = permutation(pivots, size)
    order = jnp.broadcast_to(order, (*batch, size))[..., None]
    b = jnp.broadcast_to(b, (*batch, *b.shape[-2:]))
    if dual:
        inner = triangular(factor, b, upper=True, dual=True)
        inner = triangular(factor, inner, upper=False, unit=True, dual=True)
        return jnp.take_along_axis(inner, jnp.argsort(order, -2), -2)
    inner = triangular(factor, jnp.take_along_axis(b, order, -2), upper=False, unit=True)
    return triangular(factor, inner, upper=True)


def _lu_solve(facts: Facts, factor: Array, pivots: Array, b: Array, left: bool, dual: bool) -> Array:
    if left:
        return solved(factor, pivots, b, dual=dual)
    return adjoint(solved(factor, pivots, adjoint(b), dual=not dual))


def _factored(facts: Facts, a: Array) -> tuple[Array, Array]:
    """Returns LU and pivots of a matrix, or of its transpose where torch factors that for a determinant."""
    factor, pivots, _ = lu(jnp.swapaxes(a, -1, -2) if factored_transposed(facts.arguments[0]) else a)
    return factor, pivots


def _solve_ex(facts: Facts, a: Array, b: Array, left: bool, _check: bool) -> tuple[Array, Array, Array, Array]:
    factor, pivots, info = lu(a)
    vector = b.ndim == 1 or (b.ndim == a.ndim - 1 and b.shape == a.shape[:-1])
    sides = b[..., None] if vector else b
    if left or vector:
        found = solved(factor, pivots, sides, dual=False)
    else:
        found = adjoint(solved(factor, pivots, adjoint(sides), dual=True))
    return found[..., 0] if vector else found, factor, pivots, info


def _inverse(_facts: Facts, a: Array, _check: bool) -> tuple[Array, Array]:
    factor, pivots, info = lu(a)
    unit = jnp.broadcast_to(jnp.eye(a.shape[-1], dtype=a.dtype), a.shape)
    return solved(factor, pivots, unit, dual=False), info


def _parity(pivots: Array) -> Array:
    """Returns -1 for an odd number of exchanged rows, else 1."""
    swapped = jnp.sum(pivots != jnp.arange(1, pivots.shape[-1] + 1), -1)
    return 1 - 2 * (swapped % 2)


def _det(facts: Facts, a: Array) -> tuple[Array, Array, Array]:
    factor, pivots = _factored(facts, a)
    diagonal = jnp.diagonal(factor, axis1=-2, axis2=-1)
    return _parity(pivots).astype(a.dtype) * jnp.prod(diagonal, -1), factor, pivots


def _slogdet(facts: Facts, a: Array) -> tuple[Array, Array, Array, Array]:
    factor, pivots = _factored(facts, a)
    diagonal = jnp.diagonal(factor, axis1=-2, axis2=-1)
    size = jnp.abs(diagonal)
    signs = jnp.where(size == 0, 0, diagonal / jnp.where(size == 0, 1, size))
    sign = _parity(pivots).astype(a.dtype) * jnp.prod(signs, -1)
    return sign, jnp.sum(jnp.log(size), -1), factor, pivots


def _cholesky_solve(_facts: Facts, b: Array, factor: Array, upper: bool) -> Array:
    inner = triangular(factor, b, upper=upper, dual=upper)
    return triangular(factor, inner, upper=upper, dual=not upper)


def _cholesky_inverse(facts: Facts, factor: Array, upper: bool) -> Array:
    return _cholesky_solve(
        facts, jnp.broadcast_to(jnp.eye(factor.shape[-1], dtype=factor.dtype), factor.shape), factor, upper
    )


def _pseudoinverse(a: Array, absolute: Array, relative: Array, hermitian: bool) -> Array:
    if not a.size:
        return jnp.zeros((*a.shape[:-2], a.shape[-1], a.shape[-2]), a.dtype)
    if hermitian:
        values, vectors = jnp.linalg.eigh(a, symmetrize_input=False)
        size = jnp.abs(values)
        u, vh = vectors, adjoint(vectors)
    else:
        u, values, vh = jnp.linalg.svd(a, full_matrices=False)
        size = values
    limit = jnp.maximum(absolute, relative * jnp.max(size, -1))[..., None]
    inverse = jnp.where(size > limit, 1 / jnp.where(size > limit, values, 1), 0)
    return product(adjoint(vh) * inverse[..., None, :], adjoint(u))


def _pinv(_facts: Facts, a: Array, absolute: Array | None, relative: Array | None, hermitian: bool) -> Array:
    zero = jnp.zeros((), numpy.finfo(a.dtype).dtype)
    if relative is None:
        default = max(a.shape[-2:]) * numpy.finfo(a.dtype).eps
        relative = zero + default if absolute is None else jnp.where(absolute > 0, 0, default).astype(zero.dtype)
    return _pseudoinverse(a, zero if absolute is None else absolute, relative, hermitian)


def _lstsq(facts: Facts, a: Array, b: Array, limit: float | None, driver: str | None) -> tuple[Array, ...]:
    rows, columns = a.shape[-2:]
    zero = jnp.zeros((), numpy.finfo(a.dtype).dtype)
    relative = numpy.finfo(a.dtype).eps * max(rows, columns) if limit is None else limit
    vector = b.ndim == a.ndim - 1
    sides = b[..., None] if vector else b
    found = product(_pseudoinverse(a, zero, zero + relative, False), sides)
    values = jnp.linalg.svd(a, compute_uv=False)
    rank = jnp.sum(values > relative * values[..., :1], -1).astype(jnp.int64)
    residual = jnp.sum(jnp.abs(product(a, found) - sides) ** 2, -2)
    others = facts.results[1:]
    shapes = [tuple(each.shape) if each is not None else () for each in others]
    return (
        found[..., 0] if vector else found,
        residual.reshape(shapes[0]) if 0 not in shapes[0] else jnp.zeros(shapes[0], zero.dtype),
        rank.reshape(shapes[1]) if 0 not in shapes[1] else jnp.zeros(shapes[1], jnp.int64),
        values.reshape(shapes[2]) if 0 not in shapes[2] else jnp.zeros(shapes[2], zero.dtype),
    )


def _exponential(facts: Facts, a: Array) -> Any:
    return cast(jax.scipy.linalg.expm(cast(a, computing(facts.dtype))), facts.dtype) if a.size else a


RULES: Mapping[str, Rule] = {
    "aten._linalg_det.default": _det,
    "aten._linalg_slogdet.default": _slogdet,
    "aten._linalg_solve_ex.default": _solve_ex,
    "aten.cholesky_inverse.default": _cholesky_inverse,
    "aten.cholesky_solve.default": _cholesky_solve,
    "aten.linalg_inv_ex.default": _inverse,
    "aten.linalg_lstsq.default": _lstsq,
    "aten.linalg_lu_solve.default": _lu_solve,
    "aten.linalg_matrix_exp.default": _exponential,
    "aten.linalg_pinv.atol_rtol_tensor": _pinv,
    "aten.linalg_solve_triangular.default": _solve_triangular,
    "aten.triangular_solve.default": _triangular_solve,
}
