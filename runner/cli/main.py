"""The entry point of the `steprun` command."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

from runner.cli.output.streams import flushed


def entry() -> NoReturn:
    """Run the command line and end the process.

    The process ends without freeing the objects of torch's import one by one. Together with imports that run without
    the garbage collector, this saves a quarter of a second of a small run. All output is flushed before.
    """
    gc.disable()
    code = main()
    if not flushed():
        code = code or 1
    if threading.active_count() > 1:
        sys.exit(code)
    atexit._run_exitfuncs()
    os._exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line on `arguments`, by default those of the process, and return the exit code."""
    from runner.cli.app import application

    try:
        application(arguments, prog_name="steprun")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0
