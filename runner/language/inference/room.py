"""Room under a limit of the process's memory: for what Python itself takes besides the operations it bounds."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

NODES_AT_ONCE = 1_000
NODE_BYTES = 8 << 10
"""What the graph, the syntax tree and the example of an operation take, where its elements are few."""


def resource_module() -> ModuleType | None:
    """Python's `resource`, where the system limits the memory of a process."""
    if sys.platform != "linux":
        return None
    return importlib.import_module("resource")


def address_space() -> int:
    """Bytes of address space that this process has."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def widen(room: int) -> None:
    """Allow the process `room` bytes more, where its address space is limited."""
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
    """Inside, no limit of address space holds; what is taken there counts for none afterwards either."""
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
