"""The memory of the machine, and limits on how much of it a block of code may allocate."""

from __future__ import annotations

import functools
import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from runner.language.inference.room import address_space, resource_module, system_file

LEAST_ROOM = 64 << 20
"""Bytes that torch needs in order to raise an error instead of aborting the process."""


def machine_memory() -> int:
    """Bytes of memory of this machine, or the limit of its control group if that is lower."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        text = system_file("/sys/fs/cgroup/memory.max").strip()
    except OSError:
        return physical
    return min(physical, int(text)) if text.isdigit() else physical


@contextmanager
def bounded_memory(room: int) -> Iterator[None]:
    """Context manager that limits the process to `room` bytes above its current address space.

    An operation that needs more raises torch's out-of-memory error. On systems without such a limit, nothing is
    limited.
    """
    resource = resource_module()
    _lifted.append(0 if resource is None else resource.getrlimit(resource.RLIMIT_AS)[0])
    try:
        with _limited("RLIMIT_AS", address_space, room):
            yield
    finally:
        _lifted.pop()


@contextmanager
def unbounded_memory(later: int = 0) -> Iterator[None]:
    """Context manager that lifts the limit of an enclosing `bounded_memory`; what the block maps does not count.

    Reading a Parquet file starts threads, and glibc aborts the process if one of them cannot allocate.

    Args:
        later: bytes that threads of the block may map after it, while they start.
    """
    resource = resource_module()
    if resource is None or not _lifted:
        yield
        return
    limit, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = address_space()
    resource.setrlimit(resource.RLIMIT_AS, (_lifted[0], hard))
    try:
        yield
    finally:
        grown = max(0, address_space() - before)
        resource.setrlimit(
            resource.RLIMIT_AS, (_within(limit + grown + later, _lifted[0], resource.RLIM_INFINITY), hard)
        )


_lifted: list[int] = []
"""The soft limits on address space before each `bounded_memory` that is open."""


def _within(limit: int, most: int, unlimited: int) -> int:
    return limit if most == unlimited else min(limit, most)


@contextmanager
def limited_data(room: int | None) -> Iterator[None]:
    """Context manager that limits allocations to `room` bytes above the current ones; None sets no limit.

    Unlike in `bounded_memory`, mapped files and reserved address space do not count. A run can therefore stream data
    larger than memory.
    """
    if room is None:
        yield
        return
    with _limited("RLIMIT_DATA", _allocated, room):
        yield


@contextmanager
def _limited(kind: str, taken: Callable[[], int], room: int) -> Iterator[None]:
    """Set one resource limit to `taken()` plus `room` bytes, or keep the current limit if that is lower."""
    resource = resource_module()
    if resource is None:
        yield
        return
    _warm_threads()
    number = getattr(resource, kind)
    soft, hard = resource.getrlimit(number)
    limit = taken() + max(room, LEAST_ROOM)
    if soft != resource.RLIM_INFINITY:
        limit = min(limit, soft)
    resource.setrlimit(number, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(number, (soft, hard))


@contextmanager
def uncollected() -> Iterator[None]:
    """Context manager that turns garbage collection off while a block makes many objects.

    At its end they are collected once: that time belongs to the block, and not to what comes after it. If the block
    imports modules, they count as old instead, since they stay, unless the caller froze objects. Nothing changes where
    garbage collection is off already.
    """
    if not gc.isenabled():
        yield
        return
    modules = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        old = len(sys.modules) > modules and not gc.get_freeze_count()  # else what the caller froze would thaw
        if old:
            gc.freeze()
            gc.unfreeze()
        gc.enable()
        if not old:
            gc.collect(0)


def _allocated() -> int:
    return int(system_file("/proc/self/statm").split()[5]) * os.sysconf("SC_PAGE_SIZE")


@functools.cache
def _warm_threads() -> None:
    """Start torch's threads before memory is limited: libgomp aborts the process if it cannot start one."""
    if torch.get_num_threads() > 1:
        torch.ones(1 << 16).add_(1)
        torch.ones(1 << 17).sum()
