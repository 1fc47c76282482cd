"""Factorisations: Cholesky, LU, QR, singular values and eigenvalues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import lax
from torch import Tensor

from runner.language.xla.operators.facts import Array, Facts, Refusal, Rule, cast


def adjoint(x: Array) -> Array:
    """Returns the conjugate transpose."""
    return jnp.conj(jnp.swapaxes(x, -1, -2))


def factored_transposed(matrix: Tensor) -> bool:
    """Returns whether torch factors the transpose of a matrix, which saves it a copy."""
    return matrix.is_contiguous() and not matrix.is_complex()


def lower_factor(x: Array, upper: bool) -> tuple[Array, Array]:
    """Returns Cholesky's lower factor, and 1 for each matrix that has none."""
    factor = lax.linalg.cholesky(adjoint(x) if upper else x, symmetrize_input=False) if x.size else x
    failed = jnp.isnan(jnp.diagonal(factor, axis1=-2, axis2=-1)).any(-1)
    return factor, failed.astype(jnp.int32)


def _cholesky_ex(_facts: Facts, x: Array, upper: bool, _check: bool) -> tuple[Array, Array]:
    factor, info = lower_factor(x, upper)
    return adjoint(factor) if upper else factor, info


def _cholesky(facts: Facts, x: Array, upper: bool) -> Array:
    factor, info = _cholesky_ex(facts, x, upper, True)
    facts.fails_if(info != 0)
    return factor


def lu(x: Array) -> tuple[Array, Array, Array]:
    """Returns LU, its pivots counted from 1, and the place from 1 of a pivot that is zero, or 0."""
    if not x.size:
        batch = x.shape[:-2]
        return x, jnp.zeros((*batch, min(x.shape[-2:])), jnp.int32), jnp.zeros(batch, jnp.int32)
    factor, pivots, _ = lax.linalg.lu(x)
    zero = jnp.diagonal(factor, axis1=-2, axis2=-1) == 0
    info = jnp.where(zero.any(-1), jnp.argmax(zero, -1) + 1, 0)
    return factor, pivots.astype(jnp.int32) + 1, info.astype(jnp.int32)


def permutation(pivots: Array, size: int) -> Array:
    """Returns the order of rows that pivots, counted from 1, make."""
    return lax.linalg.lu_pivots_to_permutation((pivots - 1).astype(jnp.int32), size)


def _lu_factor_ex(_facts: Facts, x: Array, _pivot: bool, _check: bool) -> tuple[Array, Array, Array]:
    return lu(x)


def _unpacked(factor: Array) -> tuple[Array, Array]:
    rows, columns = factor.shape[-2:]
    small = min(rows, columns)
    unit = jnp.eye(rows, small, dtype=factor.dtype)
    return jnp.tril(factor[..., :, :small], -1) + unit, jnp.triu(factor[..., :small, :])


def _permuting(pivots: Array, size: int, dtype: Any) -> Array:
    order = (
        permutation(pivots, size)
        if pivots.shape[-1]
        else jnp.broadcast_to(jnp.arange(size), (*pivots.shape[:-1], size))
    )
    return jnp.swapaxes(jnp.eye(size, dtype=dtype)[order], -1, -2)


def _lu(_facts: Facts, x: Array, _pivot: bool) -> tuple[Array, Array, Array]:
    factor, pivots, _ = lu(x)
    return (_permuting(pivots, x.shape[-2], x.dtype), *_unpacked(factor))


def _lu_unpack(facts: Facts, factor: Array, pivots: Array, data: bool, wants_pivots: bool) -> tuple[Array, ...]:
    nothing = jnp.zeros(0, factor.dtype)
    lower, upper = _unpacked(factor) if data else (nothing, nothing)
    return _permuting(pivots, factor.shape[-2], factor.dtype) if wants_pivots else nothing, lower, upper


def _refuse_no_pivots(place: int) -> Refusal:
    def refusal(facts: Facts) -> str | None:
        return None if facts.arguments[place] else "XLA factors matrices with pivots only"

    return refusal


def _qr(_facts: Facts, x: Array, mode: str) -> tuple[Array, Array]:
    if mode == "r":
        return jnp.zeros(0, x.dtype), jnp.linalg.qr(x, "r")
    q, r = jnp.linalg.qr(x, mode)
    return q, r


def _geqrf(_facts: Facts, x: Array) -> tuple[Array, Array]:
    if not x.size:
        return x, jnp.zeros((*x.shape[:-2], min(x.shape[-2:])), x.dtype)
    from jax._src.lax.linalg import geqrf

    factor, scales = geqrf(x)
    return factor, scales


def _householder_product(_facts: Facts, x: Array, scales: Array) -> Array:
    return lax.linalg.householder_product(x, scales) if x.size else x


def _ormqr(_facts: Facts, x: Array, scales: Array, other: Array, left: bool, transpose: bool) -> Array:
    return lax.linalg.ormqr(x, scales, other, left=left, transpose=transpose)


def _svd(facts: Facts, x: Array, full: bool, vectors: bool, _driver: Any) -> tuple[Array, Array, Array]:
    if vectors:
        u, values, vh = jnp.linalg.svd(x, full_matrices=full)
        return u, values, vh
    nothing = jnp.zeros(0, x.dtype)
    return nothing, jnp.linalg.svd(x, compute_uv=False), nothing


def _eigh(_facts: Facts, x: Array, triangle: str, vectors: bool) -> tuple[Array, Array]:
    values, found = jnp.linalg.eigh(x, triangle, symmetrize_input=False)
    return values, found if vectors else jnp.zeros(0, x.dtype)


def _eig(facts: Facts, x: Array) -> tuple[Array, Array]:
    values, vectors = jnp.linalg.eig(x)
    return cast(values, facts.dtype), cast(vectors, facts.dtype)


def _checked(facts: Facts, info: Array, _name: str, _is_matrix: bool) -> None:
    facts.fails_if(info != 0)


RULES: Mapping[str, Rule] = {
    "aten._linalg_check_errors.default": _checked,
    "aten._linalg_eigh.default": _eigh,
    "aten._linalg_svd.default": _svd,
    "aten.cholesky.default": _cholesky,
    "aten.geqrf.default": _geqrf,
    "aten.linalg_cholesky_ex.default": _cholesky_ex,
    "aten.linalg_eig.default": _eig,
    "aten.linalg_householder_product.default": _householder_product,
    "aten.linalg_lu.default": _lu,
    "aten.linalg_lu_factor_ex.default": _lu_factor_ex,
    "aten.linalg_qr.default": _qr,
    "aten.lu_unpack.default": _lu_unpack,
    "aten.ormqr.default": _ormqr,
}

REFUSALS: Mapping[str, Refusal] = {
    "aten.linalg_lu.default": _refuse_no_pivots(1),
    "aten.linalg_lu_factor_ex.default": _refuse_no_pivots(1),
}
