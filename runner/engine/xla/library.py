"""The steps of a run that XLA compiled, by what they were compiled for."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from runner.engine.binding import Binding
from runner.engine.compiled.building import Built, Drawn, Lengths, build
from runner.engine.compiled.training import Step, step_function
from runner.engine.rows import Compiling
from runner.engine.xla.regions import Region
from runner.engine.xla.tracing import Traced, trace
from runner.plan.program.instructions import Train

LONGEST = 1 << 14
"""Maximum number of iterations in one call."""

REGION_BYTES = 64 << 20
"""The approximate bytes that all iterations of a region touch: it limits a region to a fraction of a second."""


@dataclass(slots=True)
class Compiled:
    """A step for certain batch lengths, traced and compiled at its first call."""

    built: Built
    longest: int  # the maximum number of iterations per call
    report: Callable[[float | None], None]  # called as the compilation begins, and with its seconds as it ends
    step: Step
    traced: Traced | None = None
    region: Region | None = None

    def call(
        self, carry: list[Tensor], each: list[Tensor], fixed: list[Tensor], seed: Callable[[int], None]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Runs the iterations in `each`. Returns the carry after them, and their stacked outputs.

        Args:
            seed: seeds torch's random numbers for the iteration at a place in `each`.
        """
        if self.traced is None or self.region is None:
            return self._first(carry, each, fixed, seed)
        return self.region(carry, [*each, *self._draws(self.traced, each, seed)], fixed)

    def _first(
        self, carry: list[Tensor], each: list[Tensor], fixed: list[Tensor], seed: Callable[[int], None]
    ) -> tuple[list[Tensor], list[Tensor]]:
        self.report(None)
        begun = time.perf_counter()
        traced = trace(self.step, carry, [value[0] for value in each], fixed)
        varying = len(each) + len(traced.draws)
        region = Region(traced.graph, len(carry), varying, self.longest)
        given = [*each, *self._draws(traced, each, seed)]
        region.compile(carry, given, fixed)
        self.traced, self.region = traced, region
        self.report(time.perf_counter() - begun)
        return region(carry, given, fixed)

    def _draws(self, traced: Traced, each: list[Tensor], seed: Callable[[int], None]) -> list[Tensor]:
        """Returns the random tensors of the iterations, stacked."""
        if not traced.draws:
            return []
        drawn: list[list[Tensor]] = [[] for _ in traced.draws]
        for place in range(each[0].shape[0]):
            seed(place)
            for draw, found in zip(traced.draws, drawn, strict=True):
                found.append(draw())
        return [torch.stack(found) for found in drawn]


class Library:
    """The compiled code of `train` steps that are equal.

    Args:
        several: whether one of the steps runs in regions of several iterations.
    """

    def __init__(self, binding: Binding, argument: Train, several: bool, compiling: Compiling) -> None:
        self._binding = binding
        self._argument = argument
        self._compiling = compiling
        self._compiled: dict[Hashable, Compiled] = {}
        self.longest = LONGEST if several else 1

    def compiled(
        self, key: Hashable, lengths: Lengths, drawn: Callable[[], Drawn], iteration: Callable[[], int], path: str
    ) -> Compiled:
        """Returns the compiled step for some batches. Calls with equal keys share one compilation."""
        if key not in self._compiled:
            self._compiled[key] = self._made(lengths, drawn(), iteration, path)
        return self._compiled[key]

    def _made(self, lengths: Lengths, drawn: Drawn, iteration: Callable[[], int], path: str) -> Compiled:
        built = build(self._binding, self._argument, lengths, drawn, iteration)
        batch = sum(value.nbytes for example in drawn.examples for value in example.values())
        touched = built.bytes + batch + self._binding.plan.estimates.row
        longest = max(1, min(self.longest, REGION_BYTES // max(1, touched)))
        return Compiled(built, longest, lambda seconds: self._compiling(path, seconds), step_function(built.training))
