"""Writes and reads `.safetensors` files piece by piece, so that no second copy of their tensors is in memory."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BufferedReader
from typing import Any

import torch
from torch import Tensor

from runner.language.dtypes import dtype_name
from runner.plan.data.arrays import (
    SAFETENSORS,
    TRUE_DTYPES,
    safetensors_contents,
    safetensors_header,
    true_dtypes,
    true_header,
)
from runner.plan.data.sandbox import FileFault

NAMES: Mapping[torch.dtype, str] = {dtype: name for name, dtype in SAFETENSORS.items()}
PIECE_BYTES = 4 << 20
"""Bytes to read before their digest is computed: they are then still in the processor's cache."""

LEAST_APART = 64 << 10
"""Bytes from which on a thread computes the digest: that of fewer takes less time than the thread needs to begin."""

_PREFIX = struct.Struct("<Q")
_ALIGNMENT = 8
_METADATA = "__metadata__"


@dataclass(slots=True)
class Digested:
    """Passes on the pieces of a file, and computes their SHA-256 on the way; of large ones while they are written."""

    pieces: Iterable[bytes | memoryview]
    sha256: Any = field(default_factory=hashlib.sha256)

    def __iter__(self) -> Iterator[bytes | memoryview]:
        with ThreadPoolExecutor(1) as hashing:
            for piece in self.pieces:
                if len(piece) < PIECE_BYTES:
                    self.sha256.update(piece)
                    yield piece
                    continue
                hashed = hashing.submit(self.sha256.update, piece)
                yield piece
                hashed.result()

    @property
    def digest(self) -> str:
        """The digest of the pieces so far, in hexadecimal digits."""
        return str(self.sha256.hexdigest())


def pieces_of(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Iterator[bytes | memoryview]:
    """The bytes of a `.safetensors` file: its header, then the values of one tensor after another.

    Args:
        tensors: tensors on any device. They must not change before the last piece is read. Of the dtypes that the
            format lacks, complex128 is written as pairs of float64 and any other as bytes; the metadata names them.
        metadata: texts for the header.
    Source: the format of https://github.com/huggingface/safetensors.
    """
    texts = dict(metadata or {})
    lacking = {name: dtype_name(tensor.dtype) for name, tensor in tensors.items() if tensor.dtype not in NAMES}
    if lacking:
        texts[TRUE_DTYPES] = json.dumps(lacking)
    stored = [(name, _as_stored(tensor.detach())) for name, tensor in tensors.items()]
    ordered = sorted(stored, key=lambda item: -item[1].dtype.itemsize)  # keeps every tensor aligned
    header: dict[str, Any] = {_METADATA: texts} if texts else {}
    end = 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.numel() * tensor.dtype.itemsize
        header[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    yield _PREFIX.pack(len(text)) + text
    for _, tensor in ordered:
        if tensor.numel():
            yield bytes_of(tensor.cpu().contiguous())


def _as_stored(tensor: Tensor) -> Tensor:
    if tensor.dtype in NAMES:
        return tensor
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor.view(torch.uint8)


def bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor on the CPU, which has at least one element."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    array: Any = tensor.reshape(-1).view(torch.uint8).numpy()
    return memoryview(array)


def _as_it_was(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A stored tensor in its true dtype; a file may have any byte for a boolean, and torch needs 0 or 1."""
    if tensor.dtype == torch.bool:
        return tensor.view(torch.uint8).ne(0)
    if tensor.dtype == dtype:
        return tensor
    return torch.view_as_complex(tensor) if dtype.is_complex else tensor.view(dtype)


def read_tensors(file: BufferedReader, name: str) -> tuple[dict[str, Tensor], str]:
    """The tensors of a `.safetensors` file on the CPU, and the SHA-256 of the whole file; the file is read once.

    A thread computes the digest of a large piece while the next one is read.

    Raises:
        FileFault: the file is not valid, or its tensors do not lie one after another.
    """
    size = os.fstat(file.fileno()).st_size
    start, entries, metadata = safetensors_contents(file, size, name)
    dtypes = true_dtypes(metadata)
    headers = {key: safetensors_header(entry, f"{name}#{key}") for key, entry in entries.items()}
    position = 0
    tensors: dict[str, Tensor] = {}
    file.seek(0)
    digest = hashlib.sha256(file.read(start))
    hashed: Future[None] | None = None
    with ThreadPoolExecutor(1) as hashing:
        for key, (header, begin, end) in sorted(headers.items(), key=lambda item: item[1][1:]):
            if begin != position or end - begin != header.bytes or start + end > size:
                raise FileFault(f"{name}#{key} does not lie where the file's header says", "write the file again")
            tensor = torch.empty(header.shape, dtype=header.dtype)
            if header.bytes:
                view = bytes_of(tensor)
                for piece in (view[at : at + PIECE_BYTES] for at in range(0, len(view), PIECE_BYTES)):
                    if file.readinto(piece) != len(piece):
                        raise FileFault(f"{name} is truncated", "write the file again")
                    if len(piece) >= LEAST_APART:
                        hashed = hashing.submit(digest.update, piece)
                        continue
                    if hashed is not None:
                        hashed.result()
                        hashed = None
                    digest.update(piece)
            tensors[key] = tensor
            position = end
    if start + position != size:
        raise FileFault(f"{name} has {size - start - position:,} bytes more than its header says", "write it again")
    for key, tensor in tensors.items():
        tensors[key] = _as_it_was(tensor, true_header(headers[key][0], dtypes.get(key)).dtype)
    return tensors, digest.hexdigest()
