"""The batches of the iterations to come, drawn ahead by cursors of their own."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from runner.engine.compiled.building import Drawn, Lengths
from runner.engine.data.batches import Batch, Batches
from runner.engine.state import State
from runner.plan.program.instructions import LoopStart, Train

Cursors = Mapping[str, Batches]


class Drawing:
    """How the iterations of a `train` step draw batches.

    Args:
        loop: the loop whose body it is alone, where there is one; each of its iterations but the first begins with
            the next batch of the loop's source.
    """

    def __init__(self, state: State, argument: Train, loop: LoopStart | None) -> None:
        self._batches = state.batches
        self._columns = argument.evaluation.batches
        self._used = argument.evaluation.sources
        self._micro = argument.accumulate
        self._first = argument.draws
        self._again = argument.draws_again
        self._variants = bool(argument.evaluation.variants)
        self._loop = None if loop is None else loop.source
        sources = dict.fromkeys([*self._used, *([self._loop] if self._loop is not None else [])])
        self._draws = {name: self._per_iteration(name) for name in sources}
        self.moving = frozenset(column for column, name in self._columns if self._draws[name])

    def _per_iteration(self, name: str) -> int:
        """How many batches of a source an iteration takes; 0: it keeps the one there is."""
        if name in self._first or name in self._again:
            return self._micro
        return int(name == self._loop)

    def cursors(self) -> Cursors:
        """Cursors at the place of the run's own, with a current batch as a step finds it."""
        cursors = {name: self._batches[name].ahead() for name in self._draws}
        for name, cursor in cursors.items():
            if not cursor.batch and name not in self._first:
                cursor.next()
        return cursors

    def lengths(self, cursors: Cursors, iterations: int) -> list[Lengths]:
        """The lengths of the batches of each of the next iterations."""
        if not self._variants:
            return [((),) * self._micro] * iterations
        count = iterations * self._micro
        drawn = [self._lengths(name, cursors[name], count) for name in self._used]
        together = list(zip(*drawn, strict=True))
        return [tuple(together[place : place + self._micro]) for place in range(0, count, self._micro)]

    def _lengths(self, name: str, cursor: Batches, count: int) -> list[int]:
        if name in self._first:
            return cursor.lengths(count)
        return [cursor.length, *cursor.lengths(count - 1)] if self._draws[name] else [cursor.length] * count

    def examples(self, cursors: Cursors) -> Drawn:
        """The batches of the next iteration; the cursors stay where they are."""
        cursors = {name: cursor.ahead() for name, cursor in cursors.items()}
        for name in self._first:
            cursors[name].next()
        examples: list[dict[str, Tensor]] = []
        for place in range(self._micro):
            if place:
                for name in self._again:
                    cursors[name].next()
            examples.append({column: cursors[name].batch[column] for column, name in self._columns})
        return Drawn(examples, self.moving)

    def stacked(self, cursors: Cursors, iterations: int) -> dict[tuple[str, int], Tensor]:
        """The moving columns of the next iterations, by column and micro-batch: `(iterations, samples, *shape)`.

        The cursors are moved behind them.
        """
        stacked: dict[tuple[str, int], Tensor] = {}
        for name, draws in self._draws.items():
            columns = [column for column, source in self._columns if source == name]
            if not columns or not draws:
                for _ in range(iterations * draws - int(name not in self._first)):
                    cursors[name].next()
                continue
            for place, batch in enumerate(self._drawn(name, cursors[name], iterations, draws)):
                stacked.update({(column, place): batch[column] for column in columns})
        return stacked

    def _drawn(self, name: str, cursor: Batches, iterations: int, draws: int) -> list[Batch]:
        """The batches of a source, each micro-batch stacked over the iterations."""
        count = iterations * draws
        if len(set(self._lengths(name, cursor, count))) == 1:
            together = cursor.several(count, anew=name in self._first)
            return [{column: value[place::draws] for column, value in together.items()} for place in range(draws)]
        drawn: list[Batch] = [] if name in self._first else [cursor.batch]
        while len(drawn) < count:
            cursor.next()
            drawn.append(cursor.batch)
        micro = [drawn[place::draws] for place in range(draws)]
        return [{column: torch.stack([one[column] for one in found]) for column in found[0]} for found in micro]

    def kept(self, cursors: Cursors, column: str) -> Tensor | None:
        """A batch column that no iteration draws anew; None where it is no batch column."""
        source = dict(self._columns).get(column)
        return None if source is None else cursors[source].batch[column]
