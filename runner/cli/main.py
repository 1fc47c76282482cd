"""The entry of the `steprun` command."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line on `arguments`, by default the process's own, and return its exit code.

    The garbage collector is off while modules are imported and never walks what they left: that is a tenth of a
    small run. A command that works long turns it on again.
    """
    gc.disable()
    from runner.cli.app import application

    try:
        application(arguments, prog_name="steprun")
    except SystemExit as stop:
        code = _exit_code(stop)
    else:
        code = 0
    gc.freeze()
    return code if _flushed() else code or 1


def _exit_code(stop: SystemExit) -> int:
    if stop.code is None:
        return 0
    return stop.code if isinstance(stop.code, int) else 1


def _flushed() -> bool:
    """Flush both streams; a reader that went away (`| head`) is no reason to complain at exit."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        silence_output()
        return True
    except OSError:
        return False
    return True


def silence_output() -> None:
    """Point standard output at the null device, so that nothing fails on it any more."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
