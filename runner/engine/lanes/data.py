"""Batches of lanes: each lane has the order of samples of its own seed."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from runner.engine.data.batches import Batches
from runner.engine.data.orders import PassOrder, pass_order
from runner.engine.lanes.tensor import LaneTensor


class LaneBatches(Batches):
    """The cursor of one shuffled source in all lanes.

    Args:
        batches: the cursor of the first lane, before its first batch.
        seeds: the seed of each lane.
    """

    __slots__ = ("_orders", "_seeds")

    def __init__(self, batches: Batches, seeds: Sequence[int]) -> None:
        super().__init__(batches.plan, batches._samples, seeds[0])
        self._seeds = seeds
        self._orders: list[PassOrder] = []

    def begin(self) -> None:
        """Starts the next pass, in a new order in each lane."""
        plan = self.plan
        self.epoch += 1
        self.position = 0
        self._orders = []
        self._orders = [pass_order(plan, seed, self.epoch, self.computed) for seed in self._seeds]

    def _draw(self, position: int) -> None:
        size = self.plan.batch_size
        start, end = position * size, min((position + 1) * size, self.plan.samples)
        chosen = torch.stack([order.between(start, end) for order in self._orders])
        self.seen, self.length = chosen[0], chosen.shape[1]
        found = self._taken(chosen.reshape(-1))
        self.batch = self.taken = {
            name: LaneTensor(column.reshape(len(chosen), self.length, *column.shape[1:]))
            for name, column in found.items()
        }
