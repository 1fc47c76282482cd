"""Turns a config into a plan: everything that can be decided before step 1.

In: a config and size limits. Out: a frozen `Plan`, or every problem of the config with its place.
`compiler` lists the stages in order; each has a sub-package.
"""

from runner.plan.compiler import PlanLimits, compile
from runner.plan.estimates import Estimates
from runner.plan.plan import Plan
from runner.plan.rows.columns import Column
from runner.plan.rows.log import LogPlan

__all__ = ["Column", "Estimates", "LogPlan", "Plan", "PlanLimits", "compile"]
