"""The program of a run as a flat list of instructions; loops are jumps, so a position in it is one number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from runner.language.graph.computation import Computation

if TYPE_CHECKING:
    from runner.language.pooling.pooling import Pool

ConfigPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A computation, and what of it a row records."""

    computation: Computation
    objective: int  # which output is the objective
    columns: tuple[tuple[int, int], ...]  # (output, column) of each value a row records
    kept: tuple[tuple[int, str], ...]  # (output, name) of each value that later steps may read
    batches: tuple[tuple[str, str], ...] = ()  # (batch column, source) of each column that it reads
    variants: tuple[tuple[tuple[int, ...], Computation], ...] = ()  # by the lengths of the batches of `sources`

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources whose batches it reads."""
        return tuple(dict.fromkeys(source for _, source in self.batches))

    def computations(self) -> Iterator[Computation]:
        """Itself, or one for each combination of lengths."""
        if not self.variants:
            yield self.computation
        yield from (computation for _, computation in self.variants)


@dataclass(frozen=True, slots=True)
class Part:
    """How an output of several batches becomes that of all of them together."""

    pool: Pool
    weights: tuple[int, int | None, int] | None = None  # outputs: targets and class weights; the ignored class
    dim: int = 0  # of the samples, where the outputs have an entry for each


@dataclass(frozen=True, slots=True)
class Clip:
    """`torch.nn.utils.clip_grad_norm_` or `clip_grad_value_` over some gradients."""

    parameters: tuple[str, ...]
    max_norm: float | None = None
    norm_type: float = 2.0
    value: float | None = None
    column: int | None = None  # of the norm


@dataclass(frozen=True, slots=True)
class Forward:
    evaluation: Evaluation


@dataclass(frozen=True, slots=True)
class Backward:
    evaluation: Evaluation
    gradient: Computation | None  # of the objective, where that is not one element
    parameters: tuple[str, ...]  # whose gradients it may change
    inputs: tuple[str, ...] | None  # torch's `inputs`


@dataclass(frozen=True, slots=True)
class Step:
    optimizers: tuple[str, ...]
    parameters: tuple[str, ...]
    closure: Evaluation | None  # what lbfgs evaluates again


@dataclass(frozen=True, slots=True)
class ZeroGrad:
    parameters: tuple[str, ...]
    set_to_none: bool


@dataclass(frozen=True, slots=True)
class Classes:
    """The targets of a loss over class indices, and their weights: what the share of each micro-batch is made from."""

    computation: Computation  # of the targets and the class weights, where there are any
    variants: tuple[tuple[tuple[int, ...], Computation], ...]  # by the lengths of the batches
    part: Part
    explicit: bool  # classes are weighted or ignored by what the expression says


@dataclass(frozen=True, slots=True)
class Accumulation:
    """How the micro-batches of a step become one: the objective of each is scaled before its backward."""

    parts: tuple[Part, ...]  # aligned with the outputs of the evaluation
    adds: bool = False  # the objective is a sum: its micro-batches have no share, and add
    classes: Classes | None = None  # None: shares are by length


@dataclass(frozen=True, slots=True)
class Train:
    evaluation: Evaluation
    optimizers: tuple[str, ...]
    parameters: tuple[str, ...]
    inputs: tuple[str, ...] | None
    clips: tuple[Clip, ...]
    closure: bool
    accumulate: int = 1
    draws: tuple[str, ...] = ()  # sources that draw their next batch before the first evaluation
    draws_again: tuple[str, ...] = ()  # and before each further micro-batch
    accumulation: Accumulation | None = None  # None: there is one batch


@dataclass(frozen=True, slots=True)
class ClipGradients:
    clip: Clip


@dataclass(frozen=True, slots=True)
class Assign:
    """All computations are done before any target is written."""

    targets: tuple[str, ...]  # "x1", "w.grad"
    computations: tuple[Computation, ...]  # the new value of each target
    config_paths: tuple[ConfigPath, ...]


@dataclass(frozen=True, slots=True)
class Expectation:
    """One entry of an `expect` step."""

    text: str
    actual: Computation | None  # None: `field` is read as it is
    field: str | None
    expected: Computation | None
    value: Any  # a number or nested list where `expected` is None; None means no gradient
    rtol: float | None
    atol: float | None
    config_path: ConfigPath


@dataclass(frozen=True, slots=True)
class Expect:
    expectations: tuple[Expectation, ...]


@dataclass(frozen=True, slots=True)
class Next:
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """One value of an `evaluate` step, over all samples."""

    output: int  # of the evaluation
    name: str  # "test.loss"
    dtype: torch.dtype
    column: int | None  # None: not logged
    derived: int | None = None  # output of what is computed from pooled values, where it is one of those


@dataclass(frozen=True, slots=True)
class Evaluate:
    source: str
    evaluation: Evaluation  # `training` false; a variant for every length of the source's batches
    results: tuple[Result, ...]

    parts: tuple[Part, ...] = ()  # aligned with the outputs of the evaluation
    derived: Computation | None = None  # results that are computed from parts: its inputs are "0", "1", … and tensors


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Save the full state, where the run is recorded."""

    tag: str | None


Argument = Checkpoint | Forward | Backward | Step | ZeroGrad | Train | ClipGradients | Assign | Expect | Next | Evaluate


@dataclass(frozen=True, slots=True)
class When:
    """The condition of a step, read just before it."""

    computation: Computation
    config_path: ConfigPath


@dataclass(frozen=True, slots=True)
class Action:
    """One step that does something."""

    kind: str  # "backward"
    path: str  # "repeat[{0}].2.train": a template over the iterations of `loops`
    loops: tuple[int, ...]  # the loops around it, outermost first
    argument: Argument
    every: int | None
    when: When | None
    rows: bool  # whether it logs a row
    config_path: ConfigPath

    @property
    def draws(self) -> bool:
        """Whether it draws random numbers."""
        return any(computation.random for computation in self.computations())

    def computations(self) -> Iterator[Computation]:
        """Every computation of the step, its condition included."""
        if self.when is not None:
            yield self.when.computation
        match self.argument:
            case Forward(evaluation) | Train(evaluation=evaluation) | Evaluate(evaluation=evaluation):
                yield from evaluation.computations()
            case Backward(evaluation, gradient):
                yield from evaluation.computations()
                if gradient is not None:
                    yield gradient
            case Step(closure=Evaluation() as evaluation):
                yield from evaluation.computations()
            case Assign(computations=computations):
                yield from computations
            case Expect(expectations):
                for expectation in expectations:
                    yield from (found for found in (expectation.actual, expectation.expected) if found is not None)


@dataclass(frozen=True, slots=True)
class LoopStart:
    """The head of a loop."""

    loop: int
    times: int
    exit: int
    loops: tuple[int, ...]  # around it, outermost first
    every: int | None
    when: When | None
    config_path: ConfigPath
    source: str | None = None  # of a `for_each`: each iteration begins with the source's next batch
    pass_length: int = 0  # iterations of one pass over it


@dataclass(frozen=True, slots=True)
class LoopEnd:
    """The foot of a loop: back to `start` until its times are done."""

    loop: int
    times: int
    start: int
    source: str | None = None
    pass_length: int = 0


@dataclass(frozen=True, slots=True)
class Break:
    """`stop`: out of the innermost loop."""

    exit: int
    loops: tuple[int, ...]
    every: int | None
    when: When | None
    config_path: ConfigPath


Instruction = Action | LoopStart | LoopEnd | Break
