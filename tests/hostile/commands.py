"""Runs commands of steprun in processes of their own, which may be killed at a file operation."""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.forking import fork

WRITES = ("open", "os.rename", "os.remove", "os.mkdir")
PATIENCE = 120  # seconds that a command may take


@contextmanager
def command(words: Sequence[str], folder: Path, kill_at: int | None = None, count: int | None = None) -> Iterator[int]:
    """A command in a process of its own, forked from this one; ended with the block.

    Args:
        kill_at: the file operation before which it kills itself.
        count: a descriptor to which it writes a byte for each file operation.
    """
    child = fork()
    if child == 0:
        _become(words, folder, kill_at, count)
    process = os.pidfd_open(child)
    try:
        yield process
    finally:
        if not select.select([process], [], [], 0)[0]:
            os.kill(child, signal.SIGKILL)
        os.close(process)
        os.waitpid(child, 0)


def _become(words: Sequence[str], folder: Path, kill_at: int | None, count: int | None) -> None:
    code = 99
    try:
        os.chdir(folder)
        output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        seen = 0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal seen
            if event not in WRITES or (event == "open" and not _writes(arguments[2])):
                return
            seen += 1
            if count is not None:
                os.write(count, b".")
            if seen == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        if kill_at is not None or count is not None:
            sys.addaudithook(hook)
        from runner.cli.main import main as steprun

        code = steprun(list(words))
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def _writes(flags: Any) -> bool:
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def done(words: Sequence[str], folder: Path) -> tuple[int, str]:
    """The exit code of a command that is not killed, and what it prints."""
    child = fork()
    if child == 0:
        _become(words, folder, None, None)
    process = os.pidfd_open(child)
    try:
        if not select.select([process], [], [], PATIENCE)[0]:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return -1, f"`{' '.join(words)}` did not end"
    finally:
        os.close(process)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), (folder / "output").read_text(errors="replace")


def measured(words: Sequence[str], prepare: Callable[[Path], None], folder: Path) -> tuple[float, int]:
    """How many seconds a command takes after its imports, and how many file operations it makes."""
    seconds = []
    for _ in range(3):
        fresh(folder, prepare)
        began = time.monotonic()
        code, text = done(words, folder)
        seconds.append(time.monotonic() - began)
        if code:
            raise RuntimeError(f"`{' '.join(words)}` ends with {code}:\n{text}")
    fresh(folder, prepare)
    reading, writing = os.pipe()
    with command(words, folder, count=writing) as process:
        os.close(writing)
        operations = 0
        while told := os.read(reading, 1 << 16):
            operations += len(told)
        select.select([process], [], [], PATIENCE)
    os.close(reading)
    return sorted(seconds)[1], operations


def fresh(folder: Path, prepare: Callable[[Path], None]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    prepare(folder)
