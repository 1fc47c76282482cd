"""Cases tried in child processes that may crash, hang or take memory, and what became of each."""

from __future__ import annotations

import faulthandler
import mmap
import os
import resource
import signal
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from tests.forking import fork

ROUND = 2000  # cases that one child tries
_PAGE = struct.Struct("qq")  # the case under way, and the length of the finding


@dataclass(frozen=True, slots=True)
class Finding:
    """What went wrong with a case."""

    case: int
    what: str  # "crash: SIGSEGV", "hang", "memory: 700 MiB", "escaped: KeyError('x')"


def tried(
    attempt: Callable[[int], str | None],
    first: int,
    last: int,
    *,
    seconds: float = 5,
    idle: float = 30,
    room: int | None = None,
) -> Iterator[Finding]:
    """Try the cases from `first` up to `last` in children; yields what went wrong, in the order of cases.

    Args:
        attempt: tries a case in a child and gives what is wrong in words, or None; what it raises is wrong too.
        seconds: of processor time that a case may take.
        idle: seconds by the clock that a case may take none: it waits for what never comes.
        room: bytes of address space that a child may take besides what it starts with.
    """
    page = mmap.mmap(-1, 1 << 16)
    case = first
    while case < last:
        end = min(case + ROUND, last)
        _PAGE.pack_into(page, 0, case, 0)  # before the child, which may have done more when this goes on
        child = fork()
        if child == 0:
            _child(attempt, case, end, page, room)
        try:
            ended = _watched(child, page, case, seconds, idle)
        except KeyboardInterrupt:
            os.kill(child, signal.SIGKILL)
            raise
        at, length = _PAGE.unpack_from(page)
        if ended == "found":
            yield Finding(at, page[_PAGE.size : _PAGE.size + length].decode(errors="replace"))
            case = at + 1
        elif ended is not None:
            yield Finding(at, ended)
            case = at + 1
        else:
            case = end


def _child(attempt: Callable[[int], str | None], first: int, end: int, page: mmap.mmap, room: int | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.disable()  # pytest's writes the crash of a child as if it were its own
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    if room is not None:
        with open("/proc/self/statm", encoding="ascii") as file:
            taken = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (taken + room, resource.RLIM_INFINITY))
    for case in range(first, end):
        _PAGE.pack_into(page, 0, case, 0)
        try:
            found = attempt(case)
        except BaseException as error:
            found = f"escaped: {type(error).__name__}: {str(error)[:300]}"
        if found is not None:
            text = found.encode()[: len(page) - _PAGE.size]
            page[_PAGE.size : _PAGE.size + len(text)] = text
            _PAGE.pack_into(page, 0, case, len(text))
            os._exit(1)
    os._exit(0)


def _watched(child: int, page: mmap.mmap, first: int, seconds: float, idle: float) -> str | None:
    """How a child ended: None where it has done its cases, "found" where it has left words."""
    case, since, pause = first, _processor_seconds(child), 0.001
    used, moved = since, time.monotonic()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if os.WIFSIGNALED(status):
                return f"crash: {signal.Signals(os.WTERMSIG(status)).name}"
            code = os.waitstatus_to_exitcode(status)
            return None if code == 0 else "found" if code == 1 else f"exit: {code}"
        now, taken = _PAGE.unpack_from(page)[0], _processor_seconds(child)
        if taken != used:
            used, moved = taken, time.monotonic()
        if now != case:
            case, since = now, taken
        elif taken - since > seconds or time.monotonic() - moved > idle:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "hang" if taken - since > seconds else "hang: waits"
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


def _processor_seconds(child: int) -> float:
    try:
        with open(f"/proc/{child}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
