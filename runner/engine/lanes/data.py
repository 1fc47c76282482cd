"""Batches of lanes: each lane has the order of samples of its own seed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from runner.engine.data.batches import Batch, Batches
from runner.engine.data.orders import PassOrder, StoredOrder, pass_order
from runner.engine.lanes.operations.tensor import LaneTensor


class LaneBatches(Batches):
    """The cursor of one shuffled source in all lanes.

    Args:
        batches: the cursor of the first lane, before its first batch.
        seeds: the seed of each lane.
    """

    __slots__ = ("_orders", "_seeds", "_stored")

    def __init__(self, batches: Batches, seeds: Sequence[int]) -> None:
        super().__init__(batches.plan, batches._samples, seeds[0])
        self._seeds = seeds
        self._orders: list[PassOrder] = []
        self._stored: Tensor | None = None  # int64 `(lanes, samples)`, if each order is in memory

    def begin(self) -> None:
        """Starts the next pass, in a new order in each lane."""
        plan = self.plan
        self.epoch += 1
        self.position = 0
        self._orders, self._stored = [], None
        orders = [pass_order(plan, seed, self.epoch, self.computed) for seed in self._seeds]
        if all(isinstance(order, StoredOrder) for order in orders):
            self._stored = torch.stack([order.between(0, plan.samples) for order in orders])
        else:
            self._orders = orders

    def several(self, count: int, *, advance: bool = True) -> Batch:
        """Draws `count` batches of equal length, at least one: `(count, lanes, samples, *shape)`.

        Args:
            advance: if false, the current batch is the first of them.
        """
        if not advance:
            self.position -= 1
        parts: list[Tensor] = []
        length = self.lengths(1)[0]
        while len(parts) < count:
            if self.position >= self.plan.batches:
                self.begin()
            start = self.position * self.plan.batch_size
            parts.append(self._chosen(start, start + length))
            self.position += 1
        chosen = torch.stack(parts)
        stacked = {
            name: column.reshape(*chosen.shape, *column.shape[1:])
            for name, column in self._taken(chosen.reshape(-1)).items()
        }
        self.seen, self.length = parts[-1][0], length
        self.batch = self.taken = {name: LaneTensor(column[-1]) for name, column in stacked.items()}
        return stacked

    def catch_up(self, other: Batches) -> None:
        """Moves to the position of another cursor over the same source."""
        for name in (*Batches.__slots__, *LaneBatches.__slots__):
            setattr(self, name, getattr(other, name))

    def _chosen(self, start: int, end: int) -> Tensor:
        """The samples of each lane between two positions of this pass: int64 `(lanes, end - start)`."""
        if self._stored is None:
            return torch.stack([order.between(start, end) for order in self._orders])
        return self._stored[:, start:end]

    def _draw(self, position: int) -> None:
        size = self.plan.batch_size
        start, end = position * size, min((position + 1) * size, self.plan.samples)
        chosen = self._chosen(start, end)
        self.seen, self.length = chosen[0], chosen.shape[1]
        found = self._taken(chosen.reshape(-1))
        self.batch = self.taken = {
            name: LaneTensor(column.reshape(len(chosen), self.length, *column.shape[1:]))
            for name, column in found.items()
        }
