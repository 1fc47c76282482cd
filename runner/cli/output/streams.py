"""The standard streams of the process."""

from __future__ import annotations

import os
import sys
from typing import TextIO


def flushed() -> bool:
    """Flush both streams, and return whether that succeeded. A closed pipe (`| head`) is not an error."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        return True
    except OSError:
        return False
    return True


def silence(stream: TextIO) -> None:
    """Redirect a standard stream to the null device, so that later writes do not fail."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
