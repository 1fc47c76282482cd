"""Reads tensors from a `.safetensors` file next to a snapshot, one at a time, if the header has the expected size.

A file from a stranger may claim anything, and may be a sparse file of many gigabytes. Memory is allocated only for
tensors that the snapshot declares.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from io import BufferedReader
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from runner.config.files.safe_files import Folder
from runner.plan.data.arrays import safetensors_entries
from runner.plan.data.sandbox import FileFault

_PREFIX = struct.Struct("<Q")


class TensorFileError(ValueError):
    """A file is not a `.safetensors` file, or one of its tensors is not the expected one."""


class TensorFile:
    """The header of a file; its tensors are read on demand.

    Raises:
        OSError: the file cannot be opened.
        TensorFileError: it has no valid header.
    """

    def __init__(self, folder: Folder, name: str, limit: int) -> None:
        with folder.open(name, limit) as file:
            self._start, self._entries = _header(file)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def tensor(self, folder: Folder, name: str, key: str, size: int) -> Tensor:
        """A tensor of the file with `size` bytes.

        Raises:
            OSError: the file cannot be read any more.
            TensorFileError: it has another size, or does not match its header.
        """
        entry = self._entries[key]
        match entry:
            case {"data_offsets": [int(begin), int(end)]} if 0 <= begin <= end and end - begin == size:
                with folder.open(name) as file:
                    file.seek(self._start + begin)
                    content = file.read(size)
            case _:
                raise TensorFileError("its size differs")
        alone = json.dumps({key: {**entry, "data_offsets": [0, size]}}).encode()
        try:
            return load(_PREFIX.pack(len(alone)) + alone + content)[key]
        except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise TensorFileError(str(error)) from error


def _header(file: BufferedReader) -> tuple[int, Mapping[str, Any]]:
    """The offset of the values, and the header entry of each tensor."""
    size = os.fstat(file.fileno()).st_size
    try:
        start, entries = safetensors_entries(file, size, "it")
    except FileFault as fault:
        raise TensorFileError(fault.message) from fault
    if start + max(map(_end, entries.values()), default=0) != size:
        raise TensorFileError(f"its header does not end at {size:,} bytes, as the file does")
    return start, entries


def _end(entry: Any) -> int:
    """The end of a tensor's values, counted from the end of the header."""
    match entry:
        case {"data_offsets": [int(), int(end)]}:
            return end
    raise TensorFileError("an entry of its header lacks its offsets")


def as_declared(stored: Tensor, dtype: torch.dtype) -> Tensor | None:
    """Restores a tensor of a dtype that safetensors does not support from its integers; None if they do not fit."""
    kind = torch.float64 if dtype == torch.complex128 else torch.float16 if dtype == torch.complex32 else dtype
    try:
        viewed = stored.view(kind)
        return torch.view_as_complex(viewed) if dtype.is_complex else viewed
    except RuntimeError:
        return None
