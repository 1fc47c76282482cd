"""Steps that torch compiles to machine code."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException
from torch._inductor.decomposition import decompositions
from torch._inductor.exc import InvalidCxxCompiler

from runner.engine.compiled.building import Built
from runner.engine.compiled.library import SHORTER, Compiler, Report
from runner.engine.compiled.regions import Region, compiled_region, mark_length
from runner.engine.compiled.toolchain import compile_quickly
from runner.engine.compiled.training import step_function
from runner.plan.checks.engines.compilable import LONGEST, runs_singly
from runner.plan.program.instructions import Train

REGION_BYTES = 64 << 20
"""The approximate bytes that all iterations of a region touch: it limits a region to a fraction of a second."""


_STATIC = {"automatic_dynamic_shapes": False, "specialize_float": True}
"""Settings that compile a step for its own shapes and numbers. By default torch makes those variable that differ from
an earlier compilation, in this process or another, and then computes differently."""


_INDEX_SELECT = torch.ops.aten.index_select.default
_usual_index_select = decompositions[_INDEX_SELECT]


@contextmanager
def _strict_indices() -> Iterator[None]:
    """Makes code that is compiled in the block refuse a negative index of `index_select`, as torch does.

    Inductor reads it as an index of `x[index]`, which counts from the end.
    """
    with mock.patch.dict(decompositions, {_INDEX_SELECT: _index_select}):
        yield


def _index_select(x: Tensor, dim: int, index: Tensor) -> Tensor:
    """`index_select`, with an index that is out of bounds in place of a negative one."""
    size = x.shape[dim] if x.ndim else 1
    found: Tensor = _usual_index_select(x, dim, torch.where(index < 0, size, index))
    return found


class CompilationFault(Exception):
    """torch cannot compile a step. `no_compiler` is true if there is no C++ compiler."""

    def __init__(self, error: BaseException) -> None:
        causes = [error]
        while (cause := getattr(causes[-1], "inner_exception", None) or causes[-1].__cause__) is not None:
            causes.append(cause)
        message = str(causes[-1]).strip() or type(causes[-1]).__name__
        super().__init__(message.splitlines()[0])
        self.no_compiler = any(isinstance(cause, InvalidCxxCompiler) for cause in causes)


@contextmanager
def _without_notes() -> Iterator[None]:
    """Hides torch's notes on standard error: of each complex operation, and of code that an exception reports too."""
    levels = {"torch._inductor.ir": logging.ERROR, "torch._inductor.scheduler": logging.CRITICAL + 1}
    before = {name: logging.getLogger(name).level for name in levels}
    try:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


@dataclass(slots=True)
class MachineCode:
    """A step for certain batch lengths, compiled at its first call."""

    built: Built
    region: Region
    longest: int  # the maximum number of iterations per call
    several: bool  # whether it is a loop over any number of iterations
    report: Report
    called: bool = False

    def shorten(self) -> bool:
        """Reduces `longest`, so that a call needs less memory; false if it cannot be less."""
        shorter = max(1, self.longest // SHORTER)
        shortened, self.longest = shorter < self.longest, shorter
        return shortened

    def call(
        self, carry: list[Tensor], each: list[Tensor], fixed: list[Tensor], seed: Callable[[int], None]
    ) -> tuple[list[Tensor], list[Tensor], None]:
        """Runs the iterations in `each`. Returns the carry after them, their stacked outputs, and None.

        Args:
            seed: seeds torch's random numbers for the iteration at a place in `each`; only the first can draw any.
        Raises:
            CompilationFault: torch cannot compile the step.
        """
        seed(0)
        with torch.no_grad():
            if not self.called:
                try:
                    self._compile(carry, each, fixed)
                except TorchDynamoException as error:
                    raise CompilationFault(error) from error
                self.called = True
                self.report()
            return *self.region(carry, each, fixed), None

    def _compile(self, carry: list[Tensor], each: list[Tensor], fixed: list[Tensor]) -> None:
        with torch.random.fork_rng(devices=[]), torch._dynamo.config.patch(_STATIC), _without_notes():
            if self.several:
                each = [torch.cat([value, value]) for value in each]  # torch would specialize on a length of 1
                mark_length(each)
            with _strict_indices():
                compile_quickly(lambda: self.region(carry, each, fixed))


def _longest(argument: Train) -> int:
    return 1 if runs_singly(argument) else LONGEST


def _made(built: Built, stacked: int, longest: int, report: Report) -> MachineCode:
    longest = max(1, min(longest, REGION_BYTES // max(1, built.bytes + stacked)))
    region = compiled_region(step_function(built.training), several=longest > 1)
    return MachineCode(built, region, longest, longest > 1, report)


COMPILER = Compiler(_longest, _made)
