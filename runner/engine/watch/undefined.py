"""Metrics that may have no value: rows have null for NaN, with one warning for each metric."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from runner.engine.state import State
from runner.errors import Problem
from runner.plan.plan import Plan
from runner.plan.program.instructions import Action

Report = Callable[[Problem], None]


class Undefined:
    """Replaces values that are not defined, such as the precision of a batch without predictions.

    Args:
        report: called with the warning.
    """

    __slots__ = ("_plan", "_report", "_reported", "_state")

    def __init__(self, plan: Plan, state: State, report: Report) -> None:
        self._plan = plan
        self._state = state
        self._report = report
        self._reported: set[str] = set()

    def without(self, name: str) -> Callable[[Any], Any]:
        """A function that returns a value of a metric, or None for NaN.

        Args:
            name: the metric's column: `auc`, or `valid.auc` of an `evaluate` step.
        """

        def defined(value: Any) -> Any:
            if not isinstance(value, Tensor) or not value.is_floating_point() or not bool(value.isnan().all()):
                return value
            if name not in self._reported:
                self._reported.add(name)
                self._report(self._problem(name))
            return None

        return defined

    def _problem(self, name: str) -> Problem:
        plan, state = self._plan, self._state
        metric = name.rpartition(".")[2]
        action = plan.program[state.position]
        assert isinstance(action, Action)
        at = f"row {state.row}, {action.path.format(*state.iterations)}"
        declared = plan.config.metrics[metric]
        hint = "look for NaN in what it reads, or use more samples at once: these may be too few, or of one class"
        if not isinstance(declared, str) and declared.over is not None:
            hint = "use more samples at once: the sum of its `over` is 0 where none counts"
        message = f"`{name}` is nan, and null in its row ({at}); later ones are not reported"
        return plan.config.document.problem(("metrics", metric), message, hint, key=True)
