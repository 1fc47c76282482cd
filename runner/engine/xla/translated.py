"""Steps that are translated to JAX, and compiled by XLA."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from runner.engine.compiled.building import Built
from runner.engine.compiled.library import Compiler, Report
from runner.engine.compiled.training import Tensors, step_function
from runner.engine.xla.finiteness import are_finite
from runner.engine.xla.regions import Region
from runner.language.xla.tracing import Draw, plain_kernels, trace
from runner.plan.checks.engines.translatable import MOST_AT_ONCE
from runner.plan.memory import uncollected
from runner.plan.program.instructions import Train

REGION_BYTES = 1 << 30
"""The approximate bytes that all iterations of a region touch: it limits a region to a fraction of a second."""

STACK_BYTES = 16 << 20
"""The bytes that a region may stack: the batches and the rows of its iterations."""


@dataclass(slots=True)
class Translated:
    """A step for certain batch lengths, traced and compiled at its first call."""

    built: Built
    longest: int  # the maximum number of iterations per call
    report: Report
    draws: tuple[Draw, ...] = ()
    region: Region | None = None

    def call(
        self, carry: Tensors, each: Tensors, fixed: Tensors, seed: Callable[[int], None]
    ) -> tuple[Tensors, Tensors, Tensor | None]:
        """Runs the iterations in `each`.

        Args:
            seed: seeds torch's random numbers for the iteration at a place in `each`.
        Returns:
            the carry after them, their stacked outputs, and whether torch would compute each without an error.
        """
        if self.region is None:
            with uncollected():
                self.region = self._compile(carry, each, fixed, seed)
            self.report()
        return self.region(carry, [*each, *self._drawn(each, seed)], fixed)

    def _compile(self, carry: Tensors, each: Tensors, fixed: Tensors, seed: Callable[[int], None]) -> Region:
        step, carried, other = step_function(self.built.training, are_finite), len(carry), len(fixed)

        def flat(*given: Tensor) -> list[Tensor]:
            after, outputs = step(
                list(given[:carried]), list(given[carried + other :]), list(given[carried : carried + other])
            )
            return [*after, *outputs]

        traced = trace(flat, [*carry, *fixed, *(value[0] for value in each)])
        region = Region(traced.graph, carried, other, self.longest)
        self.draws = traced.draws
        region.compile(carry, [*each, *self._drawn(each, seed)], fixed)
        return region

    def _drawn(self, each: Tensors, seed: Callable[[int], None]) -> Tensors:
        """Returns the random tensors of the iterations, stacked, as the eager engine draws them."""
        if not self.draws:
            return []
        drawn: list[Tensors] = [[] for _ in self.draws]
        for place in range(each[0].shape[0]):
            seed(place)
            for draw, found in zip(self.draws, drawn, strict=True):
                found.append(draw())
        return [torch.stack(found) for found in drawn]


def _longest(_argument: Train) -> int:
    return MOST_AT_ONCE


def _made(built: Built, stacked: int, longest: int, report: Report) -> Translated:
    limits = (longest, REGION_BYTES // max(1, built.bytes + stacked), STACK_BYTES // max(1, stacked))
    return Translated(built, max(1, min(limits)), report)


COMPILER = Compiler(_longest, _made, plain_kernels)
