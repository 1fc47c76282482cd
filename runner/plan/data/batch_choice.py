"""Chooses the data source of each batch column of a step, and creates example batches."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from runner.plan.data.sources import BatchColumn, SourcePlan

MOST_VARIANTS = 16
"""Maximum number of combinations of batch lengths in one step."""

Lengths = Mapping[str, int]
"""Source → length of its batch."""

Choice = Mapping[str, str]
"""Batch column → source."""


@dataclass(slots=True)
class Supply:
    """The sources of a config, in the order of the file, and the parts of them that its steps use."""

    sources: Mapping[str, SourcePlan]
    device: str
    used: set[tuple[str, str]] = field(default_factory=set)  # (source, column)
    drawn: set[str] = field(default_factory=set)  # sources that some step uses
    fitted: frozenset[tuple[str, str]] = frozenset()  # (source, column) that initial expressions name

    @property
    def columns(self) -> frozenset[str]:
        return frozenset(column.name for source in self.sources.values() for column in source.columns)

    def choose(self, preferred: Sequence[str] = ()) -> dict[str, str]:
        """The source of every batch column: the first preferred one that has it, otherwise the first declared one."""
        order = [*(name for name in preferred if name in self.sources), *self.sources]
        chosen: dict[str, str] = {}
        for name in order:
            for column in self.sources[name].columns:
                chosen.setdefault(column.name, name)
        return chosen

    def combinations(self, used: Iterable[str], whole: bool = False) -> Iterator[dict[str, int]]:
        """Every combination of the batch lengths of some sources, full batches first.

        Args:
            whole: whether a pass includes the last batch that `drop_last` would drop.
        """
        names = list(used)
        lengths = [self.sources[name].all_lengths if whole else self.sources[name].lengths for name in names]
        for combination in itertools.product(*lengths):
            yield dict(zip(names, combination, strict=True))

    def examples(self, chosen: Choice, lengths: Lengths) -> dict[str, Tensor]:
        """An example of each column's batch: normal random numbers, or zeros if not floating-point."""
        return {
            name: self._example(self.sources[source][name], lengths.get(source, self.sources[source].batch_size))
            for name, source in chosen.items()
        }

    def _example(self, column: BatchColumn, length: int) -> Tensor:
        shape = (length, *column.shape)
        made = torch.zeros(shape, dtype=column.dtype, device=self.device)
        if column.dtype.is_floating_point and column.dtype.itemsize > 1:
            made.normal_(generator=torch.Generator(self.device).manual_seed(0))
        return made

    def signature(self, chosen: Choice, lengths: Lengths) -> tuple[tuple[object, ...], ...]:
        """The key that determines how an expression is lowered: the shape and dtype of each column's batch."""
        found = []
        for name, source in sorted(chosen.items()):
            column = self.sources[source][name]
            found.append((name, lengths.get(source, self.sources[source].batch_size), *column.shape, column.dtype))
        return tuple(found)

    def example_bytes(self) -> int:
        """Bytes of the examples of all sources together."""
        return sum(source.batch_size * column.bytes for source in self.sources.values() for column in source.columns)

    def note(self, chosen: Choice, columns: Iterable[str]) -> None:
        """Record that a step uses these columns."""
        for name in columns:
            self.used.add((chosen[name], name))
            self.drawn.add(chosen[name])
