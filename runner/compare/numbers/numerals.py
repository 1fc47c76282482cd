"""Tensors as readable text without loss of bits, and back.

`1.0, 2.0; 3.0, 4.0` is a 2 x 2 tensor: `, ` separates elements, `; ` rows, `;; ` matrices. Each number has the fewest
digits that reproduce its bits in its dtype. `nan` is the NaN that torch makes; any other NaN is written with its bits,
`nan(0xffc00000)`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from ctypes import c_float

import torch
from torch import Tensor

from runner.record.rows.digest import bits

EMPTY = "empty"
"""The text of a tensor without elements."""

_SINGLE_DIGITS = 9
"""With this many digits, every float32 is written without loss."""

_NARROW_DIGITS = 6
"""The same for numbers of 16 and 8 bits, with one to spare."""

_PART = r"nan\(0x[0-9a-f]+\)|nan|inf|[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?"
_REAL = re.compile(rf"-?(?:{_PART})")
_COMPLEX = re.compile(rf"(-?(?:{_PART}))\+?(-?(?:{_PART}))j")
_INTEGER = re.compile(r"-?[0-9]+")
_BOOLEANS = {"false": False, "true": True}
_ROUNDED_ONCE = frozenset({torch.float32, torch.float64})  # torch rounds Python's numbers once to these dtypes
_PARTS = {torch.complex32: torch.float16, torch.complex64: torch.float32, torch.complex128: torch.float64}


class NumeralError(ValueError):
    """A text is not that of a tensor."""


def to_text(tensor: Tensor) -> str:
    """A tensor `(*s)` of any dtype as one line; `from_text` returns the same bits."""
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    if tensor.numel() == 0:
        return EMPTY
    return _joined(_numerals(tensor.reshape(-1)), tuple(tensor.shape))


def from_text(text: str, dtype: torch.dtype, shape: Sequence[int]) -> Tensor:
    """The inverse of `to_text`.

    Raises:
        NumeralError: the text does not have numbers of this dtype, or not as many as the shape needs.
    """
    count = math.prod(shape)
    numerals = [] if text == EMPTY else re.split(r"(?:,|;+) ?", text)
    if len(numerals) != count:
        raise NumeralError(f"{len(numerals):,} numbers, and the shape {list(shape)} needs {count:,}")
    if count == 0:
        return torch.zeros(tuple(shape), dtype=dtype)
    return _READERS[_kind(dtype)](numerals, dtype).reshape(tuple(shape))


# --- to text


def _joined(numerals: Sequence[str], shape: tuple[int, ...]) -> str:
    """The elements as text; the separator shows how many dimensions end between two elements."""
    if len(shape) < 2:
        return ", ".join(numerals)
    row = shape[-1]
    parts = [", ".join(numerals[start : start + row]) for start in range(0, len(numerals), row)]
    for place in range(1, len(parts)):
        ended, size = 1, 1
        for length in reversed(shape[1:-1]):
            size *= length
            if place % size:
                break
            ended += 1
        parts[place] = ";" * ended + " " + parts[place]
    return "".join(parts)


def _numerals(flat: Tensor) -> list[str]:
    return _WRITERS[_kind(flat.dtype)](flat)


def _write_real(flat: Tensor) -> list[str]:
    values = flat.to(torch.float64).tolist()
    if flat.dtype == torch.float64:
        texts = list(map(repr, values))
    elif flat.dtype == torch.float32:
        texts = [repr(_shortest_single(value)) for value in values]
    else:
        texts = _narrow_texts(flat, values)
    odd = [place for place, value in enumerate(values) if value != value]
    if odd:
        wanted = bits(flat)
        usual = bits(torch.full(flat.shape, math.nan, dtype=torch.float64).to(flat.dtype))
        mask = (1 << 8 * flat.dtype.itemsize) - 1
        for place in odd:  # a NaN with other bits than torch's
            same = bool(wanted[place] == usual[place])
            texts[place] = repr(math.nan) if same else f"nan({int(wanted[place]) & mask:#x})"
    return texts


def _shortest_single(value: float) -> float:
    """The number with the fewest digits that rounds to a float32, which is given as a float.

    More digits are never farther from the value, so the count is searched by halves. This is not so for a power of two,
    whose neighbours are at two distances.
    """
    if value != value:
        return value
    low, high = 1, _SINGLE_DIGITS
    if abs(math.frexp(value)[0]) == 0.5:
        counts = (digits for digits in range(low, high) if c_float(float(f"{value:.{digits}g}")).value == value)
        return float(f"{value:.{next(counts, high)}g}")
    found = value
    while low < high:
        digits = (low + high) // 2
        short = float(f"{value:.{digits}g}")
        if c_float(short).value == value:
            found, high = short, digits
        else:
            low = digits + 1
    return found if high < _SINGLE_DIGITS else float(f"{value:.{_SINGLE_DIGITS}g}")


def _narrow_texts(flat: Tensor, values: Sequence[float]) -> list[str]:
    """The texts of numbers of at most 16 bits: all counts of digits are tried at once."""
    counts = range(1, _NARROW_DIGITS + 1)
    short = [[float(f"{value:.{digits}g}") for value in values] for digits in counts]
    same = bits(torch.tensor(short, dtype=torch.float64).to(flat.dtype)) == bits(flat)
    first = same.to(torch.uint8).argmax(0).tolist()  # the first of the largest
    return [repr(short[place][column]) for column, place in enumerate(first)]


def _write_complex(flat: Tensor) -> list[str]:
    real, imaginary = (_write_real(part.contiguous()) for part in torch.view_as_real(flat).unbind(-1))
    return [f"{a}{'' if b.startswith('-') else '+'}{b}j" for a, b in zip(real, imaginary, strict=True)]


def _write_integers(flat: Tensor) -> list[str]:
    return list(map(str, flat.tolist()))


def _write_booleans(flat: Tensor) -> list[str]:
    return ["true" if value else "false" for value in flat.tolist()]


# --- from text


def _read_real(numerals: Iterable[str], dtype: torch.dtype) -> Tensor:
    numerals = list(numerals)
    _check(numerals, _REAL, dtype)
    marked = [(place, each) for place, each in enumerate(numerals) if "(" in each]
    values = [0.0 if "(" in each else float(each) for each in numerals]
    tensor = torch.tensor(values, dtype=dtype) if dtype in _ROUNDED_ONCE else torch.tensor(values).to(dtype)
    if marked:
        _set_bits(bits(tensor), marked, dtype)
    return tensor


def _set_bits(integers: Tensor, marked: Iterable[tuple[int, str]], dtype: torch.dtype) -> None:
    """Write NaNs given by their bits, through integers that share the tensor's memory."""
    width = 8 * dtype.itemsize
    for place, text in marked:
        pattern = int(text[text.index("x") - 1 : -1], 16)
        if pattern >> width:
            raise NumeralError(f"`{text}` has more bits than {str(dtype).removeprefix('torch.')}")
        integers[place] = pattern - (1 << width) if pattern >> (width - 1) else pattern


def _read_complex(numerals: Iterable[str], dtype: torch.dtype) -> Tensor:
    found = [(each, _COMPLEX.fullmatch(each)) for each in numerals]
    wrong = next((each for each, match in found if match is None), None)
    if wrong is not None:
        raise _not_a_number(wrong, dtype)
    parts = [match[part] for part in (1, 2) for _, match in found if match is not None]
    real, imaginary = _read_real(parts, _PARTS[dtype]).reshape(2, -1).unbind()
    return torch.view_as_complex(torch.stack([real, imaginary], dim=-1).contiguous())


def _read_integers(numerals: Iterable[str], dtype: torch.dtype) -> Tensor:
    numerals = list(numerals)
    _check(numerals, _INTEGER, dtype)
    least, most = torch.iinfo(dtype).min, torch.iinfo(dtype).max
    values = list(map(int, numerals))
    for each, value in zip(numerals, values, strict=True):
        if not least <= value <= most:
            raise NumeralError(f"`{each}` is not between {least} and {most}")
    return torch.tensor(values, dtype=dtype)


def _read_booleans(numerals: Iterable[str], dtype: torch.dtype) -> Tensor:
    try:
        return torch.tensor([_BOOLEANS[each] for each in numerals])
    except KeyError as error:
        raise _not_a_number(str(error.args[0]), dtype) from error


def _check(numerals: Iterable[str], pattern: re.Pattern[str], dtype: torch.dtype) -> None:
    wrong = next((each for each in numerals if not pattern.fullmatch(each)), None)
    if wrong is not None:
        raise _not_a_number(wrong, dtype)


def _not_a_number(text: str, dtype: torch.dtype) -> NumeralError:
    shown = text if len(text) <= 40 else f"{text[:40]}…"
    return NumeralError(f"`{shown}` is not of dtype {str(dtype).removeprefix('torch.')}")


# --- kinds


def _kind(dtype: torch.dtype) -> str:
    if dtype == torch.bool:
        return "boolean"
    return "complex" if dtype.is_complex else "real" if dtype.is_floating_point else "integer"


_WRITERS: dict[str, Callable[[Tensor], list[str]]] = {
    "real": _write_real,
    "complex": _write_complex,
    "integer": _write_integers,
    "boolean": _write_booleans,
}
_READERS: dict[str, Callable[[Iterable[str], torch.dtype], Tensor]] = {
    "real": _read_real,
    "complex": _read_complex,
    "integer": _read_integers,
    "boolean": _read_booleans,
}
