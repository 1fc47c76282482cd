"""The bits of a tensor, and a short digest of them."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from runner.language.dtypes import dtype_name
from runner.plan.rows.columns import DIGEST_BYTES

_INTEGER_OF_WIDTH = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def bits(tensor: Tensor) -> Tensor:
    """The elements `(*s)` as integers of the same width; a complex tensor has a trailing axis of 2."""
    tensor = tensor.detach().resolve_conj().resolve_neg()
    if tensor.dtype.is_complex:
        tensor = torch.view_as_real(tensor)
    return tensor.contiguous().view(_INTEGER_OF_WIDTH[tensor.dtype.itemsize])


def digest_of(tensor: Tensor) -> str:
    """16 hexadecimal digits of the SHA-256 of a tensor's dtype, shape and bytes in row-major order.

    The bytes follow a line such as `float32 [64, 128]`.
    """
    digest = hashlib.sha256(f"{dtype_name(tensor.dtype)} {list(tensor.shape)}\n".encode())
    digest.update(bits(tensor.cpu()).numpy().tobytes())
    return digest.hexdigest()[: 2 * DIGEST_BYTES]
