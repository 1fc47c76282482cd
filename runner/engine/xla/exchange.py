"""Passes tensors between torch and JAX without a copy."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack


def to_jax(tensors: Sequence[Tensor]) -> list[jax.Array]:
    """Arrays that share the memory of tensors. The caller does not write it while JAX reads."""
    return [jax.dlpack.from_dlpack(tensor.detach().resolve_conj().resolve_neg().contiguous()) for tensor in tensors]


def to_torch(arrays: Sequence[jax.Array]) -> list[Tensor]:
    """Tensors that share the memory of arrays, which nothing else may read afterwards."""
    return [from_dlpack(array) for array in arrays]


def own(after: Tensor, before: Tensor) -> Tensor:
    """Returns a result of JAX in memory of its own: JAX hands on an input that it returns unchanged."""
    return after.clone() if after.data_ptr() == before.data_ptr() and after.numel() else after


def padded(value: Tensor, length: int) -> Tensor:
    """A stack of `length` entries that begins with those of `value`; nothing reads the others."""
    count = value.shape[0]
    if count == length:
        return value
    room = torch.empty((length, *value.shape[1:]), dtype=value.dtype, device=value.device)
    room[:count] = value
    return room
