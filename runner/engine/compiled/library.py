"""The compiled steps of a run, by what they were compiled for."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from runner.engine.binding import Binding
from runner.engine.compiled.building import Built, Drawn, Lengths, build
from runner.engine.compiled.trainer import Compiled, tracing
from runner.engine.rows import Compiling
from runner.plan.program.instructions import Train

Report = Callable[[], None]
"""Reports the seconds since the build of a step began."""


SHORTER = 16
"""How many times fewer iterations a call has after one that did not fit into memory."""


@dataclass(frozen=True, slots=True)
class Compiler:
    """What compiles the steps of an engine.

    Attributes:
        longest: the maximum number of iterations of any call, of a step that runs in regions of several iterations.
        make: makes a step of what was built, the bytes that an iteration stacks, the maximum number of iterations,
            and what reports its compilation at its first call.
        building: the context in which a step is built.
    """

    longest: Callable[[Train], int]
    make: Callable[[Built, int, int, Report], Compiled]
    building: Callable[[], AbstractContextManager[None]] = nullcontext


class Library:
    """The compiled code of `train` steps that are equal.

    Args:
        several: whether one of the steps runs in regions of several iterations.
    """

    def __init__(
        self, compiler: Compiler, binding: Binding, argument: Train, several: bool, compiling: Compiling
    ) -> None:
        self._compiler = compiler
        self._binding = binding
        self._argument = argument
        self._compiling = compiling
        self._compiled: dict[Hashable, Compiled] = {}
        self.longest = compiler.longest(argument) if several else 1

    def compiled(
        self, key: Hashable, lengths: Lengths, drawn: Callable[[], Drawn], iteration: Callable[[], int], path: str
    ) -> Compiled:
        """Returns the compiled step for some batches. Calls with equal keys share one compilation."""
        if key not in self._compiled:
            self._compiled[key] = self._made(lengths, drawn(), iteration, path)
        return self._compiled[key]

    def _made(self, lengths: Lengths, drawn: Drawn, iteration: Callable[[], int], path: str) -> Compiled:
        self._compiling(path, None)
        begun = time.perf_counter()
        with self._compiler.building(), tracing():
            built = build(self._binding, self._argument, lengths, drawn, iteration)
        batch = sum(value.nbytes for example in drawn.examples for value in example.values())
        stacked = batch + self._binding.plan.estimates.row
        report = lambda: self._compiling(path, time.perf_counter() - begun)  # noqa: E731
        return self._compiler.make(built, stacked, self.longest, report)
