"""Resolves plain YAML scalars: YAML 1.2 numbers and booleans, Python's underscores, bare `inf` and `nan`."""

from __future__ import annotations

import math
import re

ScalarValue = int | float | bool | str | None

LARGEST_INTEGER = 2**63 - 1
SMALLEST_INTEGER = -(2**63)

_WORDS: dict[str, ScalarValue] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **{
        sign + dot + word: (-math.inf if sign == "-" else math.inf)
        for sign in ("", "+", "-")
        for dot in ("", ".")
        for word in ("inf", "Inf", "INF")
    },
    **{dot + word: math.nan for dot in ("", ".") for word in ("nan", "NaN", "NAN")},
}
_DIGITS = r"[0-9]+(?:_[0-9]+)*"
_INTEGER = re.compile(rf"[-+]?{_DIGITS}")
_BASED = re.compile(r"0o[0-7]+(?:_[0-7]+)*|0x[0-9a-fA-F]+(?:_[0-9a-fA-F]+)*")
_FLOAT = re.compile(rf"[-+]?(?:\.{_DIGITS}|{_DIGITS}(?:\.(?:{_DIGITS})?)?)(?:[eE][-+]?[0-9]+)?")
_BEGINS_NUMBER = frozenset("+-.0123456789")


class NumberRangeError(ValueError):
    """A well-formed number that no 64-bit type can store."""


def resolve_plain(text: str) -> ScalarValue:
    """Returns the value of an unquoted scalar.

    Raises:
        NumberRangeError: an integer beyond 64 bits, or a decimal number beyond float64.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _BEGINS_NUMBER:
        return text
    if _INTEGER.fullmatch(text):
        return _integer(text, 10)
    if _BASED.fullmatch(text):
        return _integer(text[2:], 8 if text[1] == "o" else 16)
    if _FLOAT.fullmatch(text):
        value = float(text)
        if math.isinf(value):
            raise NumberRangeError("is beyond float64, whose largest is about 1.8e308")
        return value
    return text


def _integer(digits: str, base: int) -> int:
    significant = digits.lstrip("+-0_") or "0"
    size = int(significant, base) if len(significant) <= 100 else LARGEST_INTEGER + 2
    value = -size if digits[0] == "-" else size
    if not SMALLEST_INTEGER <= value <= LARGEST_INTEGER:
        raise NumberRangeError("is beyond 64 bits: integers reach from -2^63 to 2^63 - 1")
    return value
