"""How much a test tries: everything, or a part of it in the fast subset, `-m "not slow"`."""

from __future__ import annotations

import os

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
