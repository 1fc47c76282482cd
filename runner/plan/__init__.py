"""Config to Plan: everything that can be decided before step 1."""

from runner.plan.compiler import PlanLimits, compile
from runner.plan.estimates import Estimates
from runner.plan.plan import Plan
from runner.plan.rows.columns import Column
from runner.plan.rows.log import LogPlan

__all__ = ["Column", "Estimates", "LogPlan", "Plan", "PlanLimits", "compile"]
