"""Passes tensors between torch and JAX without a copy."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

Memory = tuple[int, torch.Size, torch.dtype]
"""An address and what lies there: contiguous tensors of the same memory have the same numbers."""


class Exchange:
    """Passes tensors to JAX and its results back, without a copy of either.

    A result often goes into the next call, as the weights of one iteration go into the next. JAX takes 20 to 45 µs to
    share the memory of a tensor, so the arrays of the last results are kept for that call.
    """

    def __init__(self) -> None:
        self._arrays: dict[Memory, jax.Array] = {}

    def to_jax(self, tensors: Sequence[Tensor]) -> list[jax.Array]:
        """Arrays that share the memory of tensors. The caller does not write it while JAX reads."""
        kept = [self._arrays.get(_memory(tensor)) if _is_plain(tensor) else None for tensor in tensors]
        return [_shared(tensor) if array is None else array for tensor, array in zip(tensors, kept, strict=True)]

    def to_torch(self, arrays: Sequence[jax.Array], before: Sequence[Tensor]) -> list[Tensor]:
        """Tensors that share the memory of results, which no one else reads.

        Args:
            before: the inputs. JAX hands on an input that it returns unchanged; that result is copied.
        """
        found = to_torch(arrays)
        self._arrays = {}
        for place, (tensor, array, given) in enumerate(zip(found, arrays, before, strict=True)):
            if tensor.data_ptr() == given.data_ptr() and tensor.numel():
                found[place] = tensor.clone()
            elif tensor.device.type == "cpu":  # elsewhere torch and JAX have to wait for each other
                self._arrays[_memory(tensor)] = array
        return found


def to_torch(arrays: Sequence[jax.Array]) -> list[Tensor]:
    """Tensors that share the memory of arrays, which nothing else may read afterwards."""
    return [from_dlpack(array) for array in arrays]


def _shared(tensor: Tensor) -> jax.Array:
    array: jax.Array = jax.dlpack.from_dlpack(tensor.detach().resolve_conj().resolve_neg().contiguous())
    return array


def _is_plain(tensor: Tensor) -> bool:
    """Whether the memory of a tensor holds its elements in order, as they are."""
    return tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg()


def _memory(tensor: Tensor) -> Memory:
    return tensor.data_ptr(), tensor.shape, tensor.dtype


def padded(value: Tensor, length: int) -> Tensor:
    """A stack of `length` entries that begins with those of `value`; nothing reads the others."""
    count = value.shape[0]
    if count == length:
        return value
    room = torch.empty((length, *value.shape[1:]), dtype=value.dtype, device=value.device)
    room[:count] = value
    return room
