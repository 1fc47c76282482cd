"""The cursors of data sources: each has its current batch, counts its own passes, and draws in an order of its own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch
from torch import Tensor

from runner.engine.placing import placed
from runner.engine.samples import Samples, open_samples
from runner.errors import DataWarning, RunError
from runner.plan.faults import ConfigPath
from runner.plan.files import FileFault
from runner.plan.plan import Plan
from runner.plan.sources import SourcePlan
from runner.plan.streams import stream_seed

Batch = dict[str, Tensor]


def order(seed: int, source: str, epoch: int, samples: int, groups: tuple[int, ...] = ()) -> Tensor:
    """The order of a source's samples in one pass: a function of (seed, source, epoch) and the source's layout alone.

    It is `torch.randperm(samples)` from a generator seeded with `stream_seed(seed, "shuffle", source, epoch)`. A
    Parquet file of several row groups is shuffled so that it can be read in parts: `torch.randperm` of the groups
    first, then of the rows of each group in that order, all from one generator.

    Args:
        epoch: the pass, from 1.
        groups: rows of each row group; one or none is no layout.
    Returns:
        int64 `(samples,)`.
    """
    generator = torch.Generator().manual_seed(stream_seed(seed, "shuffle", source, epoch))
    if len(groups) < 2:
        return torch.randperm(samples, generator=generator)
    starts = torch.tensor((0, *groups)).cumsum(0)
    drawn = torch.randperm(len(groups), generator=generator).tolist()
    return torch.cat([starts[group] + torch.randperm(groups[group], generator=generator) for group in drawn])


class UnreadableData(RuntimeError):
    """A batch could not be read; `path` is the source's in the config."""

    def __init__(self, path: ConfigPath, fault: FileFault) -> None:
        super().__init__(fault.message)
        self.path = path
        self.hint = fault.hint


class Batches:
    """The cursor of one source: its current batch, and where in which pass the next one begins.

    Everything about it that changes is `epoch`, `position` and whether a batch has been drawn, so that `restore`
    brings it back.
    """

    __slots__ = (
        "_order",
        "_samples",
        "_seed",
        "batch",
        "epoch",
        "length",
        "plan",
        "position",
        "seen",
        "taken",
    )

    def __init__(self, plan: SourcePlan, samples: Samples, seed: int) -> None:
        self.plan = plan
        self._samples = samples
        self._seed = seed
        self._order: Tensor | None = None
        self.epoch = 0  # the pass of the current batch, from 1; 0 before the first
        self.position = plan.batches  # batches drawn in this pass
        self.batch: Batch = {}  # the current one; empty before the first
        self.length = 0  # of the current batch
        self.taken: Batch = {}  # the batch that was read last, by `evaluate` too
        self.seen: Tensor | slice = slice(0, 0)  # its samples: int64 `(length,)` where they are shuffled

    def next(self) -> None:
        """Draw the next batch; past the end the next pass begins."""
        if self.position >= self.plan.batches:
            self.begin()
        self._draw(self.position)
        self.position += 1

    def begin(self) -> None:
        """Begin the next pass."""
        plan = self.plan
        self.epoch += 1
        self.position = 0
        self._order = order(self._seed, plan.name, self.epoch, plan.samples, plan.groups) if plan.shuffle else None

    def lengths(self, count: int) -> list[int]:
        """How many samples each of the next batches has."""
        size, batches = self.plan.batch_size, self.plan.batches
        last = min(size, self.plan.samples - (batches - 1) * size)
        return [last if (self.position + place) % batches == batches - 1 else size for place in range(count)]

    def current(self) -> Batch:
        """The current batch; the first is drawn on first use."""
        if not self.batch:
            self.next()
        return self.batch

    @property
    def drawn(self) -> bool:
        return bool(self.batch)

    @property
    def place(self) -> tuple[int, int, bool]:
        """Everything about it that changes, for `restore`."""
        return self.epoch, self.position, self.drawn

    def restore(self, epoch: int, position: int, drawn: bool) -> None:
        """Go to a place that `epoch`, `position` and `drawn` told before."""
        self.epoch = epoch - 1
        if epoch:
            self.begin()
        self.epoch, self.position = epoch, position
        self.batch = {}
        if drawn and position:
            self._draw(position - 1)

    def whole_pass(self) -> Iterator[Batch]:
        """Every batch of a pass in the order of the file, the last one included; the cursor stays where it is."""
        size, before = self.plan.batch_size, (self.taken, self.seen)
        for start in range(0, self.plan.samples, size):
            self.seen = slice(start, min(start + size, self.plan.samples))
            self.taken = self._read(self.seen.start, self.seen.stop)
            yield self.taken
        self.taken, self.seen = before

    def _draw(self, position: int) -> None:
        size = self.plan.batch_size
        start, end = position * size, min((position + 1) * size, self.plan.samples)
        if self._order is None:
            self.seen = slice(start, end)
            batch = self._read(start, end)
        else:
            self.seen = self._order[start:end]
            batch = self._taken(self.seen)
        self.batch = self.taken = batch
        self.length = end - start

    @property
    def length_taken(self) -> int:
        """Of the batch that was taken last."""
        return len(range(*self.seen.indices(self.plan.samples))) if isinstance(self.seen, slice) else len(self.seen)

    def sample(self, place: int) -> int:
        """Which sample of the source, from 0, stands at a place of the batch that was taken last."""
        seen = self.seen
        return seen.start + place if isinstance(seen, slice) else int(seen[place])

    def _read(self, start: int, end: int) -> Batch:
        try:
            return self._samples.between(start, end)
        except FileFault as fault:
            raise UnreadableData(self.plan.path, fault) from fault

    def _taken(self, chosen: Tensor) -> Batch:
        try:
            return self._samples.at(chosen)
        except FileFault as fault:
            raise UnreadableData(self.plan.path, fault) from fault


def open_batches(plan: Plan) -> dict[str, Batches]:
    """The cursors of a run's sources, before their first batch.

    Sources that fit into memory are read here. One that holds NaN is told of in a `DataWarning`, with its first row.

    Raises:
        RunError: a file cannot be read, or has changed since planning.
    """
    document = plan.config.document
    found: dict[str, Batches] = {}
    for name, source in plan.sources.items():
        try:
            samples = open_samples(source)
        except FileFault as fault:
            raise RunError(document.problem(source.path, fault.message, fault.hint, key=True)) from fault
        for column, row in samples.first_nan():
            message = f"nan-in-data: sample {row} of `{column}` in `{name}` is NaN"
            problem = document.problem(source[column].path, message, "clean it, or replace it with `nan_to_num`")
            warnings.warn(DataWarning(problem.render()), stacklevel=3)
        found[name] = Batches(source, placed(samples, source, plan.device), plan.seed)
    return found
