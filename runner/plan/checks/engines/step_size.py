"""Estimates how many operations a compiled `train` step has, from the plan alone."""

from __future__ import annotations

from collections.abc import Mapping

from runner.optim import OptimizerPlan
from runner.plan.program.instructions import Train

MOST_IN_A_STEP = 20_000
"""The most operations of a whole step. One of 18,600 took 18 s to trace and 23 s to compile, of processor time."""

_OPERATIONS: Mapping[str, int] = {
    "adadelta": 32,
    "adagrad": 32,
    "adam": 49,
    "adamax": 39,
    "adamw": 50,
    "asgd": 42,
    "muon": 64,
    "nadam": 68,
    "radam": 60,
    "rmsprop": 24,
    "rprop": 48,
    "sgd": 14,
}
"""Operations for each parameter under an optimizer with its default options: the update, copies, and the check of what
is finite. Options add up to 20."""

_UNKNOWN = 50
"""Operations for each parameter under an optimizer of a later torch."""

_OF_ANY_RULE = 16
"""Operations for each parameter under a rule, besides those of its equations."""


def updated(train: Train, optimizers: Mapping[str, OptimizerPlan]) -> list[tuple[OptimizerPlan, str]]:
    """The parameters that a step updates, each with its optimizer."""
    return [
        (optimizers[optimizer], name)
        for optimizer in train.optimizers
        for name in optimizers[optimizer].parameters
        if train.inputs is None or name in train.inputs
    ]


def updates_of(train: Train, optimizers: Mapping[str, OptimizerPlan]) -> int:
    """About how many operations of a traced step belong to the updates of its parameters."""
    return sum(update_operations(optimizer, name) for optimizer, name in updated(train, optimizers))


def update_operations(optimizer: OptimizerPlan, parameter: str) -> int:
    """The same for one parameter."""
    if optimizer.rule is None:
        return _OPERATIONS.get(optimizer.kind, _UNKNOWN)
    equations = sum(node.op.startswith("call_") for node in optimizer.rule.update[parameter].nodes)
    return _OF_ANY_RULE + equations * 3 // 2  # a number of Python becomes a tensor
