"""Infers the value of every node of an expression by running it once, on real or fake tensors, before step 1."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from runner.language.inference.costs import is_costly, is_measure
from runner.language.inference.generators import generators
from runner.language.inference.guards import check_alone
from runner.language.inference.native_checks import MAX_EMPTY
from runner.language.inference.room import NODE_BYTES, NODES_AT_ONCE, lifted_limit, widen
from runner.language.text.faults import LanguageError

MAX_NODES = 50_000
FEW_ELEMENTS = 1 << 20  # a metric of more is inferred without memory
MAX_DIMENSIONS = 64  # the limit of torch's own loops


class Clock:
    """Measures the time of planning. `spent` is the time that earlier work took."""

    def __init__(self, seconds: float, spent: float = 0) -> None:
        self.seconds = seconds
        self._began = time.monotonic() - spent
        self._computed = time.thread_time() - spent

    def is_over(self) -> bool:
        passed = time.monotonic() - self._began
        return passed > self.seconds and is_over(passed, time.thread_time() - self._computed, self.seconds)


def is_over(passed: float, computed: float, seconds: float) -> bool:
    """Whether work takes longer than `seconds` of wall time; at least half of them must be processor time."""
    return passed > seconds and computed > seconds / 2


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits on the size of an expression."""

    nodes: int = MAX_NODES
    bytes: int = 1 << 40  # of one tensor by its shape, also for views
    clock: Clock | None = None


Warn = Callable[[str, LanguageError], None]
"""Receives the text of a warning of torch, and the same at its operation."""


class TooLarge(Exception):
    """A node exceeds a limit. The message says which one, and how to raise it."""


@dataclass(slots=True)
class Inference:
    """Runs nodes as they are lowered, so that the shapes of the next node's operands are known.

    With `gradients`, autograd records the operations, which `grad(y, x)` needs.
    """

    bounds: Bounds = field(default_factory=Bounds)
    gradients: bool = False
    device: str = "cpu"
    warn: Warn | None = None  # receives torch's warnings; without it torch writes them
    nodes: int = 0
    bytes: int = 0  # of all results together; shared storage counts once
    largest: int = 0
    _streams: list[tuple[torch.Generator, Tensor]] = field(default_factory=list)  # generators, and their state
    _storages: set[int] = field(default_factory=set)

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """Restores the process's random state and grad mode on exit."""
        log = logging.getLogger("torch._subclasses.fake_tensor")  # logs a traceback for each error
        quiet, log.disabled = log.disabled, True
        try:
            with torch.set_grad_enabled(self.gradients):
                yield
        finally:
            log.disabled = quiet
            for generator, state in self._streams:
                generator.set_state(state)
            self._streams = []

    def count(self) -> None:
        """Counts one more node of the graph.

        Raises:
            TooLarge: the graph has too many nodes, or planning takes too long.
        """
        self.nodes += 1
        if self.nodes > self.bounds.nodes:
            raise self.too_many()
        clock = self.bounds.clock
        if clock is not None and clock.is_over():
            raise TooLarge(f"planning takes longer than {clock.seconds:g} seconds; raise it with --max-seconds")
        if self.nodes % NODES_AT_ONCE == 0:
            widen(NODES_AT_ONCE * NODE_BYTES)

    def is_full(self) -> bool:
        """Whether the limit on operations or time has been reached; any further error would repeat this."""
        clock = self.bounds.clock
        return self.nodes > self.bounds.nodes or (clock is not None and clock.is_over())

    def too_many(self) -> TooLarge:
        """Returns the error for an expression with too many operations."""
        return TooLarge(f"the expression has more than {self.bounds.nodes:,} operations; raise it with --max-nodes")

    def run(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], random: bool) -> Any:
        """Runs one node, and returns its example result. Exceptions of torch propagate."""
        if random and not self._streams:
            self._streams = [(generator, generator.get_state()) for generator in generators(self.device)]
        result = _shaped(function, args, kwargs) if is_costly(function, args, kwargs) else function(*args, **kwargs)
        self._measure(result)
        return result

    def _measure(self, result: Any) -> None:
        if isinstance(result, Tensor):
            size = result.numel() * result.element_size()
            if size == 0:
                check_empty(result)
            if size > self.bounds.bytes:
                raise TooLarge(
                    f"the result has shape {tuple(result.shape)}: {readable_bytes(size)}, more than the limit of "
                    f"{readable_bytes(self.bounds.bytes)}; raise it with --max-memory"
                )
            if result.dim() > MAX_DIMENSIONS:
                raise TooLarge(f"the result has {result.dim():,} dimensions; use at most {MAX_DIMENSIONS}")
            self.largest = max(self.largest, size)
            storage = result.untyped_storage()
            if storage._cdata not in self._storages:
                self._storages.add(storage._cdata)
                self.bytes += storage.nbytes()
        elif isinstance(result, (tuple, list)):
            for item in result:
                self._measure(item)


def check_empty(x: Tensor) -> None:
    """Rejects a tensor without elements whose other sizes would make a native loop run forever.

    Raises:
        TooLarge: the product of its nonzero sizes is too large.
    """
    if x.numel() == 0 and prod(size for size in x.shape if size) > MAX_EMPTY:
        raise TooLarge(f"the shape {tuple(x.shape)} has no elements, and its other sizes make more than {MAX_EMPTY:,}")


def _shaped(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Returns stand-ins with the shapes and dtypes of the result, without computing it: zeros, or ones if integer."""
    check_alone(function, args, kwargs)
    device = next((value.device for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)), None)
    try:
        with lifted_limit():  # torch imports modules here, and one that runs out of memory stays broken
            made = _without_memory(function, args, kwargs, device)
    except NotImplementedError:  # torch cannot infer its shapes
        return function(*args, **kwargs)

    def stand_in(x: Tensor) -> Tensor:
        value = 0 if x.is_floating_point() or x.is_complex() else 1  # a valid count or pivot
        return torch.full(x.shape, value, dtype=x.dtype, device=device)

    return tree_map_only(Tensor, stand_in, made)


def _without_memory(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], device: torch.device | None
) -> Any:
    if is_measure(function) and _elements(args, kwargs) <= FEW_ELEMENTS:
        # shapes without memory would import torch's compiler here; zeros are valid scores and classes
        positional, named = tree_map_only(Tensor, torch.zeros_like, (args, kwargs))
        return function(*positional, **named)
    if device is not None and torch.is_autocast_enabled(device.type):  # which does not apply to meta tensors
        from torch._subclasses.fake_tensor import FakeTensorMode

        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            positional, named = tree_map_only(Tensor, mode.from_tensor, (args, kwargs))
            return function(*positional, **named)
    positional, named = tree_map_only(Tensor, lambda value: value.to("meta"), (args, kwargs))
    return function(*positional, **named)


def _elements(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    return sum(value.numel() for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor))


def readable_bytes(size: float) -> str:
    """Returns a size in readable units: `2.0 MiB`."""
    if size > 1 << 70:  # it may not fit into a float
        return "more than 1 ZiB"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if size < 1024 or unit == "PiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError
