"""Dtypes by name."""

from __future__ import annotations

from collections.abc import Mapping

import torch

DTYPES: Mapping[str, torch.dtype] = {
    name: getattr(torch, name)
    for name in (
        "float16", "bfloat16", "float32", "float64", "half", "float", "double",
        "complex64", "complex128", "cfloat", "cdouble",
        "uint8", "int8", "int16", "int32", "int64", "short", "int", "long", "bool",
        "float8_e4m3fn", "float8_e5m2",
    )
}  # fmt: skip
"""The dtypes by their names in torch."""

PYTHON_TYPES: Mapping[str, torch.dtype] = {
    "bool": torch.bool,
    "int": torch.int64,
    "float": torch.float64,
    "complex": torch.complex128,
}
"""The dtypes that Python's types mean to torch: `x.to(int)` is int64, although `torch.int` is int32."""


def dtype_name(dtype: torch.dtype) -> str:
    """Returns the name of a dtype without its prefix: `float32` for `torch.float32`."""
    return str(dtype).removeprefix("torch.")
