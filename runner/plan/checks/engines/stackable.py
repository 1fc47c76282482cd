"""Finds what keeps the runs of a plan from being computed as lanes of one, with its place in the config."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from runner.faults import ConfigPath
from runner.optim import elements
from runner.plan.plan import Plan
from runner.plan.program.instructions import (
    Action,
    Assign,
    Backward,
    Break,
    Checkpoint,
    Evaluate,
    Expect,
    KeepBest,
    LoopEnd,
    LoopStart,
    Plateau,
    Step,
    Train,
    When,
)
from runner.plan.rows.health import HealthPlan

OTHER_DERIVATIVES = frozenset({"prod", "cumprod"})
"""Operations whose derivative torch computes by another formula for tensors of lanes, because it reads values."""


PARTED = (Assign, Expect, Checkpoint, KeepBest, Plateau)
"""The steps that some lanes have and others not: what they change can be given back."""

RATED = ("sgd", "adam", "adamw")
"""Optimizers whose learning rate may differ between lanes."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One thing that lanes cannot compute."""

    reason: str  # "lbfgs"
    path: ConfigPath


def unstackable(plan: Plan, exact: bool = True) -> Obstacle | None:
    """The first thing in a plan that lanes cannot compute; None if there is none.

    Args:
        exact: whether each lane must have the bits of the run alone.

    An operation that reads numbers back, or whose result has another shape in each run, is found only when it runs.
    """
    return next(_obstacles(plan, exact), None)


def _obstacles(plan: Plan, exact: bool) -> Iterator[Obstacle]:
    engine = plan.config.engine
    if engine not in (("eager",) if exact else ("eager", "xla")):
        yield Obstacle(f"engine: {engine}" + (" without --lanes close" if engine == "xla" else ""), ("engine",))
    if engine == "xla":
        yield from _of_xla(plan)
    if plan.device != "cpu":
        yield Obstacle(f"device: {plan.device}", ("device",))
    if plan.health != HealthPlan():
        yield Obstacle("health", ("health",))
    if plan.config.autocast is not None or plan.loss_scaling is not None:
        yield Obstacle("autocast", ("autocast",))
    if plan.start is not None or plan.optimizer_starts:
        yield Obstacle("a start from another run", ("parameters",))
    if plan.fitted:
        yield Obstacle("initial values that are computed from data", ("constants",))
    if plan.partial:
        yield Obstacle(f"`{min(plan.partial)}` may be undefined", ("expression",))
    for name, optimizer in plan.optimizers.items():
        if optimizer.needs_closure:
            yield Obstacle(optimizer.kind, optimizer.path)
        if optimizer.rule is not None and optimizer.rule.random:
            yield Obstacle(f"`{name}` draws random numbers", optimizer.path)
        if any(
            isinstance(entry.value, str) for entries in optimizer.initial_state.values() for entry in entries.values()
        ):
            yield Obstacle(f"an expression as initial state of `{name}`", optimizer.path)
        for _, option, value in optimizer.scheduled():
            if (option != "lr" or optimizer.kind not in RATED) and any(
                getattr(each, "reads", ()) for each in elements(value)
            ):
                yield Obstacle(f"`{option}` of `{optimizer.kind}` reads a parameter", optimizer.path)
    for instruction in plan.program:
        if isinstance(instruction, Action):
            yield from _of_step(plan, instruction)
        if not isinstance(instruction, LoopEnd) and instruction.when is not None:
            yield from _of_condition(instruction, instruction.when)


def _of_xla(plan: Plan) -> Iterator[Obstacle]:
    """What lanes compute, but not those of `engine: xla`."""
    with_xla = " with engine: xla"
    if plan.random:
        yield Obstacle(f"random numbers{with_xla}", ("engine",))
    for optimizer in plan.optimizers.values():
        for _, option, value in optimizer.scheduled():
            if any(getattr(each, "reads", ()) for each in elements(value)):
                yield Obstacle(f"`{option}` that reads a parameter{with_xla}", optimizer.path)
    for instruction in plan.program:
        if isinstance(instruction, Action) and isinstance(instruction.argument, Checkpoint | KeepBest | Plateau):
            yield Obstacle(f"`{instruction.kind}`{with_xla}", instruction.config_path)
        elif isinstance(instruction, Break) and instruction.patience is not None:
            yield Obstacle(f"`patience`{with_xla}", instruction.config_path)
        elif not isinstance(instruction, LoopEnd) and reads_tensors(instruction.when):
            word = "stop" if isinstance(instruction, Break) else "when"
            yield Obstacle(f"`{word}` that reads a tensor{with_xla}", instruction.config_path)


def _of_condition(instruction: Action | LoopStart | Break, when: When) -> Iterator[Obstacle]:
    """What keeps lanes from parting at a condition."""
    word = "stop" if isinstance(instruction, Break) else "when"
    if when.computation.random:
        yield Obstacle(f"`{word}` draws random numbers", instruction.config_path)
    if not reads_tensors(when):
        return
    if isinstance(instruction, Action) and not isinstance(instruction.argument, PARTED):
        yield Obstacle(f"`when` of `{instruction.kind}` reads a tensor", instruction.config_path)
    elif isinstance(instruction, Action) and instruction.draws:
        yield Obstacle(
            f"`when` reads a tensor, and its `{instruction.kind}` draws random numbers", instruction.config_path
        )


def _of_step(plan: Plan, action: Action) -> Iterator[Obstacle]:
    for name in _differentiated(action):
        if name in OTHER_DERIVATIVES:
            yield Obstacle(f"the derivative of `{name}`", action.config_path)
    match action.argument:
        case Train(closure=True):
            yield Obstacle("a closure", action.config_path)
        case Step(closure=closure) if closure is not None:
            yield Obstacle("a closure", action.config_path)
        case Evaluate() | Expect() if action.draws:
            yield Obstacle(f"`{action.kind}` draws random numbers", action.config_path)


def _differentiated(action: Action) -> Iterator[str]:
    """The names of the operations whose derivatives a step computes."""
    match action.argument:
        case Train(evaluation=evaluation) | Backward(evaluation=evaluation):
            for computation in evaluation.computations():
                for node in computation.nodes:
                    yield node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")


def reads_tensors(when: When | None) -> bool:
    """Whether a condition reads a tensor, whose value may differ between runs."""
    return when is not None and any(name != "iteration" for name in when.computation.inputs)
