"""The place of a row in a table: its path, shortened if paths are long."""

from __future__ import annotations

import re
from collections.abc import Callable

_LOOP = re.compile(r"[a-z_]+(\[\d+\])$")


def place_of(longest: str, width: int) -> Callable[[str], str]:
    """The function that writes a path: the first of three ways in which the longest path fits into `width`.

    `3.repeat[10].1.for_each[4].train`, `repeat[10].for_each[4].train`, `[10][4].train`
    """
    for write in (_whole, _without_positions):
        if len(write(longest)) <= width:
            return write
    return _iterations


def _whole(path: str) -> str:
    return path


def _without_positions(path: str) -> str:
    """A path in loops without the positions of steps in their lists."""
    parts = path.split(".")
    kept = [part for part in parts if not part.isdecimal()]
    return ".".join(kept) if any(map(_LOOP.match, parts)) else path


def _iterations(path: str) -> str:
    """The iterations of the loops and the step."""
    parts = path.split(".")
    loops = [found[1] for part in parts if (found := _LOOP.match(part))]
    return f"{''.join(loops)}.{parts[-1]}" if loops else path
