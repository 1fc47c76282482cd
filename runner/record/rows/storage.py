"""Converts tensors to the layout and dtype in which a column is stored, and back, bit for bit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from runner.language.dtypes import dtype_name
from runner.plan.rows.columns import Column, Kept, Role, recorded

LARGEST_LISTED = 4096
"""The most elements of a tensor that is stored element by element; a larger one is stored as bytes."""

Layout = Literal["scalar", "tensor", "list", "bytes", "stats", "digest", "hex"]

_STORED_DTYPES = {
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
    torch.float8_e4m3fn: torch.float32,
    torch.float8_e4m3fnuz: torch.float32,
    torch.float8_e5m2: torch.float32,
    torch.float8_e5m2fnuz: torch.float32,
    torch.float8_e8m0fnu: torch.float32,
    torch.complex32: torch.float32,
    torch.complex64: torch.float32,
    torch.complex128: torch.float64,
}
_INTEGER_OF_WIDTH = {1: torch.uint8, 2: torch.int16}
_QUIET_NAN = 0x7FC00000


@dataclass(frozen=True, slots=True)
class StoredColumn:
    """A column and its storage layout.

    Layouts:
        scalar: one number per row.
        tensor: a list of fixed length.
        list: a list of varying length, with the shape in a second column; also for shapes without elements.
        bytes: the little-endian bytes of the elements.
        stats, digest: the statistics or the digest of the tensor, in separate columns; the tensor is not stored.
        hex: such a digest as text.
    """

    column: Column
    layout: Layout
    dtype: torch.dtype  # of the stored elements; never half precision or complex
    shape: tuple[int, ...] | None  # of the stored elements; a complex column has a trailing axis of 2

    @property
    def elements(self) -> int:
        """Stored elements of one row; 0 if the shape varies."""
        return math.prod(self.shape) if self.shape is not None else 0

    @property
    def is_number(self) -> bool:
        """Whether each value is stored as one real number."""
        return self.layout in ("scalar", "tensor") and self.elements == 1

    @property
    def bytes(self) -> int:
        """Bytes of one row in memory; 0 if the shape varies."""
        return self.elements * self.dtype.itemsize

    @property
    def parts(self) -> tuple[StoredColumn, ...]:
        """The columns of a file that store this one: itself, or those for its statistics or digest."""
        fields = recorded(self.column)
        return (self,) if fields == (self.column,) else tuple(map(stored_column, fields))


def stored_column(column: Column) -> StoredColumn:
    """The column with its storage layout."""
    if column.kept != "full":
        return StoredColumn(column, column.kept, column.dtype, column.shape)
    if column.is_digest:
        return StoredColumn(column, "hex", column.dtype, column.shape)
    dtype = _STORED_DTYPES.get(column.dtype, column.dtype)
    if column.shape is None:
        return StoredColumn(column, "list", dtype, None)
    shape = (*column.shape, 2) if column.dtype.is_complex else column.shape
    return StoredColumn(column, _layout(shape), dtype, shape)


def _layout(shape: tuple[int, ...]) -> Layout:
    elements = math.prod(shape)
    if not shape:
        return "scalar"
    if elements == 0:
        return "list"
    return "tensor" if elements <= LARGEST_LISTED else "bytes"


def column_json(column: Column) -> dict[str, Any]:
    """A column as JSON; `from_column_json` is the inverse."""
    fields: dict[str, Any] = {
        "name": column.name,
        "role": column.role,
        "dtype": dtype_name(column.dtype),
        "shape": None if column.shape is None else list(column.shape),
    }
    if column.kept != "full":
        fields["kept"] = column.kept
    if column.of is not None:
        fields["of"] = column_json(column.of)
    return fields


MOST_BYTES = (1 << 31) - 1
"""The most bytes of a value of Arrow's fixed-size binary type."""


def from_column_json(fields: Mapping[str, Any]) -> Column:
    """The inverse of `column_json`.

    Raises:
        ValueError: the fields do not describe a column.
    """
    match fields:
        case {"name": str(name), "role": role, "dtype": str(dtype), "shape": None | [*_] as shape} if (
            role in get_args(Role) and fields.get("kept", "full") in get_args(Kept) and _are_lengths(shape or ())
        ):
            of = fields.get("of")
            if of is not None and not isinstance(of, Mapping):
                raise ValueError("the description of a column is not valid")
            column = Column(
                name,
                role,
                dtype_named(dtype),
                None if shape is None else tuple(shape),
                fields.get("kept", "full"),
                None if of is None else from_column_json({**of, "of": None}),
            )
            if any(part.bytes > MOST_BYTES for part in stored_column(column).parts):
                raise ValueError("a column has more bytes in a row than Parquet can hold")
            return column
    raise ValueError("the description of a column is not valid")


def _are_lengths(shape: Sequence[Any]) -> bool:
    return all(type(length) is int and 0 <= length < 1 << 48 for length in shape) and math.prod(shape) < 1 << 48


def dtype_named(name: str) -> torch.dtype:
    """The inverse of `dtype_name`; raises ValueError for a text that is not the name of a dtype."""
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{name} is not a dtype")
    return dtype


def stack(values: Sequence[Tensor | None], blank: Tensor) -> tuple[Tensor, list[bool] | None]:
    """Stack tensors of one shape `(*s)` to `(rows, *s)` on their device; also return which are present (None: all).

    A missing tensor becomes zeros like `blank` `(*s)`.
    """
    with torch.no_grad():
        try:
            return torch.stack(values), None  # type: ignore[arg-type]
        except TypeError:  # checking each value first would cost more than stacking
            present = [value is not None for value in values]
            device = next((value.device for value in values if value is not None), blank.device)
            filler = torch.zeros_like(blank, device=device)  # made on the device, as a copy to it would block
            return torch.stack([filler if value is None else value for value in values]), present


def to_stored(tensor: Tensor) -> Tensor:
    """A tensor `(*s)` in its stored form: contiguous, on the CPU, half precision widened, complex as an axis of 2."""
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    if tensor.dtype.is_complex:
        tensor = torch.view_as_real(tensor)
    return widen(tensor) if tensor.dtype.itemsize < 4 and tensor.dtype.is_floating_point else tensor


def from_stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The inverse of `to_stored`: the tensor in its true `dtype`, with the same bits."""
    if dtype == torch.complex32:
        return torch.view_as_complex(narrow(tensor, torch.float16))
    if dtype.is_complex:
        return torch.view_as_complex(tensor)
    return narrow(tensor, dtype) if tensor.dtype != dtype else tensor


def widen(tensor: Tensor) -> Tensor:
    """A tensor of 8-bit or 16-bit floats as float32 with the same values.

    A NaN becomes the float32 NaN 0x7FC00000 with the original bits as its lowest bits, so that `narrow` can restore
    them. The processor's own conversion would change them.
    """
    wide = tensor.to(torch.float32)
    nan = wide.isnan()
    if nan.any():
        width = tensor.dtype.itemsize
        bits = tensor.view(_INTEGER_OF_WIDTH[width]).to(torch.int32) & ((1 << 8 * width) - 1)
        wide = torch.where(nan, bits | _QUIET_NAN, wide.view(torch.int32)).view(torch.float32)
    return wide


def narrow(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The inverse of `widen`: float32 `(*s)` as `dtype`, an 8-bit or 16-bit float."""
    narrowed = tensor.to(dtype)
    nan = tensor.isnan()
    if nan.any():
        integer = _INTEGER_OF_WIDTH[dtype.itemsize]
        bits = (tensor.view(torch.int32) & ((1 << 8 * dtype.itemsize) - 1)).to(integer)
        narrowed = torch.where(nan, bits, narrowed.view(integer)).view(dtype)
    return narrowed
