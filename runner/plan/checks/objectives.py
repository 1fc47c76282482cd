"""Checks declared objectives: what divides a sum must not depend on what is trained."""

from __future__ import annotations

from collections.abc import Iterable

from runner.errors import listing
from runner.faults import Faults
from runner.language.graph.computation import differentiable_inputs
from runner.language.graph.lowered import Lowered


def check_objectives(objectives: Iterable[str], lowered: Lowered, trainable: Iterable[str], faults: Faults) -> None:
    """Report each declared objective whose `over` has a gradient."""
    trained = frozenset(trainable)
    for name in objectives:
        reached = [each for each in differentiable_inputs(lowered, f"{name}.over") if each in trained]
        if reached:
            read = listing([f"`{each}`" for each in reached], 3)
            message = f"the `over` of `{name}` depends on {read}, and only its `sum` is differentiated"
            faults.add(("objectives", name, "over"), message, "write `.detach()` after what it reads")
