"""Plans the config of a recorded run again, for its graph, its program and its data."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from runner.errors import SteprunError
from runner.plan import Plan, PlanLimits, compile
from runner.record.checkpoints.config_fields import config_fields, difference
from runner.record.checkpoints.fitted import load_fitted
from runner.record.reading import Run
from runner.record.resuming.stopped import config_of, recorded_folders
from runner.record.running import CONFIG_FIELDS

SECONDS = 5
"""The longest time for planning."""


def planned(run: Run, allowed: Sequence[Path]) -> tuple[Plan | None, str | None]:
    """The plan of a run; without one, the reason why there is none."""
    folders = [*allowed, *recorded_folders(run.manifest)]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = config_of(run, folders)
            before = run.manifest.get(CONFIG_FIELDS)
            changed = None if before is None else difference(before, config_fields(config.document))
            if changed is not None:
                return None, f"config.yaml has changed since the run began: {changed}"
            fitted = load_fitted(run.path, run.manifest)
            return compile(config, allowed=folders, limits=PlanLimits(seconds=SECONDS, runs=False), fitted=fitted), None
    except SteprunError as error:
        problem = error.problems[0]
        place = f"{problem.mark.line}:{problem.mark.column}: " if problem.mark else ""
        return None, f"its config cannot be planned again: {place}{problem.message}"
