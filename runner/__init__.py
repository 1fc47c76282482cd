"""steprun runs a training computation from one YAML file, step by step, and records every gradient and weight.

In: a config. Out: a plan, an iterator over rows of named tensors, or a recorded run.

    config = runner.load("configs/linear.yaml", overrides=["learning_rate=0.1"])
    plan = runner.compile(config)
    for row in runner.execute(plan):
        row["f"], row["x1"], row["x1.grad"]

    run = runner.run("configs/linear.yaml", runs_dir="runs")
    run.tensor("x1.grad")

Names are imported on first use, so `import runner` does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runner.config import Config, json_schema, load, loads
    from runner.engine import execute
    from runner.engine.rows import Row
    from runner.errors import ConfigError, ExpectationError, Mark, Problem, RunError, SteprunError, UsageError
    from runner.plan import Plan, compile
    from runner.plan.rows.columns import Column
    from runner.record import Run, list_runs, open_run, resume, run
    from runner.record.apply.loading import load_model
    from runner.record.apply.model import Model
    from runner.sweep.record.reading import Sweep, open_sweep

__version__ = "0.1.0"

_HOMES = {
    "Column": "runner.plan.rows.columns",
    "Config": "runner.config",
    "ConfigError": "runner.errors",
    "ExpectationError": "runner.errors",
    "Mark": "runner.errors",
    "Model": "runner.record.apply.model",
    "Plan": "runner.plan",
    "Problem": "runner.errors",
    "Row": "runner.engine.rows",
    "Run": "runner.record",
    "RunError": "runner.errors",
    "SteprunError": "runner.errors",
    "Sweep": "runner.sweep.record.reading",
    "UsageError": "runner.errors",
    "compile": "runner.plan",
    "execute": "runner.engine",
    "json_schema": "runner.config",
    "list_runs": "runner.record",
    "load": "runner.config",
    "load_model": "runner.record.apply.loading",
    "loads": "runner.config",
    "open_run": "runner.record",
    "open_sweep": "runner.sweep.record.reading",
    "resume": "runner.record",
    "run": "runner.record",
}
"""The module that defines each public name. `__getattr__` imports it."""

__all__ = [
    "Column",
    "Config",
    "ConfigError",
    "ExpectationError",
    "Mark",
    "Model",
    "Plan",
    "Problem",
    "Row",
    "Run",
    "RunError",
    "SteprunError",
    "Sweep",
    "UsageError",
    "__version__",
    "compile",
    "execute",
    "json_schema",
    "list_runs",
    "load",
    "load_model",
    "loads",
    "open_run",
    "open_sweep",
    "resume",
    "run",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
