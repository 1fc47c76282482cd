"""Cells of text as numbers, by Python's own conversions."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from runner.config import Dialect
from runner.plan.data.dtypes import EXACT
from runner.plan.data.sandbox import FileFault

Array = NDArray[numpy.generic]

BLANK = ""
_BOOLEANS = {"true": True, "false": False}
_MOST_BITS = 1023
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:_\d{3})+(?:\.\d*)?")
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+(?:[eE][+-]?\d+)?")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}(?:[T ].*)?")
_USUAL_MISSING = frozenset({"na", "n/a", "#n/a", "null", "none", "nil", "?", "-", "--", ".", "missing", "<na>"})


@dataclass(frozen=True, slots=True)
class Numbers:
    """Consecutive cells of a column of numbers."""

    values: Array  # int64, bool or float64; 0 or NaN where missing
    missing: NDArray[numpy.bool_] | None  # None: no cell is missing
    blank: int | None = None  # the first blank cell

    @property
    def kind(self) -> numpy.dtype[numpy.generic] | None:
        """The dtype, or None if every cell is missing."""
        return None if self.missing is not None and bool(self.missing.all()) else self.values.dtype


@dataclass(frozen=True, slots=True)
class Words:
    """Consecutive cells of a column of text: `words[codes]`."""

    codes: NDArray[numpy.int32]
    words: tuple[str, ...]


def numbers_of(texts: Sequence[str], dialect: Dialect) -> Numbers | None:
    """The cells of one column as int64, bool or float64; None if one is not a number."""
    absent = {BLANK, *dialect.missing}
    if absent.isdisjoint(texts):
        found = _read(texts, dialect)
        return None if found is None else without_numbers(Numbers(found, None), dialect)
    missing = numpy.fromiter((text in absent for text in texts), dtype=bool, count=len(texts))
    present = [text for text in texts if text not in absent]
    values = _read(present, dialect) if present else numpy.zeros(0, dtype=numpy.int64)
    if values is None:
        return None
    whole = numpy.full(len(texts), numpy.nan if values.dtype == numpy.float64 else 0, dtype=values.dtype)
    whole[~missing] = values
    return without_numbers(Numbers(whole, missing, texts.index(BLANK) if BLANK in texts else None), dialect)


def without_numbers(cells: Numbers, dialect: Dialect) -> Numbers:
    """The cells with numbers that `missing` lists as missing: `-999` also means `-999.0` and `-9.99e2`."""
    values, missing = cells.values, cells.missing
    if values.dtype == numpy.bool_:
        return cells
    for number in _numbers_in(dialect):
        here = values == number if missing is None else (values == number) & ~missing
        if here.any():
            values = values.copy()
            values[here] = numpy.nan if values.dtype == numpy.float64 else 0
            missing = here if missing is None else missing | here
    return cells if values is cells.values else Numbers(values, missing, cells.blank)


def _numbers_in(dialect: Dialect) -> Iterator[int | float]:
    for text in dialect.missing:
        number = number_of(text, dialect.decimal)
        if number is not None:
            yield number


def words_of(texts: Sequence[str]) -> Words:
    """The cells of one column as text."""
    places: dict[str, int] = {}
    codes = numpy.fromiter((places.setdefault(text, len(places)) for text in texts), numpy.int32, len(texts))
    return Words(codes, tuple(places))


def _read(texts: Sequence[str], dialect: Dialect) -> Array | None:
    joined = "".join(texts)
    if "_" in joined:
        if any("_" in text and _THOUSANDS.fullmatch(text) is None for text in texts):
            return None
        texts = [text.replace("_", "") for text in texts]
    found = _integers(texts)
    if found is None:
        found = _floats(texts, dialect.decimal)
    return _booleans(texts) if found is None else found


def _integers(texts: Sequence[str]) -> Array | None:
    try:
        return numpy.array(list(map(int, texts)), dtype=numpy.int64)
    except (ValueError, OverflowError):
        return None


def _booleans(texts: Sequence[str]) -> Array | None:
    if texts[0].lower() not in _BOOLEANS or any(text.lower() not in _BOOLEANS for text in texts):
        return None
    return numpy.array([_BOOLEANS[text.lower()] for text in texts])


def _floats(texts: Sequence[str], decimal: str) -> Array | None:
    """The cells as float64; None if one is not a number that float64 can represent."""
    if decimal != ".":
        if any("." in text for text in texts):
            return None
        texts = [text.replace(decimal, ".") for text in texts]
    try:
        found = numpy.array(list(map(float, texts)), dtype=numpy.float64)
    except ValueError:
        return None
    large = numpy.nonzero(abs(found) >= EXACT)[0].tolist()
    return None if any(_float64_misfit(texts[place]) for place in large) else found


def _float64_misfit(text: str) -> str | None:
    """Why float64 cannot represent a number, given as text, even with rounding; None if it can."""
    value = float(text)
    if math.isinf(value) and "n" not in text.lower():
        return "which is beyond 1.79769e+308, the largest float64,"
    if text.lstrip("+-").isdecimal() and math.isfinite(value) and not _same_integer(text, value):
        return "which float64 cannot represent exactly,"
    return None


def _same_integer(text: str, value: float) -> bool:
    return len(text) < 400 and int(text) == int(value)


def first_fault(lines: Sequence[int], texts: Sequence[str], column: str, file: str, dialect: Dialect) -> FileFault:
    """The fault of the first cell that is no number, among cells of which one is not."""
    for line, text in zip(lines, texts, strict=True):
        if text == BLANK or text in dialect.missing:
            continue
        plain = text.replace("_", "") if _THOUSANDS.fullmatch(text) else text
        plain = plain.replace(dialect.decimal, ".") if "." not in plain or dialect.decimal == "." else "no number"
        if not is_number(plain):
            shown = f"{file}:{line} holds `{_shown(text)}`, which is not a number in the column `{column}`"
            return FileFault(shown, _instead(text, column, dialect), about_columns=True)
        reason = _float64_misfit(plain)
        if reason is not None and "exactly" in reason:
            return inexact(file, line, _shown(text), column)
        if reason is not None:
            message = f"{file}:{line} holds `{_shown(text)}`, {reason} in the column `{column}`"
            return FileFault(message, "write `inf` if that is meant, or correct the cell")
    raise AssertionError


def _instead(text: str, column: str, dialect: Dialect) -> str:
    """One thing to do about a cell that is not a number."""
    if is_usual_missing(text):
        return f"add `{text}` to `missing`" if dialect.missing else f'write `missing: ["{text}"]`'
    if dialect.decimal == "." and _DECIMAL_COMMA.fullmatch(text):
        return 'write `decimal: ","`'
    if _DATE.fullmatch(text):
        return f"write `dates: {{{column}: days}}`"
    if text.lower() in _BOOLEANS:
        return "write 0 and 1 for booleans among numbers"
    if text[:1].isdigit():
        return "select other columns, or correct the cell"
    return f"write `classes: {{{column}: sorted}}` to number its texts, or select other columns"


def is_usual_missing(text: str) -> bool:
    """Whether a text often means a missing number."""
    return text.lower() in _USUAL_MISSING


def _shown(text: str) -> str:
    return text[:40].replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def blank_hint(dialect: Dialect) -> str:
    """What to do about a blank cell."""
    return f"{'add `null` to `missing`' if dialect.missing else 'write `missing: [null]`'} to read it as NaN"


def inexact(file: str, line: int, shown: str, column: str) -> FileFault:
    """The fault of an integer that is read together with floats, and that float64 cannot represent."""
    message = f"{file}:{line} holds `{shown}`, which float64 cannot represent exactly, in the column `{column}`"
    return FileFault(message, "write integers alone in that column and those read with it, or read it separately")


def is_number(text: str) -> bool:
    """Whether a text is a number without underscores, as no name of a column is."""
    return "_" not in text and number_of(text, ".") is not None


def number_of(text: str, decimal: str) -> int | float | None:
    """The number that a cell is, which may have an underscore before each thousand.

    Returns:
        None if it is none, or an integer that float64 does not reach.
    """
    plain = text.replace("_", "") if _THOUSANDS.fullmatch(text) else text
    for kind in (int, float):
        try:
            number = None if "_" in plain else kind(plain.replace(decimal, "."))
        except ValueError:
            continue
        return None if isinstance(number, int) and number.bit_length() > _MOST_BITS else number
    return None
