"""What a person is told while `engine: compile` compiles, which takes seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable


def told_of_compiling() -> Callable[[str, float | None], None] | None:
    """Writes a line for each compilation, on a terminal only."""
    stream = sys.stderr
    if not stream.isatty():
        return None

    def tell(path: str, seconds: float | None) -> None:
        if seconds is None:
            stream.write(f"compiling {path} …")
        else:
            stream.write(f"\r\x1b[2Kcompiled {path} in {seconds:.1f} s\n")
        stream.flush()

    return tell
