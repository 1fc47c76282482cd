"""The graph of a whole expression, with the names of its values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import fx


@dataclass(frozen=True, slots=True)
class Lowered:
    """The complete graph of an expression."""

    graph: fx.Graph
    values: Mapping[str, Any]  # named values in text order: nodes, fixed scalars, tuples of nodes
    result: str  # the name of the last statement's value
    random: bool
    gradients: bool  # whether it contains `grad(y, x)`
    metrics: Mapping[str, Any] = field(default_factory=dict)  # expressions over the named values
    parts: Mapping[str, Any] = field(default_factory=dict)  # of declared ratios: "loss.sum" and "loss.over"

    def __getitem__(self, name: str) -> Any:
        """Returns the named value, metric or part `name`."""
        for found in (self.values, self.metrics):
            if name in found:
                return found[name]
        return self.parts[name]
