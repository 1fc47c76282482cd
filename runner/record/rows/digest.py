"""The bits of a tensor, and a short digest of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

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
    digest = _begun(tensor.dtype, tensor.shape)
    digest.update(bits(tensor.cpu()).numpy().tobytes())
    return digest.hexdigest()[: 2 * DIGEST_BYTES]


def digests_of(tensors: Tensor) -> Iterator[str]:
    """Yields `digest_of` of each of some stacked tensors `(rows, *s)`, which have elements."""
    begun = _begun(tensors.dtype, tensors.shape[1:])
    content = memoryview(bits(tensors.cpu()).numpy().tobytes())
    size = len(content) // len(tensors)
    for start in range(0, len(content), size):
        digest = begun.copy()
        digest.update(content[start : start + size])
        yield digest.hexdigest()[: 2 * DIGEST_BYTES]


def _begun(dtype: torch.dtype, shape: Sequence[int]) -> hashlib._Hash:
    return hashlib.sha256(f"{dtype_name(dtype)} {list(shape)}\n".encode())
