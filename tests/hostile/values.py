"""Values that programs trip over, by what an argument is."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

INTEGERS = (0, -1, 1, 2, 3, 7, 64, 2**31 - 1, 2**31, -(2**31), 2**32, 2**32 + 1, 2**62, 2**63 - 1, -(2**62), -(2**63))
FLOATS = (
    *(0.0, -0.0, 1.0, -1.0, 0.5, -0.5, math.nan, math.inf, -math.inf, 1e308, -1e308, 1e-308, 1e15, -1e15),
    *(2.0**31, -(2.0**31), 2.0**62, -(2.0**62), 2.0**63, -4503599627370495.5, 1e6),
)
DTYPES = (
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.complex128),
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool),
)
SHAPES = (
    *((), (0,), (1,), (2,), (7,), (0, 3), (3, 0), (1, 1), (3, 3), (2, 5), (2, 0, 2), (1, 2, 3), (2, 3, 4, 5)),
    *((2**40, 0), (0, 2**31 - 1, 3), (2, 2**32 + 1, 0, 0)),  # without elements, and loops over them do not end
)


def element(dtype: torch.dtype, random: random.Random) -> Any:
    """A number that is odd for `dtype`."""
    if dtype is torch.bool:
        return random.random() < 0.5
    if dtype.is_floating_point or dtype.is_complex:
        return random.choice(FLOATS)
    limits = torch.iinfo(dtype)
    fitting = [value for value in INTEGERS if limits.min <= value <= limits.max]
    return random.choice([*fitting, limits.min, limits.min + 1, limits.max])


def tensor(random: random.Random, dtype: torch.dtype | None = None, shape: Sequence[int] | None = None) -> Tensor:
    """A small tensor, of ordinary numbers or odd ones."""
    dtype = dtype or random.choice(DTYPES)
    made = torch.zeros(tuple(random.choice(SHAPES) if shape is None else shape), dtype=dtype)
    odd = random.random() < 0.4
    flat = made.reshape(-1)
    for position in range(flat.numel()):
        flat[position] = element(dtype, random) if odd else random.randrange(0, 4)
    return made


def changed_tensor(value: Tensor, random: random.Random) -> Tensor:
    """A tensor near `value`: other elements, another shape, other strides or another dtype."""
    value = value.detach().clone()
    how = random.randrange(9)
    if how == 0 or (how == 1 and value.numel() == 0):
        return tensor(random, value.dtype)
    if how == 1:  # some elements
        flat = value.contiguous().reshape(-1)
        for _ in range(random.choice((1, 1, 2, flat.numel()))):
            flat[random.randrange(flat.numel())] = element(value.dtype, random)
        return flat.reshape(value.shape)
    if how == 2:  # all elements
        return torch.full_like(value, element(value.dtype, random), memory_format=torch.contiguous_format)
    if how == 3:
        return value.to(random.choice(DTYPES))
    if how == 4 and value.dim() > 0:  # one size
        shape = list(value.shape)
        shape[random.randrange(len(shape))] = random.choice((0, 1, 2, 3, 9))
        if 0 in shape and random.random() < 0.3:
            shape[random.randrange(len(shape))] = random.choice((2**24, 2**31 - 1, 2**32 + 1))
        if 0 not in shape and math.prod(shape) > 2**16:
            shape = [min(size, 9) for size in shape]
        return tensor(random, value.dtype, shape)
    if how == 5 and value.dim() > 0:
        return value.select(random.randrange(value.dim()), 0) if 0 not in value.shape else value.reshape(-1)
    if how == 6:
        return value.unsqueeze(0) if random.random() < 0.5 else value.unsqueeze(-1)
    if how == 7 and value.dim() > 0:  # one element, seen as many
        shape = [random.choice((0, 1, 2, 5)) for _ in value.shape]
        return torch.full((), element(value.dtype, random), dtype=value.dtype).expand(shape)
    return value.mT if value.dim() > 1 else value.flip(0) if value.dim() else value


def changed(value: Any, kind: str, random: random.Random) -> Any:
    """A value near `value`, or one that is odd for an argument of a `kind` (as a table's signature writes it)."""
    if isinstance(value, Tensor):
        return changed_tensor(value, random)
    if isinstance(value, (tuple, list)):
        return _changed_list(list(value), kind, random)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        other = random.choice((value + 1, value - 1, -value, *INTEGERS, *INTEGERS))
        return other if random.random() < 0.9 else torch.tensor(min(max(other, -(2**63)), 2**63 - 1))
    if isinstance(value, float):
        return random.choice(FLOATS)
    if isinstance(value, torch.dtype):
        return random.choice(DTYPES)
    return made(kind, random)


def _changed_list(value: list[Any], kind: str, random: random.Random) -> list[Any]:
    how = random.randrange(5)
    if how == 0 or not value:
        return [*value, value[-1] if value else made(kind.removesuffix("[]"), random)]
    if how == 1:
        del value[random.randrange(len(value))]
    elif how == 2:
        random.shuffle(value)
    else:
        position = random.randrange(len(value))
        value[position] = changed(value[position], kind.removesuffix("[]"), random)
    return value


def made(kind: str, random: random.Random) -> Any:
    """A value for an argument of a `kind`: "Tensor", "int[]", "float", "str", …"""
    kind = random.choice(kind.split("|"))
    if kind.endswith("[]"):
        return [made(kind.removesuffix("[]"), random) for _ in range(random.choice((0, 1, 1, 2, 2, 3, 4)))]
    if kind == "Tensor":
        return tensor(random)
    if kind == "int":
        return random.choice((*range(-2, 6), *INTEGERS))
    if kind == "float":
        return random.choice(FLOATS)
    if kind == "bool":
        return random.random() < 0.5
    if kind == "dtype":
        return random.choice(DTYPES)
    if kind == "str":
        return random.choice(STRINGS)
    if kind == "Scalar":
        return random.choice((*INTEGERS, *FLOATS, True))
    return random.choice((0, 1, None))


STRINGS = (
    *("mean", "sum", "none", "max", "min", "prod", "amax", "amin", "linear", "nearest", "bilinear", "bicubic", "area"),
    *("trilinear", "reflect", "replicate", "circular", "constant", "zeros", "border", "reflection", "fro", "nuc", "L"),
    *("U", "ij", "xy", "forward", "ortho", "trunc", "floor", "left", "right", "tanh", "same", "valid", "reduced", ""),
    *("complete", "r", "lower", "midpoint", "nearest-exact", "gels", "ii->i", "ij,jk->ik", "ab,cd->abcd"),
)
