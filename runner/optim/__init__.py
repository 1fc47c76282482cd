"""Optimizers: the classes of `torch.optim` by name, and rules written as equations.

In: the optimizers of a config. Out: frozen plans, and steppers that update parameters as planned.
During planning, torch's own classes validate the hyperparameters.
"""

from runner.optim.measured import named_as_numbers, readable, unreadable
from runner.optim.planning import plan_optimizers
from runner.optim.plans import (
    GroupPlan,
    InitialState,
    OptimizerPlan,
    Option,
    Rule,
    Scheduled,
    StateEntry,
    elements,
    resolve,
)
from runner.optim.rules import RuleContext, RuleStepper
from runner.optim.schedules import compile_schedule
from runner.optim.stepper import AnyStepper, StateValue, Stepper, build, refusal

__all__ = [
    "AnyStepper",
    "GroupPlan",
    "InitialState",
    "OptimizerPlan",
    "Option",
    "Rule",
    "RuleContext",
    "RuleStepper",
    "Scheduled",
    "StateEntry",
    "StateValue",
    "Stepper",
    "build",
    "compile_schedule",
    "elements",
    "named_as_numbers",
    "plan_optimizers",
    "readable",
    "refusal",
    "resolve",
    "unreadable",
]
