"""`torch.optim` by name: planned from a config, and at work."""

from runner.optim.planning import plan_optimizers
from runner.optim.plans import GroupPlan, InitialState, OptimizerPlan, Option, Scheduled, StateEntry, resolve
from runner.optim.schedules import compile_schedule
from runner.optim.stepper import StateValue, Stepper, build

__all__ = [
    "GroupPlan",
    "InitialState",
    "OptimizerPlan",
    "Option",
    "Scheduled",
    "StateEntry",
    "StateValue",
    "Stepper",
    "build",
    "compile_schedule",
    "plan_optimizers",
    "resolve",
]
