"""Quantities with a unit, as people write them: sizes in bytes, durations in seconds."""

from __future__ import annotations

import re
from fractions import Fraction

UNITS_OF_BYTES = {
    "B": 1,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_NUMBER = r"[0-9]+(?:_[0-9]+)*(?:\.[0-9]+)?"
_SIZE = re.compile(rf"({_NUMBER}) ?({'|'.join(UNITS_OF_BYTES)})")
_DURATION = re.compile(rf"({_NUMBER})([{''.join(_SECONDS)}])")
_LONGEST = 40  # characters of a size: Python refuses to read integers of thousands of digits


def bytes_of(text: str) -> int | None:
    """The bytes that a size such as `8MiB`, `1.5 GiB` or `2GB` means, rounded down; None if the text is no size."""
    found = _SIZE.fullmatch(text) if len(text) <= _LONGEST else None
    return int(Fraction(found[1]) * UNITS_OF_BYTES[found[2]]) if found else None


def seconds_of(text: str) -> float | None:
    """The seconds that a duration such as `30s`, `10m`, `1.5h`, `2d` or `1w` means.

    None if the text is no duration, or one of no seconds or of more than a float can represent.
    """
    found = _DURATION.fullmatch(text)
    seconds = float(found[1]) * _SECONDS[found[2]] if found else 0.0
    return seconds if 0 < seconds < float("inf") else None
