"""Reads `metrics` and `objectives`: what a run measures, and how values of several batches are combined."""

from __future__ import annotations

from typing import Any

from runner.config.fields import FieldError, check_expression
from runner.config.record_models import MetricDeclaration, ObjectiveDeclaration
from runner.config.sections.faults import Faults
from runner.config.text.nodes import Path, describe

WAYS = (("sum", "over"), ("mean",), ("max",), ("min",), ("whole",))
"""The keys that a metric may have together; the first of them is required."""

_EXAMPLE = "write `metrics: {recall: {sum: hits, over: positives}}`"
_OBJECTIVE = "write `objectives: {loss: {sum: errors * mask, over: mask}}`"


def read_metrics(written: Any, faults: Faults) -> dict[str, str | MetricDeclaration]:
    """Returns the metrics by name: an expression as text, or a declaration."""
    if written is None:
        return {}
    if not isinstance(written, dict):
        example = 'write `metrics: {accuracy: "accuracy(scores, y)"}`'
        faults.add(("metrics",), f"expected a mapping of names to metrics, found {describe(written)}", example)
        return {}
    found = {name: _metric(metric, ("metrics", name), faults) for name, metric in written.items()}
    return {name: metric for name, metric in found.items() if metric is not None}


def _metric(written: Any, path: Path, faults: Faults) -> str | MetricDeclaration | None:
    if not isinstance(written, dict):
        try:
            return check_expression(written)
        except FieldError as error:
            faults.add(path, error.message, error.hint)
            return None
    declared = faults.build(MetricDeclaration, written, path)
    if declared is None:
        return None
    ways = [way[0] for way in WAYS if way[0] in declared.parts]
    if len(ways) > 1:
        message = f"`{path[-1]}` has both `{ways[0]}` and `{ways[1]}`"
        faults.add((*path, ways[1]), message, "keep one of them, or declare two metrics", key=True)
    elif not ways and declared.over is not None:
        message = "`over` divides a sum, and there is no `sum`"
        faults.add((*path, "over"), message, "add the sum that it divides: `{sum: hits, over: positives}`", key=True)
    elif not ways:
        faults.add(path, f"`{path[-1]}` does not say what to compute", _EXAMPLE, key=True)
    elif ways != ["sum"] and declared.over is not None:
        message = f"`over` divides a sum, and `{path[-1]}` has `{ways[0]}`"
        faults.add((*path, "over"), message, "remove `over`, or write `sum`", key=True)
    else:
        return declared
    return None


def read_objectives(written: Any, faults: Faults) -> dict[str, ObjectiveDeclaration]:
    """Returns the declared objectives by name."""
    if written is None:
        return {}
    if not isinstance(written, dict):
        faults.add(("objectives",), f"expected a mapping of names to objectives, found {describe(written)}", _OBJECTIVE)
        return {}
    found: dict[str, ObjectiveDeclaration] = {}
    for name, objective in written.items():
        path = ("objectives", name)
        if not isinstance(objective, dict):
            message = f"expected a mapping with `sum` and `over`, found {describe(objective)}"
            faults.add(path, message, _OBJECTIVE, key=objective is None)
            continue
        declared = faults.build(ObjectiveDeclaration, objective, path)
        if declared is not None:
            found[name] = declared
    return found
