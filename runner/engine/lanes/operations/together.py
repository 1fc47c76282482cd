"""Computes an operation for all lanes at once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from runner.engine.lanes.operations.tensor import LaneTensor, lane_count

aten = torch.ops.aten
Args = tuple[Any, ...]
Options = Mapping[str, Any]
Together = Callable[[Any, Args, Options], Any]

_functorch: Any = torch._C._functorch  # has no types
_INCLUDED = torch._C._dispatch_tls_local_include_set()
_EXCLUDED = torch._C._dispatch_tls_local_exclude_set()
_MODES = torch._C.DispatchKeySet(torch._C.DispatchKey.Python) | torch._C.DispatchKeySet(
    torch._C.DispatchKey.PythonTLSSnapshot
)


class Unlike(Exception):
    """The operation cannot be computed for all lanes at once."""


def pointwise(operation: Any, args: Args, options: Options) -> Any:
    """An operation on each element: the lanes are one more dimension in front.

    Raises:
        Unlike: torch would choose another dtype for the result, because a 0-d tensor has a dimension now.
    """
    tensors = [value for value in args if isinstance(value, Tensor)]
    rank = max([tensor.dim() for tensor in tensors])
    flat = [value.lanes if isinstance(value, LaneTensor) else value for value in args]
    if len(tensors) > 1:
        dtypes = {tensor.dtype for tensor in tensors if tensor.dtype is not torch.bool}
        if len(dtypes) > 1 and any(tensor.dim() == 0 for tensor in tensors):
            raise Unlike
        return LaneTensor(operation(*[_raised(value, rank) for value in args], **options))
    return LaneTensor(operation(*flat, **options))


def _raised(value: Any, rank: int) -> Any:
    if not isinstance(value, LaneTensor):
        return value
    lanes = value.lanes
    missing = rank + 1 - lanes.dim()
    return lanes if not missing else lanes.reshape(len(lanes), *[1] * missing, *lanes.shape[1:])


def mapped(operation: Any, args: Args, options: Options) -> Any:
    """Any operation, by the rules of `torch.vmap`.

    Raises:
        Unlike: `torch.vmap` has no rule for the operation.
    """
    stacks = [value.lanes for value in _leaves(args) if isinstance(value, LaneTensor)]
    absent: list[int] = []
    single = True

    def one(*given: Tensor) -> tuple[Tensor, ...]:
        nonlocal single
        found = operation(*_filled(args, iter(given)), **options)
        single = isinstance(found, Tensor)
        results = (found,) if single else tuple(found)
        absent[:] = [place for place, result in enumerate(results) if result is None]
        return tuple(result for result in results if result is not None)

    try:
        with _undisturbed():
            results = list(torch.vmap(one)(*stacks))
    except (RuntimeError, ValueError, TypeError) as error:
        raise Unlike from error
    if single:
        return LaneTensor(results[0])
    found: list[Any] = [LaneTensor(result) for result in results]
    for place in absent:
        found.insert(place, None)
    return tuple(found)


def _leaves(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _leaves(value)
        else:
            yield value


def _filled(values: Any, given: Iterator[Tensor]) -> Any:
    return type(values)(
        next(given)
        if isinstance(value, LaneTensor)
        else _filled(value, given)
        if isinstance(value, list | tuple)
        else value
        for value in values
    )


@contextmanager
def _undisturbed() -> Iterator[None]:
    """The state in which `torch.vmap` works: a handler runs below autograd, where its dispatch keys are off."""
    _functorch._set_vmap_fallback_enabled(False)
    try:
        included = _INCLUDED | _MODES if torch._C._len_torch_dispatch_stack() else _INCLUDED  # `Tape` is a mode
        with torch._C._ForceDispatchKeyGuard(included, _EXCLUDED), torch.no_grad():
            yield
    finally:
        _functorch._set_vmap_fallback_enabled(True)


# --- operations that only look at the memory in another way


def _shifted(dim: int, rank: int) -> int:
    return dim + 1 if dim >= 0 else dim + rank + 1


def _same(lanes: Tensor) -> Tensor:
    return lanes.detach()


def _t(lanes: Tensor) -> Tensor:
    return lanes.transpose(1, 2) if lanes.dim() == 3 else lanes.detach()


def _transpose(lanes: Tensor, first: int, second: int) -> Tensor:
    rank = lanes.dim() - 1
    return lanes.transpose(_shifted(first, rank), _shifted(second, rank)) if rank else lanes.detach()


def _permute(lanes: Tensor, dims: list[int]) -> Tensor:
    rank = lanes.dim() - 1
    return lanes.permute(0, *[_shifted(dim, rank) for dim in dims])


def _view(lanes: Tensor, size: list[int]) -> Tensor:
    return lanes.view(len(lanes), *size)


def _expand(lanes: Tensor, size: list[int], *, implicit: bool = False) -> Tensor:
    missing = len(size) + 1 - lanes.dim()
    return lanes.view(len(lanes), *[1] * missing, *lanes.shape[1:]).expand(len(lanes), *size)


def _unsqueeze(lanes: Tensor, dim: int) -> Tensor:
    return lanes.unsqueeze(_shifted(dim, lanes.dim()))


def _squeeze(lanes: Tensor, dim: int | list[int]) -> Tensor:
    rank = lanes.dim() - 1
    dims = [dim] if isinstance(dim, int) else dim
    return lanes.squeeze([_shifted(each, rank) for each in dims]) if rank else lanes.detach()


def _select(lanes: Tensor, dim: int, index: int) -> Tensor:
    return lanes.select(_shifted(dim, lanes.dim() - 1), index)


def _slice(lanes: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Tensor:
    found: Tensor = aten.slice.Tensor(lanes, _shifted(dim, lanes.dim() - 1), start, end, step)
    return found


VIEWS: Mapping[Any, Callable[..., Tensor]] = {
    aten.detach.default: _same,
    aten.alias.default: _same,
    aten.t.default: _t,
    aten.transpose.int: _transpose,
    aten.permute.default: _permute,
    aten.view.default: _view,
    aten._unsafe_view.default: _view,
    aten.expand.default: _expand,
    aten.unsqueeze.default: _unsqueeze,
    aten.squeeze.dim: _squeeze,
    aten.squeeze.dims: _squeeze,
    aten.select.int: _select,
    aten.slice.Tensor: _slice,
}
"""Operations that compute nothing: each lane's result is a view of its memory."""


# --- operations whose rule here is shorter than that of `torch.vmap`


def _sum(lanes: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
    return lanes.reshape(len(lanes), -1).sum(1, dtype=dtype)


def _sum_dims(lanes: Tensor, dims: list[int] | None, keep: bool = False, *, dtype: torch.dtype | None = None) -> Tensor:
    rank = lanes.dim() - 1
    if not dims or not rank:
        raise Unlike
    return lanes.sum([_shifted(dim, rank) for dim in dims], keep, dtype=dtype)


def _mean(lanes: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
    return lanes.reshape(len(lanes), -1).mean(1, dtype=dtype)


REDUCTIONS: Mapping[Any, Callable[..., Tensor]] = {
    aten.sum.default: _sum,
    aten.sum.dim_IntList: _sum_dims,
    aten.mean.default: _mean,
}


def reduction(operation: Any, args: Args, options: Options) -> Any:
    """A sum or mean within each lane."""
    value, *rest = args
    return LaneTensor(REDUCTIONS[operation](value.lanes, *rest, **options))


def matrix_product(operation: Any, args: Args, options: Options) -> Any:
    """The product of two matrices in each lane."""
    first, second = map(_batch, args, (lane_count(args),) * 2)
    return LaneTensor(torch.bmm(first, second))


def matrix_product_and_sum(operation: Any, args: Args, options: Options) -> Any:
    """A matrix plus the product of two matrices in each lane, as one operation."""
    count = lane_count(args)
    added, first, second = args
    lanes = added.lanes if isinstance(added, LaneTensor) else added.expand(count, *added.shape)
    if lanes.dim() == 2:
        lanes = lanes.unsqueeze(1)
    return LaneTensor(torch.baddbmm(lanes, _batch(first, count), _batch(second, count), **options))


def _batch(value: Tensor, count: int) -> Tensor:
    return value.lanes if isinstance(value, LaneTensor) else value.expand(count, *value.shape)


@functools.cache
def rule_for(operation: Any) -> Together:
    """How to compute an operation for all lanes at once."""
    if operation in REDUCTIONS:
        return reduction
    if operation is aten.mm.default:
        return matrix_product
    if operation is aten.addmm.default:
        return matrix_product_and_sum
    if torch.Tag.pointwise in operation.tags:
        return pointwise
    return mapped
