"""The order of a source's samples in one shuffled pass: stored, or computed in parts if the source is streamed."""

from __future__ import annotations

import bisect
import itertools
from typing import Protocol

import numpy
import torch
from torch import Tensor

from runner.plan.data.selection.order import AT_ONCE, Order
from runner.plan.data.sources import SourcePlan
from runner.plan.streams import stream_seed


class PassOrder(Protocol):
    """The samples of one pass, by position."""

    def between(self, start: int, end: int) -> Tensor:
        """Returns the samples at positions `start` to `end - 1`: int64 `(end - start,)`."""
        ...


def order(seed: int, source: str, epoch: int, samples: int, groups: tuple[int, ...] = ()) -> Tensor:
    """Returns the order of a source's samples in one pass: a function of (seed, source, epoch) and the file layout.

    The order is `torch.randperm(samples)` from a generator seeded with `stream_seed(seed, "shuffle", source, epoch)`.
    A Parquet file with several row groups is shuffled so that it can be read in parts. One generator draws
    `torch.randperm` of the groups first, then of the samples of each group in that order.

    Args:
        epoch: the pass, from 1.
        groups: the number of samples in each row group. The layout matters only with two or more groups.
    Returns:
        int64 `(samples,)`.
    """
    if len(groups) < 2:
        return torch.randperm(samples, generator=_generator(seed, source, epoch))
    return GroupedOrder(seed, source, epoch, groups).between(0, samples)


def pass_order(plan: SourcePlan, seed: int, epoch: int, computed: bool) -> PassOrder:
    """Returns the order of one shuffled pass.

    Args:
        computed: whether it is that of `Order`, seeded like the generator of `order`, which takes no memory. Otherwise
            it is that of `order`.
    """
    if plan.streams and len(plan.row_groups) > 1:
        return GroupedOrder(seed, plan.name, epoch, plan.groups)
    if computed:
        return ComputedOrder(Order(stream_seed(seed, "shuffle", plan.name, epoch), plan.samples))
    return StoredOrder(order(seed, plan.name, epoch, plan.samples, plan.groups))


def _generator(seed: int, source: str, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(stream_seed(seed, "shuffle", source, epoch))


class StoredOrder:
    """An order in memory."""

    __slots__ = ("_order",)

    def __init__(self, stored: Tensor) -> None:
        self._order = stored

    def between(self, start: int, end: int) -> Tensor:
        return self._order[start:end]


class ComputedOrder:
    """An order that is computed for a window of positions at a time."""

    __slots__ = ("_first", "_order", "_window")

    def __init__(self, computed: Order) -> None:
        self._order = computed
        self._first = 0
        self._window = torch.empty(0, dtype=torch.int64)

    def between(self, start: int, end: int) -> Tensor:
        if not self._first <= start <= end <= self._first + len(self._window):
            last = min(max(end, start + AT_ONCE), self._order.count)
            self._window = torch.from_numpy(self._order.rows(numpy.arange(start, last)))
            self._first = start
        return self._window[start - self._first : end - self._first]


class GroupedOrder:
    """An order of row groups and of the samples within each. One group's samples are in memory at a time."""

    __slots__ = ("_drawn", "_ends", "_generator", "_groups", "_origin", "_place", "_samples", "_starts")

    def __init__(self, seed: int, source: str, epoch: int, groups: tuple[int, ...]) -> None:
        self._origin = seed, source, epoch
        self._groups = groups
        self._starts = [0, *itertools.accumulate(groups)]
        self._restart()

    def _restart(self) -> None:
        self._generator = _generator(*self._origin)
        self._drawn = torch.randperm(len(self._groups), generator=self._generator).tolist()
        self._ends = list(itertools.accumulate(self._groups[group] for group in self._drawn))
        self._place = -1  # in the order of groups, of the group whose samples are in memory
        self._samples = torch.empty(0, dtype=torch.int64)

    def between(self, start: int, end: int) -> Tensor:
        parts = [self._samples[:0]]
        while start < end:
            place = bisect.bisect_right(self._ends, start)
            self._move(place)
            before, last = self._ends[place] - len(self._samples), min(end, self._ends[place])
            parts.append(self._samples[start - before : last - before])
            start = last
        return torch.cat(parts)

    def _move(self, place: int) -> None:
        """Draws the samples of a group; those of the groups before it are drawn first."""
        if place < self._place:
            self._restart()
        while self._place < place:
            self._place += 1
            group = self._drawn[self._place]
            self._samples = torch.randperm(self._groups[group], generator=self._generator) + self._starts[group]
