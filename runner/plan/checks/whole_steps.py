"""Checks shared by the engines that run only whole `train` steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from runner.faults import Faults
from runner.plan.program.instructions import Action, Instruction, Train

EAGER = "`engine: eager`"

PARTS = frozenset({"backward", "step", "zero_grad", "clip_grad_norm", "clip_grad_value"})
"""The steps that `train` combines."""


def check_whole_steps(
    program: Iterable[Instruction], prefix: str, faults: Faults, check: Callable[[Action, Train], None]
) -> None:
    """Report each separate part of a `train` step, and call `check` for each `train` step.

    Args:
        prefix: the start of the message, such as "`engine: compile` compiles".
        check: called once for all steps that share an evaluation.
    """
    seen: set[int] = set()
    for action in program:
        if not isinstance(action, Action):
            continue
        if action.kind in PARTS:
            message = f"{prefix} whole `train` steps, and `{action.kind}` is a part of one"
            faults.add(action.config_path, message, f"write `train`, or {EAGER}", key=True)
        elif isinstance(action.argument, Train) and id(action.argument.evaluation) not in seen:
            seen.add(id(action.argument.evaluation))
            check(action, action.argument)


def check_draws(action: Action, train: Train, engine: str, faults: Faults) -> bool:
    """Report a step whose micro-batches would draw random numbers, are weighted by their targets, or vary in number.

    Returns:
        whether a problem was found.
    """
    if train.ends_with:
        source = train.ends_with[0]
        message = (
            f"`engine: {engine}` takes {train.accumulate} micro-batches in every step, and the last step of a pass "
            f"over `{source}` has fewer"
        )
        hint = f"choose a `batch_size` that gives a multiple of {train.accumulate} batches, or write {EAGER}"
        faults.add(action.config_path, message, hint, key=True)
        return True
    classes = None if train.accumulation is None else train.accumulation.classes
    if classes is not None and classes.explicit:
        by = "its targets" if train.accumulation is None or train.accumulation.ratio is None else "its `over`"
        message = f"`engine: {engine}` weights micro-batches by their length, and this objective needs weights by {by}"
        faults.add(action.config_path, message, f"remove `accumulate`, or write {EAGER}", key=True)
        return True
    several = train.accumulate > 1 and any(computation.random for computation in train.evaluation.computations())
    if several:
        message = f"`engine: {engine}` draws random numbers once a step, and this step would in each micro-batch"
        faults.add(action.config_path, message, f"remove `accumulate`, or write {EAGER}", key=True)
    return several
