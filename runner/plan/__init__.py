"""Config to plan: everything that can be decided before step 1.

In: a config, and limits of the machine. Out: a frozen `Plan`, or every fault of the config at its place.
`compiler` names the stages in order; each has a sub-package.
"""

from runner.plan.compiler import PlanLimits, compile
from runner.plan.estimates import Estimates
from runner.plan.plan import Plan
from runner.plan.rows.columns import Column
from runner.plan.rows.log import LogPlan

__all__ = ["Column", "Estimates", "LogPlan", "Plan", "PlanLimits", "compile"]
