"""Limits the planning time of a command, even within one operation that does not return."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

from runner.cli.output.faults import Format, write_fault
from runner.errors import ConfigError, Problem

if TYPE_CHECKING:
    from runner.config import Config

VALIDATING = 3
"""Seconds that `steprun validate` allows for planning, by default."""

_INTERVAL = 0.1  # seconds between two checks of the clock
_GRACE = 0.4  # extra seconds in which planning can report the problem itself
_HINT = "raise it with --max-seconds"


@contextmanager
def exits_after(seconds: float, spent: float, config: Config, report: Format) -> Iterator[None]:
    """End the process with exit code 2 if the block takes longer than `seconds`, by some tenths of a second.

    Planning checks the clock between operations and reports by itself. This handles an operation that does not return;
    the error names it, with the place of its call.

    Args:
        spent: seconds already used before this block.
    """
    over = threading.Event()
    arguments = (over, threading.main_thread(), seconds, spent, config, report)
    thread = threading.Thread(target=_watch, args=arguments, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _watch(
    over: threading.Event, watched: threading.Thread, seconds: float, spent: float, config: Config, report: Format
) -> None:
    from runner.language.inference.inference import is_over

    assert watched.ident is not None
    ident = watched.ident
    began, computed = time.monotonic() - spent, _cpu_seconds(ident) - spent
    while not over.wait(_INTERVAL):
        if is_over(time.monotonic() - began, _cpu_seconds(ident) - computed, seconds + _GRACE):
            problem = _problem(ident, seconds, config)
            write_fault(ConfigError([problem]), ConfigError.exit_code, report)
            with suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(ConfigError.exit_code)


def _cpu_seconds(thread: int) -> float:
    """The CPU seconds of a thread, or those of the clock if the system does not measure them."""
    try:
        return time.clock_gettime(time.pthread_getcpuclockid(thread))
    except (AttributeError, OSError):
        return time.monotonic()


def _problem(thread: int, seconds: float, config: Config) -> Problem:
    """The problem, placed at the operation that planning works on in the thread, else at the whole expression."""
    from runner.faults import place
    from runner.language.lowering.context import Lowering
    from runner.language.text.faults import LanguageError, place_of

    message = f"planning takes longer than {seconds:g} seconds"
    frame: FrameType | None = sys._current_frames().get(thread)
    while frame is not None:
        if frame.f_code is Lowering.infer.__code__:
            lowering, node = frame.f_locals["self"], frame.f_locals["node"]
            if node is not None:
                shown = f"`{lowering.shown(node)}`: {message}"
                error = LanguageError(shown, _HINT, place_of(node, lowering.text), lowering.origin)
                return place(config.document, ("expression",), error)
        frame = frame.f_back
    return config.document.problem(("expression",), message, _HINT, key=True)
