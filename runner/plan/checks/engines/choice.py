"""Chooses the engine of `engine: auto`: by the plan and the installed extras alone, never by the environment."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from runner.config import Config, overridden
from runner.faults import Faults
from runner.language.graph.computation import Computation
from runner.language.inference.inference import readable_bytes
from runner.optim import OptimizerPlan
from runner.plan.checks.engines.compilable import loop_around
from runner.plan.checks.engines.step_size import updates_of
from runner.plan.checks.engines.translatable import check_jax, check_translatable
from runner.plan.checks.mixed_precision import check_scaled
from runner.plan.program.instructions import Action, Instruction, LoopEnd, LoopStart, LossScaling, Train
from runner.plan.rows.health import HealthPlan
from runner.plan.tensors.tensors import TensorPlan

SAVED = 15
"""Microseconds that XLA saves in one iteration for each operation of its expression, with gradients and update."""

STARTED = 3_000_000
"""Microseconds for importing JAX and tracing the first step."""

COMPILED = 50_000
"""Microseconds for compiling one operation of an expression, with gradients and the update of a few parameters."""

UPDATED = 2_400
"""Microseconds for tracing and compiling one operation of an update, where a step has so many that they decide."""

LARGEST_OPERATION = 256 << 10
"""Bytes that one operation may compute on average; in a larger one, most of the time is not the call of it."""


@dataclass(frozen=True, slots=True)
class _Loop:
    """A `train` step alone in its loop."""

    iterations: int
    operations: int
    bytes: int  # of all that its expression reads and computes
    updates: int  # operations of the update

    @property
    def cost(self) -> int:
        """Microseconds for compiling the step."""
        return max(self.operations * COMPILED, self.updates * UPDATED)


def choose_engine(
    config: Config,
    program: Sequence[Instruction],
    optimizers: Mapping[str, OptimizerPlan],
    tensors: Mapping[str, TensorPlan],
    health: HealthPlan,
    scaling: LossScaling | None,
) -> tuple[Config, str]:
    """The config with the engine of `engine: auto`, in its document too, and why it is this one.

    It is `xla` if that supports the config and its iterations save more than compiling costs, else `eager`.
    The cost of both is an estimate from the numbers of iterations and of operations.
    """
    loops = list(_loops(program, optimizers))
    saved = sum(loop.iterations * loop.operations for loop in loops) * SAVED
    cost = STARTED + sum(loop.cost for loop in loops)
    iterations = sum(loop.iterations for loop in loops)
    estimate = f"{iterations:,} iterations save about {_seconds(saved)} s, and compiling costs about {_seconds(cost)} s"
    obstacle = _obstacle(config, loops)
    if obstacle is None and saved <= cost:
        obstacle = estimate
    if obstacle is None:
        refusals = Faults(config.document)
        check_scaled(scaling, program, optimizers, tensors, "xla", refusals)
        check_jax(config.device, refusals)
        if not refusals.problems:
            trainable = [name for name, tensor in tensors.items() if tensor.requires_grad]
            check_translatable(program, optimizers, trainable, health, refusals)
        if refusals.problems:
            first = refusals.problems[0]
            obstacle = first.message if first.path == "engine" else f"{first.message}, in `{first.path}`"
    return (_with_engine(config, "xla"), estimate) if obstacle is None else (_with_engine(config, "eager"), obstacle)


def _with_engine(config: Config, engine: str) -> Config:
    """The config with an engine; its other fields stay, also those that differ from its document."""
    chosen = config.model_copy(update={"engine": engine})
    chosen._document = overridden(config, [f"engine={engine}"]).document
    return chosen


def _obstacle(config: Config, loops: Sequence[_Loop]) -> str | None:
    """Why XLA would not help, whatever the number of iterations."""
    if config.device != "cpu":
        return "`auto` chooses `xla` only on `cpu`"
    if not loops:
        return "no `train` step is alone in a loop, so none would run many iterations in one call"
    mean = max(loop.bytes // max(loop.operations, 1) for loop in loops)
    if mean > LARGEST_OPERATION:
        least = readable_bytes(LARGEST_OPERATION)
        return f"an operation computes {readable_bytes(mean)} on average, and `xla` saves little above {least}"
    return None


def _loops(program: Sequence[Instruction], optimizers: Mapping[str, OptimizerPlan]) -> Iterator[_Loop]:
    times: list[int] = []
    for position, instruction in enumerate(program):
        if isinstance(instruction, LoopStart):
            times.append(instruction.times)
        elif isinstance(instruction, LoopEnd):
            times.pop()
        elif (
            isinstance(instruction, Action)
            and isinstance(instruction.argument, Train)
            and loop_around(program, position) is not None
        ):
            largest = max(map(_size, instruction.argument.evaluation.computations()))
            yield _Loop(math.prod(times), *largest, updates_of(instruction.argument, optimizers))


def _size(computation: Computation) -> tuple[int, int]:
    """The number of operations, and the bytes of all values."""
    operations = sum(node.op.startswith("call_") for node in computation.nodes)
    examples = (node.meta.get("example") for node in computation.nodes)
    return operations, sum(each.numel() * each.dtype.itemsize for each in examples if isinstance(each, Tensor))


def _seconds(microseconds: int) -> str:
    hundredths = microseconds // 10_000
    return f"{hundredths // 100:,}.{hundredths % 100:02}"
