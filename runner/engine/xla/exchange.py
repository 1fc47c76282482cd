"""Passes tensors between torch and JAX without a copy."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import torch
from torch import Tensor


def to_jax(tensors: Sequence[Tensor]) -> list[jax.Array]:
    """Arrays that share the memory of tensors. The caller leaves it alone while JAX reads."""
    return [jax.dlpack.from_dlpack(tensor.detach().contiguous()) for tensor in tensors]


def to_torch(arrays: Sequence[jax.Array]) -> list[Tensor]:
    """Tensors that share the memory of arrays, which nothing else may read afterwards."""
    return [torch.from_dlpack(array) for array in arrays]
