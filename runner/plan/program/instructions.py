"""The program of a run as a flat list of instructions. Loops are jumps, so a position is one number."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from runner.language.graph.computation import Computation, Output

if TYPE_CHECKING:
    from runner.language.pooling.pooling import Pool

ConfigPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A computation, and which of its outputs a row records."""

    computation: Computation
    objective: int  # the index of the objective's output
    columns: tuple[tuple[int, int], ...]  # (output, column) of each value that a row records
    kept: tuple[tuple[int, str], ...]  # (output, name) of each value that later steps can read
    batches: tuple[tuple[str, str], ...] = ()  # (batch column, source) of each batch column that it reads
    variants: tuple[tuple[tuple[int, ...], Computation], ...] = ()  # by the lengths of the batches of `sources`

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources of its batches."""
        return tuple(dict.fromkeys(source for _, source in self.batches))

    def computations(self) -> Iterator[Computation]:
        """The computation itself, or all its variants."""
        if not self.variants:
            yield self.computation
        yield from (computation for _, computation in self.variants)


@dataclass(frozen=True, slots=True)
class Part:
    """How to combine an output over several batches."""

    pool: Pool
    weights: tuple[int, int | None, int] | None = (
        None  # indices of the outputs with targets and class weights; the ignored class
    )
    ratio: tuple[int, int] | None = None  # indices of the outputs whose sums it divides, if it is such a ratio
    dim: int = 0  # the dimension of the samples, if outputs have an entry per sample


@dataclass(frozen=True, slots=True)
class Clip:
    """`torch.nn.utils.clip_grad_norm_` or `clip_grad_value_` over some gradients."""

    parameters: tuple[str, ...]
    max_norm: float | None = None
    norm_type: float = 2.0
    value: float | None = None
    column: int | None = None  # the column of the norm


@dataclass(frozen=True, slots=True)
class Forward:
    evaluation: Evaluation


@dataclass(frozen=True, slots=True)
class Backward:
    evaluation: Evaluation
    gradient: Computation | None  # the gradient of an objective with several elements
    parameters: tuple[str, ...]  # the parameters whose gradients it may change
    inputs: tuple[str, ...] | None  # torch's `inputs`


@dataclass(frozen=True, slots=True)
class Step:
    optimizers: tuple[str, ...]
    parameters: tuple[str, ...]
    closure: Evaluation | None  # the evaluation that lbfgs repeats


@dataclass(frozen=True, slots=True)
class ZeroGrad:
    parameters: tuple[str, ...]
    set_to_none: bool


@dataclass(frozen=True, slots=True)
class Classes:
    """What determines the share of each micro-batch in an objective: the weights of its targets, or its `over`."""

    computation: Computation  # computes the targets, and the class weights if there are any; or `over`
    variants: tuple[tuple[tuple[int, ...], Computation], ...]  # by the lengths of the batches
    part: Part
    explicit: bool  # whether the config sets class weights, an ignored class or `over`


@dataclass(frozen=True, slots=True)
class Accumulation:
    """How to combine the micro-batches of a step: each objective is scaled before its backward."""

    parts: tuple[Part, ...]  # aligned with the outputs of the evaluation
    adds: bool = False  # whether the objective is a sum, which micro-batches add to without scaling
    classes: Classes | None = None  # None: shares are proportional to length
    ratio: tuple[int, int] | None = None  # indices of the outputs with `sum` and `over` of a declared objective


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
    draws_again: tuple[str, ...] = ()  # sources that draw again before each further micro-batch
    accumulation: Accumulation | None = None  # None: a single batch
    ends_with: tuple[str, ...] = ()  # sources whose last group of micro-batches in a pass is shorter


@dataclass(frozen=True, slots=True)
class ClipGradients:
    clip: Clip


@dataclass(frozen=True, slots=True)
class Assign:
    """An `assign` step: computes all new values before it writes any target."""

    targets: tuple[str, ...]  # "x1", "w.grad"
    computations: tuple[Computation, ...]  # the new value of each target
    config_paths: tuple[ConfigPath, ...]


@dataclass(frozen=True, slots=True)
class Expectation:
    """One entry of an `expect` step."""

    text: str
    actual: Computation | None  # None: compare `field` itself
    field: str | None
    expected: Computation | None
    value: Any  # a number or nested list if `expected` is None; None means no gradient
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
class Whole:
    """A value that is computed once from values of all samples."""

    computation: Computation
    gathered: tuple[tuple[str, int], ...]  # (input, output of the evaluation) of each value that is gathered


@dataclass(frozen=True, slots=True)
class Result:
    """One value of an `evaluate` step, over all samples."""

    inferred: Output  # its shape in one batch
    name: str  # "test.loss"
    dtype: torch.dtype
    column: int | None  # None: not logged
    output: int | None = None  # the index of the evaluation's output; None for one of the `wholes`
    derived: int | None = None  # the index among the outputs of `Evaluate.derived`, if it is one
    whole: int | None = None  # the index among `Evaluate.wholes`, if it is one
    partial: bool = False  # whether it may be undefined: a row has null for NaN


@dataclass(frozen=True, slots=True)
class Evaluate:
    source: str
    evaluation: Evaluation  # with `training` false, and a variant for every length of the source's batches
    results: tuple[Result, ...]

    parts: tuple[Part, ...] = ()  # aligned with the outputs of the evaluation
    derived: Computation | None = None  # results computed from combined outputs; its inputs are "0", "1", … and tensors
    wholes: tuple[Whole, ...] = ()
    bytes: int = 0  # of the values that are gathered


@dataclass(frozen=True, slots=True)
class LossScaling:
    """The arguments of `torch.amp.GradScaler`, for all `train` steps."""

    init_scale: float
    growth_factor: float
    backoff_factor: float
    growth_interval: int


@dataclass(frozen=True, slots=True)
class Followed:
    """A result of `evaluate` that a step follows, and how much better than the best so far a better one is."""

    result: str  # "valid.loss"
    mode: str  # "min" or "max"
    threshold: float = 0.0
    relative: bool = False

    @property
    def worst(self) -> float:
        """The best result before the first one."""
        return math.inf if self.mode == "min" else -math.inf


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A `checkpoint` step: saves the full state if the run is recorded."""

    tag: str | None


@dataclass(frozen=True, slots=True)
class KeepBest:
    """A `checkpoint` step with `best`: saves the full state when a new result is the best so far."""

    followed: Followed


@dataclass(frozen=True, slots=True)
class Plateau:
    """A `reduce_lr_on_plateau` step, with the arguments of `torch.optim.lr_scheduler.ReduceLROnPlateau`."""

    rate: str
    followed: Followed
    factor: float
    patience: int
    cooldown: int
    min_lr: float
    eps: float


@dataclass(frozen=True, slots=True)
class Patience:
    """A `patience` step: the number of evaluations in a row that are not better, after which it leaves the loop."""

    followed: Followed
    evaluations: int


Argument = (
    Checkpoint
    | Forward
    | Backward
    | Step
    | ZeroGrad
    | Train
    | ClipGradients
    | Assign
    | Expect
    | Next
    | Evaluate
    | Plateau
    | KeepBest
)


@dataclass(frozen=True, slots=True)
class When:
    """The condition of a step, evaluated just before the step."""

    computation: Computation
    config_path: ConfigPath


@dataclass(frozen=True, slots=True)
class Action:
    """One step other than a loop or `stop`."""

    kind: str  # "backward"
    path: str  # "repeat[{0}].2.train": a template over the iterations of `loops`
    loops: tuple[int, ...]  # the enclosing loops, outermost first
    argument: Argument
    every: int | None
    when: When | None
    rows: bool  # whether the step logs a row
    config_path: ConfigPath

    @property
    def draws(self) -> bool:
        """Whether the step draws random numbers."""
        return any(computation.random for computation in self.computations())

    def computations(self) -> Iterator[Computation]:
        """Every computation of the step, including its condition."""
        if self.when is not None:
            yield self.when.computation
        match self.argument:
            case Forward(evaluation) | Train(evaluation=evaluation):
                yield from evaluation.computations()
            case Evaluate(evaluation=evaluation, wholes=wholes):
                yield from evaluation.computations()
                yield from (whole.computation for whole in wholes)
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
    """The start of a loop."""

    loop: int
    times: int
    exit: int
    loops: tuple[int, ...]  # the enclosing loops, outermost first
    every: int | None
    when: When | None
    config_path: ConfigPath
    source: str | None = None  # for a `for_each`: each iteration starts with the source's next batch
    pass_length: int = 0  # iterations in one pass over the source


@dataclass(frozen=True, slots=True)
class LoopEnd:
    """The end of a loop: jumps back to `start` until `times` iterations are done."""

    loop: int
    times: int
    start: int
    source: str | None = None
    pass_length: int = 0


@dataclass(frozen=True, slots=True)
class Break:
    """A `stop` or `patience` step: leaves the innermost loop."""

    exit: int
    loops: tuple[int, ...]
    every: int | None
    when: When | None
    config_path: ConfigPath
    patience: Patience | None = None


Instruction = Action | LoopStart | LoopEnd | Break


def followed_by(instruction: Instruction) -> Followed | None:
    """The result that an instruction follows, if it follows one."""
    match instruction:
        case Action(argument=KeepBest(followed) | Plateau(followed=followed)):
            return followed
        case Break(patience=Patience(followed=followed)):
            return followed
    return None
