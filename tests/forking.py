"""Forks a test's process, where an earlier test may have started JAX."""

from __future__ import annotations

import os
import warnings


def fork() -> int:
    """`os.fork`, without the warning of JAX: the child must not use it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
        return os.fork()
