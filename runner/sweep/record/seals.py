"""Digests in the Parquet files of a sweep, to detect flipped bits on disk.

They stand between the rows and the footer, where no reader of Parquet looks: a file and its digests appear with one
rename. So no second file describes it. A seal also says which points a file has, because its footer may be long.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import pyarrow

Span = tuple[float, float]
"""The smallest and the largest point that a part may have."""

_MARK = b"steprun sealed 1"
_LAYOUT = struct.Struct("<16s32s32sqq")
_OWN_BYTES = 8  # of its own digest, at its end
_SEAL_BYTES = _LAYOUT.size + _OWN_BYTES
_TAIL = struct.Struct("<I4s")  # the bytes of the footer, and PAR1
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class _Seal:
    mark: bytes
    rows: bytes  # SHA-256
    footer: bytes  # SHA-256
    least: int  # the smallest point
    most: int


def sealed(content: pyarrow.Buffer, points: Sequence[int]) -> Iterator[bytes | memoryview]:
    """The pieces of a Parquet file with its seal.

    Args:
        points: those that it has.
    """
    whole = memoryview(content)
    length, _ = _TAIL.unpack(whole[-_TAIL.size :])
    start = len(whole) - _TAIL.size - length
    rows, footer = whole[:start], whole[start:]
    span = min(points, default=0), max(points, default=-1)
    written = _LAYOUT.pack(*astuple(_Seal(_MARK, _digest(rows), _digest(footer), *span)))
    yield rows
    yield written + _digest(written)[:_OWN_BYTES]
    yield footer


def check_seal(file: Any, rows: bool) -> None:
    """Compare a Parquet file with its seal; a file without one passes.

    Args:
        file: the open file; it is at its start afterwards.
        rows: whether the rows are compared too, which reads the whole file.
    Raises:
        ValueError: a bit differs.
    """
    start, seal = _seal_of(file)
    if seal is not None:
        if _digest(file.read()) != seal.footer:
            raise ValueError("the digest of its footer does not match")
        if rows and _digest_of_first(file, start) != seal.rows:
            raise ValueError("the digest of its rows does not match")
    file.seek(0)


def span_of(file: Any) -> Span | None:
    """The points that a part may have, by its seal alone; None without one. The file is at its start afterwards.

    Raises:
        ValueError: the seal is damaged.
    """
    _, seal = _seal_of(file)
    file.seek(0)
    return None if seal is None else (seal.least, seal.most)


def _seal_of(file: Any) -> tuple[int, _Seal | None]:
    """Where the seal of a file begins, and the seal, which may be missing; the file is behind it then."""
    end = file.seek(0, 2)
    if end < _TAIL.size:
        return 0, None
    file.seek(end - _TAIL.size)
    length, _ = _TAIL.unpack(file.read(_TAIL.size))
    start = end - _TAIL.size - length - _SEAL_BYTES
    if start < 0:
        return 0, None
    file.seek(start)
    found = file.read(_SEAL_BYTES)
    if not found.startswith(_MARK):
        return 0, None
    if _digest(found[: _LAYOUT.size])[:_OWN_BYTES] != found[_LAYOUT.size :]:
        raise ValueError("the digest of its digests does not match")
    return start, _Seal(*_LAYOUT.unpack_from(found))


def _digest(content: bytes | memoryview) -> bytes:
    return hashlib.sha256(content).digest()


def _digest_of_first(file: Any, count: int) -> bytes:
    """The digest of the first bytes of a file."""
    digest = hashlib.sha256()
    file.seek(0)
    while count > 0 and (piece := file.read(min(count, _PIECE_BYTES))):
        digest.update(piece)
        count -= len(piece)
    return digest.digest()
