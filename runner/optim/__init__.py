"""`torch.optim` by name, and rules: planned from a config, and at work."""

from runner.optim.planning import plan_optimizers
from runner.optim.plans import GroupPlan, InitialState, OptimizerPlan, Option, Rule, Scheduled, StateEntry, resolve
from runner.optim.rules import RuleStepper, RuleSurroundings
from runner.optim.schedules import compile_schedule
from runner.optim.stepper import AnyStepper, StateValue, Stepper, build

__all__ = [
    "AnyStepper",
    "GroupPlan",
    "InitialState",
    "OptimizerPlan",
    "Option",
    "Rule",
    "RuleStepper",
    "RuleSurroundings",
    "Scheduled",
    "StateEntry",
    "StateValue",
    "Stepper",
    "build",
    "compile_schedule",
    "plan_optimizers",
    "resolve",
]
