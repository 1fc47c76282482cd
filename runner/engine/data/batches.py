"""Cursors over data sources. Each has a current batch, a count of its passes and its own sample order."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from runner.engine.data.orders import PassOrder, pass_order
from runner.engine.data.placing import placed
from runner.engine.data.samples import ColumnFault, MemorySamples, Samples, open_samples
from runner.errors import DataWarning, Problem, RunError
from runner.faults import ConfigPath
from runner.optim.updates import ALIGNMENT
from runner.plan.data.files import FileFault
from runner.plan.data.sources import SourcePlan
from runner.plan.plan import Plan

Batch = dict[str, Tensor]

TOGETHER_BYTES = 1 << 20
"""Bytes of shuffled batches to gather at once. Gathering many small batches takes as long as gathering one."""

MOST_TOGETHER = 64
"""The maximum number of batches to gather at once."""


class UnreadableData(RuntimeError):
    """A batch could not be read.

    `path` is the config path of the source, or of a column if its dtype cannot represent a value.
    """

    def __init__(self, path: ConfigPath, fault: FileFault) -> None:
        super().__init__(fault.message)
        self.path = _path_of(fault, path)
        self.hint = fault.hint


def _path_of(fault: FileFault, source: ConfigPath) -> ConfigPath:
    return fault.path if isinstance(fault, ColumnFault) else source


class Batches:
    """The cursor of one source: its current batch, and the position of the next one.

    Its state is `epoch`, `position` and whether a batch has been drawn. `restore` recreates it from these. On a machine
    with other memory, the order of the passes stays what it was: `computed` is part of a checkpoint.

    Args:
        together: the number of shuffled batches to gather at once.
    """

    __slots__ = (
        "_first",
        "_gathered",
        "_last_seen",
        "_last_taken",
        "_order",
        "_passing",
        "_samples",
        "_seed",
        "_together",
        "batch",
        "computed",
        "epoch",
        "length",
        "plan",
        "position",
    )

    def __init__(self, plan: SourcePlan, samples: Samples, seed: int, together: int = 1) -> None:
        self.plan = plan
        self._samples = samples
        self._seed = seed
        self._together = together if plan.shuffle else 1
        self._order: PassOrder | None = None
        self._gathered: list[tuple[Tensor | slice, Batch]] = []  # of this pass: the sample indices, and the batch
        self._first = 0  # the position of the first gathered batch
        self.computed = plan.computes_order
        self.epoch = 0  # the pass of the current batch, from 1; 0 before the first
        self.position = plan.batches  # the number of batches drawn in this pass
        self.batch: Batch = {}  # the current batch; empty before the first
        self.length = 0  # of the current batch
        self._last_taken: Batch = {}
        self._last_seen: Tensor | slice = slice(0, 0)
        self._passing: tuple[int, tuple[Tensor, ...]] | None = None  # in `whole_pass`: the first sample, and the batch

    def next(self) -> None:
        """Draws the next batch. Past the end, starts the next pass."""
        if self.position >= self.plan.batches:
            self.begin()
        self._draw(self.position)
        self.position += 1

    def begin(self) -> None:
        """Starts the next pass."""
        plan = self.plan
        self.epoch += 1
        self.position = 0
        self._gathered = []
        self._order = None  # frees the old order before the new one exists: each takes eight bytes per sample
        self._order = pass_order(plan, self._seed, self.epoch, self.computed) if plan.shuffle else None

    def ahead(self) -> Batches:
        """Returns an independent cursor at the same position."""
        return copy.copy(self)

    def catch_up(self, other: Batches) -> None:
        """Moves to the position of another cursor over the same source."""
        for name in self.__slots__:
            setattr(self, name, getattr(other, name))

    @property
    def left(self) -> int:
        """The number of batches of this pass that have not been drawn."""
        return self.plan.batches - self.position

    def lengths(self, count: int) -> list[int]:
        """Returns the number of samples in each of the next `count` batches."""
        size, batches = self.plan.batch_size, self.plan.batches
        last = min(size, self.plan.samples - (batches - 1) * size)
        return [last if (self.position + place) % batches == batches - 1 else size for place in range(count)]

    def several(self, count: int, *, advance: bool = True) -> Batch:
        """Draws `count` batches of equal length, at least one, and returns them stacked: `(count, samples, *shape)`.

        Args:
            advance: if false, the current batch is the first of them.
        """
        if not advance:
            self.position -= 1
        parts: list[Tensor | slice] = []  # the sample indices in each pass
        left, length = count, self.lengths(1)[0]
        while left:
            if self.position >= self.plan.batches:
                self.begin()
            taken = min(left, self.plan.batches - self.position)
            start = self.position * self.plan.batch_size
            parts.append(self._numbers(start, start + taken * length))
            self.position += taken
            left -= taken
        joined = self._samples_in(parts)
        stacked = {name: found.reshape(count, length, *found.shape[1:]) for name, found in joined.items()}
        self.batch = self._last_taken = {name: found[-1] for name, found in stacked.items()}
        self.length = length
        self._last_seen = self._numbers(start + (taken - 1) * length, start + taken * length)
        return stacked

    def current(self) -> Batch:
        """Returns the current batch. Draws the first one on first use."""
        if not self.batch:
            self.next()
        return self.batch

    @property
    def drawn(self) -> bool:
        return bool(self.batch)

    @property
    def place(self) -> tuple[int, int, bool]:
        """The state of the cursor, for `restore`."""
        return self.epoch, self.position, self.drawn

    def restore(self, epoch: int, position: int, drawn: bool, computed: bool | None = None) -> None:
        """Moves to a position that `place` returned before.

        Args:
            computed: whether the orders of its passes are computed; None: as planned.
        """
        if computed is not None:
            self.computed = computed
        self.epoch = epoch - 1
        if epoch:
            self.begin()
        self.epoch, self.position = epoch, position
        self.batch = {}
        if drawn and position:
            self._draw(position - 1)

    def whole_pass(self) -> Iterator[tuple[Tensor, ...]]:
        """Yields every batch of one pass in file order, including the last: a tensor for each column.

        The cursor does not move. Making a mapping of each small batch would take as long as some operations.
        """
        size, samples, names = self.plan.batch_size, self.plan.samples, [column.name for column in self.plan.columns]
        several = size * (MOST_TOGETHER if isinstance(self._samples, MemorySamples) else 1)
        for first in range(0, samples, several):
            columns = self._read(first, min(first + several, samples))
            parts = zip(*[torch.split(columns[name], size) for name in names], strict=True)
            for start, part in zip(range(first, samples, size), parts, strict=False):
                self._passing = start, part  # it stays after an error, whose report names a sample
                yield part
        self._passing = None

    def named(self, part: tuple[Tensor, ...]) -> Batch:
        """Returns a batch that `whole_pass` yielded as a mapping."""
        return dict(zip([column.name for column in self.plan.columns], part, strict=True))

    @property
    def taken(self) -> Batch:
        """The last batch that was read, also by `evaluate`."""
        return self._last_taken if self._passing is None else self.named(self._passing[1])

    @taken.setter
    def taken(self, batch: Batch) -> None:
        self._last_taken, self._passing = batch, None

    @property
    def seen(self) -> Tensor | slice:
        """The sample indices of `taken`: int64 `(length,)` if shuffled."""
        if self._passing is None:
            return self._last_seen
        start = self._passing[0]
        return slice(start, min(start + self.plan.batch_size, self.plan.samples))

    @seen.setter
    def seen(self, samples: Tensor | slice) -> None:
        self._last_seen, self._passing = samples, None

    def lacks(self, column: str, value: int) -> bool:
        """Whether no sample of a column has a value; False for columns that are not in memory."""
        return isinstance(self._samples, MemorySamples) and self._samples.lacks(column, value)

    def _draw(self, position: int) -> None:
        place = position - self._first
        if not 0 <= place < len(self._gathered):
            self._gather(position)
            place = 0
        self._last_seen, self.batch = self._gathered[place]
        self._last_taken = self.batch
        self.length = self.length_taken

    def _gather(self, position: int) -> None:
        """Gathers the batch at a position of this pass, and some that follow it."""
        size = self.plan.batch_size
        start, end = position * size, min((position + self._together) * size, self.plan.samples)
        seen = self._numbers(start, end)
        samples = self._samples_at(seen)
        self._first = position
        if isinstance(seen, slice) or end - start <= size:
            self._gathered = [(seen, samples)]
            return
        parts = zip(*[torch.split(column, size) for column in samples.values()], strict=True)
        self._gathered = [
            (numbers, dict(zip(samples, part, strict=True)))
            for numbers, part in zip(torch.split(seen, size), parts, strict=True)
        ]

    @property
    def length_taken(self) -> int:
        """The number of samples in the last batch that was read."""
        return len(range(*self.seen.indices(self.plan.samples))) if isinstance(self.seen, slice) else len(self.seen)

    def _numbers(self, start: int, end: int) -> Tensor | slice:
        """Returns the sample indices between two positions of this pass."""
        return slice(start, end) if self._order is None else self._order.between(start, end)

    def _samples_in(self, parts: Sequence[Tensor | slice]) -> Batch:
        """Returns the samples of several passes; those in memory are gathered at once."""
        chosen = [part for part in parts if isinstance(part, Tensor)]
        if len(chosen) == len(parts) > 1 and isinstance(self._samples, MemorySamples):
            return self._taken(torch.cat(chosen))
        found = [self._samples_at(part) for part in parts]
        if len(found) == 1:
            return found[0]
        return {name: torch.cat([each[name] for each in found]) for name in found[0]}

    def _samples_at(self, seen: Tensor | slice) -> Batch:
        return self._read(seen.start, seen.stop) if isinstance(seen, slice) else self._taken(seen)

    def sample(self, place: int) -> int:
        """Returns the row in the file, from 0, of one sample of the last batch that was read."""
        seen = self.seen
        return self.plan.selection.row(seen.start + place if isinstance(seen, slice) else int(seen[place]))

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


def open_batches(plan: Plan, problems: list[Problem] | None = None) -> dict[str, Batches]:
    """Opens a cursor over each source of a run, before its first batch.

    Reads the sources that fit into memory. Warns with a `DataWarning` for each column with NaN, naming its first row.

    Args:
        problems: collects the warnings, if given.
    Raises:
        RunError: a file cannot be read, or has changed since planning.
    """
    document = plan.config.document
    found: dict[str, Batches] = {}
    for name, source in plan.sources.items():
        try:
            samples = open_samples(source)
        except FileFault as fault:
            path = _path_of(fault, source.path)
            raise RunError(document.problem(path, fault.message, fault.hint, key=path == source.path)) from fault
        for column, row in samples.first_nan():
            message = f"nan-in-data: sample {source.selection.row(row)} of `{column}` in `{name}` is NaN"
            problem = document.problem(source[column].path, message, "clean it, or replace it with `nan_to_num`")
            if problems is not None:
                problems.append(problem)
            warnings.warn(DataWarning(problem.render()), stacklevel=3)
        together = gathered_together(source) if plan.device == "cpu" else 1
        found[name] = Batches(source, placed(samples, source, plan.device), plan.seed, together)
    return found


def gathered_together(source: SourcePlan) -> int:
    """Returns how many shuffled batches of an in-memory source to gather at once; each must start aligned."""
    sizes = [column.bytes * source.batch_size for column in source.columns]
    if source.streams or any(size % ALIGNMENT for size in sizes):
        return 1
    return max(1, min(MOST_TOGETHER, TOGETHER_BYTES // max(1, sum(sizes))))
