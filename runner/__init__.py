"""steprun: a training computation in one YAML file, run step by step, every gradient and weight recorded.

In: a config. Out: a plan, rows of named tensors one by one, or a recorded run.

    config = runner.load("configs/linear.yaml", overrides=["learning_rate=0.1"])
    plan = runner.compile(config)
    for row in runner.execute(plan):
        row["f"], row["x1"], row["x1.grad"]

    run = runner.run("configs/linear.yaml", runs_dir="runs")
    run.tensor("x1.grad")

Names are imported when they are first used, so `import runner` imports no torch.
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

__version__ = "0.1.0"

_HOMES = {
    "Column": "runner.plan.rows.columns",
    "Config": "runner.config",
    "ConfigError": "runner.errors",
    "ExpectationError": "runner.errors",
    "Mark": "runner.errors",
    "Plan": "runner.plan",
    "Problem": "runner.errors",
    "Row": "runner.engine.rows",
    "Run": "runner.record",
    "RunError": "runner.errors",
    "SteprunError": "runner.errors",
    "UsageError": "runner.errors",
    "compile": "runner.plan",
    "execute": "runner.engine",
    "json_schema": "runner.config",
    "list_runs": "runner.record",
    "load": "runner.config",
    "loads": "runner.config",
    "open_run": "runner.record",
    "resume": "runner.record",
    "run": "runner.record",
}
"""Where each public name lives; `__getattr__` fetches it from there."""

__all__ = [
    "Column",
    "Config",
    "ConfigError",
    "ExpectationError",
    "Mark",
    "Plan",
    "Problem",
    "Row",
    "Run",
    "RunError",
    "SteprunError",
    "UsageError",
    "__version__",
    "compile",
    "execute",
    "json_schema",
    "list_runs",
    "load",
    "loads",
    "open_run",
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
