"""Views, copies of views, joins, padding and new tensors."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy
from jax import lax
from torch import Tensor

from runner.language.xla.operators.facts import DTYPES, Array, Facts, Rule, cast, dimensions, positive


def _same(_facts: Facts, x: Array) -> Array:
    return x


def _view(facts: Facts, x: Array, *_size: Any) -> Array:
    return x.reshape(facts.shape)


def _view_as_dtype(facts: Facts, x: Array) -> Array:
    source = facts.arguments[0].dtype
    if source.itemsize == facts.dtype.itemsize:
        return lax.bitcast_convert_type(x, DTYPES[facts.dtype])
    if source.itemsize < facts.dtype.itemsize:
        x = x.reshape(*x.shape[:-1], -1, facts.dtype.itemsize // source.itemsize)
    return lax.bitcast_convert_type(x, DTYPES[facts.dtype]).reshape(facts.shape)


def _expand(facts: Facts, x: Array, *_size: Any) -> Array:
    return jnp.broadcast_to(x, facts.shape)


def _permute(_facts: Facts, x: Array, dims: Sequence[int]) -> Array:
    return jnp.transpose(x, dimensions(dims, x.ndim)) if x.ndim else x


def _transpose(_facts: Facts, x: Array, first: int, second: int) -> Array:
    return jnp.swapaxes(x, first, second) if x.ndim else x


def _t(_facts: Facts, x: Array) -> Array:
    return x.T


def section(x: Array, dim: int, start: int | None, end: int | None, step: int) -> tuple[slice, ...]:
    """Returns the index of `slice(x, dim, start, end, step)`."""
    return (slice(None),) * positive(dim, x.ndim) + (slice(start, end, step),)


def _slice(_facts: Facts, x: Array, dim: int, start: int | None, end: int | None, step: int) -> Array:
    return x[section(x, dim, start, end, step)]


def _slice_scatter(
    facts: Facts, x: Array, source: Array, dim: int, start: int | None, end: int | None, step: int
) -> Array:
    return x.at[section(x, dim, start, end, step)].set(cast(source, facts.dtype))


def _select(_facts: Facts, x: Array, dim: int, index: int) -> Array:
    return x[(slice(None),) * positive(dim, x.ndim) + (index,)]


def _select_scatter(facts: Facts, x: Array, source: Array, dim: int, index: int) -> Array:
    return x.at[(slice(None),) * positive(dim, x.ndim) + (index,)].set(cast(source, facts.dtype))


def _narrow(_facts: Facts, x: Array, dim: int, start: int, length: int) -> Array:
    start = start if start >= 0 else start + x.shape[dim]
    return x[section(x, dim, start, start + length, 1)]


def _diagonal(_facts: Facts, x: Array, offset: int, first: int, second: int) -> Array:
    found: Array = jnp.diagonal(x, offset, first, second)
    return found


def _diagonal_scatter(facts: Facts, x: Array, source: Array, offset: int, first: int, second: int) -> Array:
    places = _flat_places(x.shape)
    chosen = numpy.diagonal(places, offset, first, second)
    return _written(facts, x, source, chosen)


def _flat_places(shape: Sequence[int]) -> Any:
    return numpy.arange(numpy.prod(shape, dtype=numpy.int64)).reshape(shape)


def _written(facts: Facts, x: Array, source: Array, places: Any) -> Array:
    """Writes `source` at places of the flattened `x`."""
    return x.reshape(-1).at[places].set(cast(source, facts.dtype)).reshape(x.shape)


def _strided(base: Tensor, size: Sequence[int], stride: Sequence[int], offset: int | None) -> Any:
    """Returns which elements of a tensor, flattened, a strided view of its memory shows."""
    first = base.storage_offset() if offset is None else offset
    place: Any = numpy.zeros((), numpy.int64)
    for length, step in zip(base.shape, base.stride(), strict=True):
        place = place[..., None] + numpy.arange(length) * step
    memory = dict(zip((place.reshape(-1) + base.storage_offset()).tolist(), range(place.size), strict=True))
    wanted: Any = numpy.full((), first, numpy.int64)
    for length, step in zip(size, stride, strict=True):
        wanted = wanted[..., None] + numpy.arange(length) * step
    return numpy.array([memory[each] for each in wanted.reshape(-1).tolist()], numpy.int64).reshape(wanted.shape)


def _as_strided(facts: Facts, x: Array, size: Sequence[int], stride: Sequence[int], offset: int | None) -> Array:
    return x.reshape(-1)[_strided(facts.arguments[0], size, stride, offset)]


def _as_strided_scatter(
    facts: Facts, x: Array, source: Array, size: Sequence[int], stride: Sequence[int], offset: int | None
) -> Array:
    return _written(facts, x, source, _strided(facts.arguments[0], size, stride, offset))


def _split(facts: Facts, x: Array, _sizes: Any, dim: int) -> tuple[Array, ...]:
    lengths = [part.shape[dim] for part in facts.results if part is not None]
    ends = numpy.cumsum([0, *lengths])
    return tuple(x[section(x, dim, int(a), int(b), 1)] for a, b in itertools.pairwise(ends))


def _unbind(_facts: Facts, x: Array, dim: int) -> tuple[Array, ...]:
    return tuple(jnp.moveaxis(x, dim, 0)[place] for place in range(x.shape[dim]))


def _unfold(_facts: Facts, x: Array, dim: int, size: int, step: int) -> Array:
    if not x.ndim:
        return x.reshape(1)[:size]
    dim = positive(dim, x.ndim)
    starts = numpy.arange(0, x.shape[dim] - size + 1, step)
    taken = jnp.take(x, starts[:, None] + numpy.arange(size), dim)
    return jnp.moveaxis(taken, dim + 1, -1)


def _cat(facts: Facts, parts: Sequence[Array], dim: int) -> Array:
    """An empty vector joins tensors of any shape, as in torch."""
    kept = [cast(part, facts.dtype) for part in parts if part.shape != (0,)]
    return jnp.concatenate(kept, dim) if kept else jnp.zeros(facts.shape, DTYPES[facts.dtype])


def _repeat(facts: Facts, x: Array, repeats: Sequence[int]) -> Array:
    return jnp.tile(x.reshape((1,) * (len(repeats) - x.ndim) + x.shape), repeats)


def _flip(_facts: Facts, x: Array, dims: Sequence[int]) -> Array:
    return jnp.flip(x, [positive(dim, x.ndim) for dim in dims]) if x.ndim and dims else x


def _pad(facts: Facts, x: Array, widths: Sequence[int], value: Any) -> Array:
    """A negative width cuts."""
    pairs = [(0, 0, 0)] * (x.ndim - len(widths) // 2)
    for place in range(len(widths) - 2, -1, -2):
        pairs.append((widths[place], widths[place + 1], 0))
    return lax.pad(x, cast(value, facts.dtype), pairs)


def _full(facts: Facts, *arguments: Any) -> Array:
    return jnp.full(facts.shape, cast(arguments[-1], facts.dtype))


def _empty(facts: Facts, *_arguments: Any) -> Array:
    """The contents are undefined in torch, zero here."""
    return jnp.zeros(facts.shape, DTYPES[facts.dtype])


def _scalar(facts: Facts, value: Any) -> Array:
    return cast(value, facts.dtype)


def _arange(facts: Facts, start: Any, _end: Any, step: Any) -> Array:
    """Computed as torch does: integers in int64, others in float64."""
    count = facts.shape[0]
    whole = all(isinstance(value, int) for value in (start, step))
    kind = numpy.int64 if whole else numpy.float64
    return cast(jnp.asarray(numpy.arange(count).astype(kind) * step + start), facts.dtype)


def _triangle(upper: bool) -> Rule:
    def rule(facts: Facts, rows: int, columns: int, offset: int) -> Array:
        found = (numpy.triu_indices if upper else numpy.tril_indices)(rows, offset, columns)
        return cast(jnp.asarray(numpy.stack(found)), facts.dtype)

    return rule


def _copy(facts: Facts, _into: Array, source: Array, *_others: Any) -> Array:
    return jnp.broadcast_to(cast(source, facts.dtype), facts.shape)


def _as_real(_facts: Facts, x: Array) -> Array:
    return jnp.stack([lax.real(x), lax.imag(x)], -1)


def _as_complex(_facts: Facts, x: Array) -> Array:
    return lax.complex(x[..., 0], x[..., 1])


_VIEWS: Mapping[str, Rule] = {
    "alias": _same,
    "as_strided": _as_strided,
    "detach": _same,
    "diagonal": _diagonal,
    "expand": _expand,
    "permute": _permute,
    "t": _t,
    "unsqueeze": _view,
    "view": _view,
    "view_as_complex": _as_complex,
    "view_as_real": _as_real,
}

RULES: Mapping[str, Rule] = {
    **{f"aten.{name}{form}.default": rule for name, rule in _VIEWS.items() for form in ("", "_copy")},
    "aten._efficientzerotensor.default": _empty,
    "aten._unsafe_view.default": _view,
    "aten.arange.start_step": _arange,
    "aten.as_strided_scatter.default": _as_strided_scatter,
    "aten.cat.default": _cat,
    "aten.clone.default": _same,
    "aten.constant_pad_nd.default": _pad,
    "aten.copy.default": _copy,
    "aten.diagonal_scatter.default": _diagonal_scatter,
    "aten.empty.memory_format": _empty,
    "aten.empty_like.default": _empty,
    "aten.empty_permuted.default": _empty,
    "aten.empty_strided.default": _empty,
    "aten.fill.Scalar": _full,
    "aten.fill.Tensor": _full,
    "aten.flip.default": _flip,
    "aten.full.default": _full,
    "aten.full_like.default": _full,
    "aten.lift_fresh_copy.default": _same,
    "aten.narrow_copy.default": _narrow,
    "aten.new_empty_strided.default": _empty,
    "aten.repeat.default": _repeat,
    "aten.reshape.default": _view,
    "aten.scalar_tensor.default": _scalar,
    "aten.select.int": _select,
    "aten.select_copy.int": _select,
    "aten.select_scatter.default": _select_scatter,
    "aten.slice.Tensor": _slice,
    "aten.slice_copy.Tensor": _slice,
    "aten.slice_scatter.default": _slice_scatter,
    "aten.split.Tensor": _split,
    "aten.split_copy.Tensor": _split,
    "aten.split_with_sizes.default": _split,
    "aten.split_with_sizes_copy.default": _split,
    "aten.squeeze.default": _view,
    "aten.squeeze.dim": _view,
    "aten.squeeze.dims": _view,
    "aten.squeeze_copy.dims": _view,
    "aten.transpose.int": _transpose,
    "aten.transpose_copy.int": _transpose,
    "aten.tril_indices.default": _triangle(upper=False),
    "aten.triu_indices.default": _triangle(upper=True),
    "aten.unbind.int": _unbind,
    "aten.unbind_copy.int": _unbind,
    "aten.unfold.default": _unfold,
    "aten.unfold_copy.default": _unfold,
    "aten.unsqueeze_copy.default": _view,
    "aten.view.dtype": _view_as_dtype,
    "aten.view_copy.dtype": _view_as_dtype,
}
