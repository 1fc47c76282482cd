"""The standard streams of the process."""

from __future__ import annotations

import os
import sys
from typing import TextIO


def flushed() -> bool:
    """Flush both streams; a reader that went away (`| head`) is no reason to complain at the end."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        return True
    except OSError:
        return False
    return True


def silence(stream: TextIO) -> None:
    """Point a standard stream at the null device, so that nothing fails on it any more."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
