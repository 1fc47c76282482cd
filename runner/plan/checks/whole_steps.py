"""What is common to the engines that take a `train` step as a whole: its parts are refused, and each is looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from runner.faults import Faults
from runner.plan.program.instructions import Action, Instruction, Train

EAGER = "`engine: eager`"

PARTS = frozenset({"backward", "step", "zero_grad", "clip_grad_norm", "clip_grad_value"})
"""The steps of which a `train` is made."""


def check_whole_steps(
    program: Iterable[Instruction], takes: str, faults: Faults, check: Callable[[Action, Train], None]
) -> None:
    """Collect a fault for each part of a `train` that is a step of its own, and let `check` look at each `train`.

    Args:
        takes: what an engine does with whole steps: "`engine: compile` compiles".
        check: called once for steps that share their evaluation.
    """
    seen: set[int] = set()
    for action in program:
        if not isinstance(action, Action):
            continue
        if action.kind in PARTS:
            message = f"{takes} whole `train` steps, and `{action.kind}` is a part of one"
            faults.add(action.config_path, message, f"write `train`, or {EAGER}", key=True)
        elif isinstance(action.argument, Train) and id(action.argument.evaluation) not in seen:
            seen.add(id(action.argument.evaluation))
            check(action, action.argument)


def check_draws(action: Action, train: Train, engine: str, faults: Faults) -> bool:
    """Collect a fault where each micro-batch would draw random numbers, which are drawn once a step, or where its share
    depends on its targets; True: there is.
    """
    classes = None if train.accumulation is None else train.accumulation.classes
    if classes is not None and classes.explicit:
        message = f"`engine: {engine}` weighs micro-batches by their length, and this objective by its targets"
        faults.add(action.config_path, message, f"remove `accumulate`, or write {EAGER}", key=True)
        return True
    several = train.accumulate > 1 and any(computation.random for computation in train.evaluation.computations())
    if several:
        message = f"`engine: {engine}` draws random numbers once a step, and this one would in each micro-batch"
        faults.add(action.config_path, message, f"remove `accumulate`, or write {EAGER}", key=True)
    return several
