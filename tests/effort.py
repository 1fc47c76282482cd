"""How much a test tries: everything, or a part of it in the fast subset, `-m "not slow"`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")

_FAST = "STEPRUN_FAST_TESTS"
"""Set in the processes of a session that runs the fast subset, before test modules are imported."""


def choose_effort(selected: str) -> None:
    """Note which tests a session runs; `selected` is the expression of `-m`."""
    os.environ[_FAST] = "1" if selected == "not slow" else ""


def tried(count: int, fast: int | None = None) -> int:
    """`count`, or in the fast subset `fast` instead: a fifth of it by default."""
    if not os.environ.get(_FAST):
        return count
    return max(1, count // 5) if fast is None else fast


def thinned(rows: Iterable[T], kind: Callable[[T], object], every: int) -> list[T]:
    """All rows, or in the fast subset the first of each kind and every so many after it."""
    if not os.environ.get(_FAST):
        return list(rows)
    seen: Counter[object] = Counter()
    kept = []
    for row in rows:
        if seen[kind(row)] % every == 0:
            kept.append(row)
        seen[kind(row)] += 1
    return kept
