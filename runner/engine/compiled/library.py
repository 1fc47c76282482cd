"""What has been compiled in a run, by what it is for."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException
from torch._inductor.exc import InvalidCxxCompiler

from runner.engine.binding import Binding
from runner.engine.compiled.building import Built, Drawn, Lengths, build
from runner.engine.compiled.regions import Region, compiled_region, mark_length
from runner.engine.compiled.training import step_function
from runner.engine.rows import Compiling
from runner.plan.checks.compilable import LONGEST
from runner.plan.program.instructions import Train

REGION_BYTES = 64 << 20
"""What the iterations of a region touch together, about: a region is over in a fraction of a second."""


_AS_IT_IS = {"automatic_dynamic_shapes": False, "specialize_float": True}
"""What a step is compiled for is its own shapes and numbers: torch would take those that differ from what it has
compiled before, in this process or in another, for variables, and so compute otherwise."""


class CompilationFault(Exception):
    """torch does not compile a step; `compiler` says whether it is because there is no C++ compiler."""

    def __init__(self, error: BaseException) -> None:
        causes = [error]
        while (cause := getattr(causes[-1], "inner_exception", None) or causes[-1].__cause__) is not None:
            causes.append(cause)
        told = str(causes[-1]).strip() or type(causes[-1]).__name__
        super().__init__(told.splitlines()[0])
        self.no_compiler = any(isinstance(cause, InvalidCxxCompiler) for cause in causes)


@dataclass(slots=True)
class Compiled:
    """A step for batches of some lengths, compiled at its first call."""

    built: Built
    region: Region
    longest: int  # iterations that it takes at most
    begun: float  # when its making began
    told: Callable[[float], None]
    called: bool = False

    def call(self, carry: list[Tensor], each: list[Tensor], fixed: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The carry after the iterations that `each` is for, and their outputs, stacked.

        Raises:
            CompilationFault: torch cannot compile it.
        """
        with torch.no_grad():
            if not self.called:
                try:
                    self._compile(carry, each, fixed)
                except TorchDynamoException as error:
                    raise CompilationFault(error) from error
                self.called = True
                self.told(time.perf_counter() - self.begun)
            return self.region(carry, each, fixed)

    def _compile(self, carry: list[Tensor], each: list[Tensor], fixed: list[Tensor]) -> None:
        with torch.random.fork_rng(devices=[]), torch._dynamo.config.patch(_AS_IT_IS):
            if self.longest > 1:
                each = [torch.cat([value, value]) for value in each]  # a length of 1 would be taken for a constant
                mark_length(each)
            self.region(carry, each, fixed)


class Library:
    """What is compiled for `train` steps that do the same.

    Args:
        several: whether one of them is taken in regions of several iterations.
    """

    def __init__(self, binding: Binding, argument: Train, several: bool, compiling: Compiling) -> None:
        self._binding = binding
        self._argument = argument
        self._compiling = compiling
        self._compiled: dict[Hashable, Compiled] = {}
        random = any(computation.random for computation in argument.evaluation.computations())
        self.longest = LONGEST if several and not random else 1

    def compiled(
        self, key: Hashable, lengths: Lengths, drawn: Callable[[], Drawn], iteration: Callable[[], int], path: str
    ) -> Compiled:
        """The step for some batches; what `key` does not tell apart is the same step."""
        if key not in self._compiled:
            self._compiled[key] = self._made(lengths, drawn(), iteration, path)
        return self._compiled[key]

    def _made(self, lengths: Lengths, drawn: Drawn, iteration: Callable[[], int], path: str) -> Compiled:
        self._compiling(path, None)
        begun = time.perf_counter()
        built = build(self._binding, self._argument, lengths, drawn, iteration)
        batch = sum(value.nbytes for example in drawn.examples for value in example.values())
        touched = built.bytes + batch + self._binding.plan.estimates.row
        longest = max(1, min(self.longest, REGION_BYTES // max(1, touched)))
        region = compiled_region(step_function(built.training), several=longest > 1)
        return Compiled(built, region, longest, begun, lambda seconds: self._compiling(path, seconds))
