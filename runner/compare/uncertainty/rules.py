"""What is fixed of the measurement, apart from it: reading a snapshot or a config needs no more."""

from runner.plan.snapshots import FEWEST_RUNS

RULES = 1
"""The version of how results are perturbed; a snapshot names the one that it was measured by."""

BUDGET = 60.0
"""Seconds after which a config gets no more perturbed runs than `FEWEST`."""

FEWEST = FEWEST_RUNS
