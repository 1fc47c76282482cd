"""Constants of the measurement, apart from its code: readers of snapshots and configs need only these."""

from runner.plan.snapshots import FEWEST_RUNS

RULES = 1
"""The version of the perturbation rules; a snapshot names the version that it was measured with."""

BUDGET = 60.0
"""After this many seconds a config gets no more perturbed runs than `FEWEST`."""

FEWEST = FEWEST_RUNS
