"""Batches of lanes: each lane has the order of samples of its own seed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from runner.engine.data.batches import Batches
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

    def _draw(self, position: int) -> None:
        size = self.plan.batch_size
        start, end = position * size, min((position + 1) * size, self.plan.samples)
        if self._stored is None:
            chosen = torch.stack([order.between(start, end) for order in self._orders])
        else:
            chosen = self._stored[:, start:end]
        self.seen, self.length = chosen[0], chosen.shape[1]
        found = self._taken(chosen.reshape(-1))
        self.batch = self.taken = {
            name: LaneTensor(column.reshape(len(chosen), self.length, *column.shape[1:]))
            for name, column in found.items()
        }
