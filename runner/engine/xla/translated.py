"""Steps that are translated to JAX, and compiled by XLA."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from runner.engine.compiled.building import Built
from runner.engine.compiled.library import SHORTER, Compiler, Report
from runner.engine.compiled.trainer import tracing
from runner.engine.compiled.training import Tensors, step_function
from runner.engine.faults import FAULTS
from runner.engine.xla.exchange import Exchange
from runner.engine.xla.finiteness import are_finite
from runner.engine.xla.regions import Region
from runner.language.lowering.diagnosis import memory_message, torch_message
from runner.language.xla.tracing import Draw, Traced, plain_kernels, trace
from runner.plan.checks.engines.translatable import MOST_AT_ONCE
from runner.plan.memory import uncollected
from runner.plan.program.instructions import Train

REGION_BYTES = 1 << 30
"""The approximate bytes that all iterations of a region touch: it limits a region to a fraction of a second."""

STACK_BYTES = 16 << 20
"""The bytes that a region may stack: the batches and the rows of its iterations."""


class XlaFault(Exception):
    """XLA cannot compile or run a step.

    Args:
        verb: what it cannot do.
    """

    def __init__(self, verb: str, error: BaseException) -> None:
        super().__init__(torch_message(error))
        self.verb = verb


@contextmanager
def _faults(verb: str) -> Iterator[None]:
    """Context manager that raises `XlaFault` for an error in its block, unless memory is short."""
    try:
        yield
    except FAULTS as error:
        if memory_message(error) is not None:
            raise
        raise XlaFault(verb, error) from error


def shortened(longest: int) -> int:
    """Fewer iterations than a loop that did not fit into memory has; the same number if it cannot have fewer."""
    return max(min(2, longest), longest // SHORTER)


@dataclass(slots=True)
class Translated:
    """A step for certain batch lengths, traced and compiled at its first call."""

    built: Built
    longest: int  # the maximum number of iterations per call
    report: Report
    exchange: Exchange
    traced: Traced | None = None
    region: Region | None = None
    reported: bool = False

    def shorten(self) -> bool:
        """Reduces `longest`, so that a call needs less memory; false if it cannot be less.

        The step is compiled again. A loop stays a loop, since other code would give other bits.
        """
        fewer = shortened(self.longest)
        if fewer == self.longest:
            return False
        self.longest, self.region = fewer, None
        return True

    def call(
        self, carry: Tensors, each: Tensors, fixed: Tensors, seed: Callable[[int], None]
    ) -> tuple[Tensors, Tensors, Tensor | None]:
        """Runs the iterations in `each`.

        Args:
            seed: seeds torch's random numbers for the iteration at a place in `each`.
        Returns:
            the carry after them, their stacked outputs, and whether torch would compute each without an error.
        Raises:
            Untraced: torch cannot trace the step.
            XlaFault: XLA cannot compile or run it, unless memory is short.
        """
        if self.traced is None:
            with uncollected(), tracing():
                self.traced = self._trace(carry, each, fixed)
        stacked = [*each, *self._drawn(self.traced.draws, each, seed)]
        if self.region is None:
            with uncollected(), _faults("compile"):
                region = Region(self.traced.graph, len(carry), len(fixed), self.longest, self.exchange)
                region.compile(carry, stacked, fixed)
            self.region = region
            if not self.reported:
                self.report()
                self.reported = True
        with _faults("run"):
            return self.region(carry, stacked, fixed)

    def _trace(self, carry: Tensors, each: Tensors, fixed: Tensors) -> Traced:
        step, carried, other = step_function(self.built.training, are_finite), len(carry), len(fixed)

        def flat(*given: Tensor) -> list[Tensor]:
            after, outputs = step(
                list(given[:carried]), list(given[carried + other :]), list(given[carried : carried + other])
            )
            return [*after, *outputs]

        return trace(flat, [*carry, *fixed, *(value[0] for value in each)])

    def _drawn(self, draws: Sequence[Draw], each: Tensors, seed: Callable[[int], None]) -> Tensors:
        """Returns the random tensors of the iterations, stacked, as the eager engine draws them."""
        if not draws:
            return []
        drawn: list[Tensors] = [[] for _ in draws]
        for place in range(each[0].shape[0]):
            seed(place)
            for draw, found in zip(draws, drawn, strict=True):
                found.append(draw())
        return [torch.stack(found) for found in drawn]


def _longest(_argument: Train) -> int:
    return MOST_AT_ONCE


def compiler() -> Compiler:
    """What compiles the steps of one run."""
    exchange = Exchange()

    def make(built: Built, stacked: int, longest: int, report: Report) -> Translated:
        limits = (longest, REGION_BYTES // max(1, built.bytes + stacked), STACK_BYTES // max(1, stacked))
        return Translated(built, max(1, min(limits)), report, exchange)

    return Compiler(_longest, make, plain_kernels)
