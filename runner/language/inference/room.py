"""Headroom under a memory limit of the process, for the memory of Python itself besides the limited operations."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

NODES_AT_ONCE = 1_000
NODE_BYTES = 8 << 10
"""Bytes for the graph node, the syntax tree and the example of an operation on few elements."""


def resource_module() -> ModuleType | None:
    """Returns the module `resource`, if the system can limit the memory of a process; else None."""
    if sys.platform != "linux":
        return None
    return importlib.import_module("resource")


def address_space() -> int:
    """Returns the size of this process's address space in bytes."""
    return int(system_file("/proc/self/statm").split()[0]) * os.sysconf("SC_PAGE_SIZE")


def system_file(path: str) -> bytes:
    """Returns what a file of the system says, in a sixth of the time that a text file of Python takes.

    Raises:
        OSError: there is none.
    """
    file = os.open(path, os.O_RDONLY)
    try:
        return os.read(file, 4096)
    finally:
        os.close(file)


def widen(room: int) -> None:
    """Raises the process's address space limit, if there is one, by `room` bytes."""
    resource = resource_module()
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return
    _limit(resource, soft + room, hard)


def _limit(resource: ModuleType, soft: int, hard: int) -> None:
    bounded = soft if hard == resource.RLIM_INFINITY else min(soft, hard)
    resource.setrlimit(resource.RLIMIT_AS, (bounded, hard))


@contextmanager
def lifted_limit() -> Iterator[None]:
    """Context manager that lifts the address space limit. Memory allocated in it does not count against the limit."""
    resource = resource_module()
    if resource is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if soft == hard:
        yield
        return
    before = address_space()
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    try:
        yield
    finally:
        _limit(resource, soft + max(0, address_space() - before), hard)
