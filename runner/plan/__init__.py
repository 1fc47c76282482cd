"""Config to Plan: everything that can be decided before step 1."""

from runner.plan.columns import Column
from runner.plan.compiling import PlanLimits, compile
from runner.plan.estimates import Estimates
from runner.plan.log import LogPlan
from runner.plan.plan import Plan

__all__ = ["Column", "Estimates", "LogPlan", "Plan", "PlanLimits", "compile"]
