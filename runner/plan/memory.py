"""How much memory there is, and how much of it a piece of work may take."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from runner.language.inference.room import address_space, resource_module

LEAST_ROOM = 64 << 20
"""Bytes that torch needs to report an error rather than end the process."""


def machine_memory() -> int:
    """Bytes of memory that this machine has, or that its control group allows."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
            text = file.read().strip()
    except OSError:
        return physical
    return min(physical, int(text)) if text.isdigit() else physical


@contextmanager
def bounded_memory(room: int) -> Iterator[None]:
    """Inside, the process may take at most `room` bytes more than it has; what wants more fails at once.

    An operation then raises torch's error about memory instead of taking the machine's. Nothing is bounded where the
    system has no such limit.
    """
    with _limited("RLIMIT_AS", address_space, room):
        yield


@contextmanager
def limited_data(room: int | None) -> Iterator[None]:
    """Inside, the process may allocate at most `room` bytes more than it has; None limits nothing.

    Unlike `bounded_memory`, files that are mapped and address space that is only reserved do not count, so that a run
    may stream data larger than memory.
    """
    if room is None:
        yield
        return
    with _limited("RLIMIT_DATA", _allocated, room):
        yield


@contextmanager
def _limited(kind: str, taken: Callable[[], int], room: int) -> Iterator[None]:
    """One limit of the process, `room` bytes above what is `taken`, or the limit that it has where that is lower."""
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


def _allocated() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[5]) * os.sysconf("SC_PAGE_SIZE")


@functools.cache
def _warm_threads() -> None:
    """Start torch's threads while there is room: libgomp ends the process where it cannot start one."""
    if torch.get_num_threads() > 1:
        torch.ones(1 << 16).add_(1)
        torch.ones(1 << 17).sum()
