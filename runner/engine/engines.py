"""The engines by name: how each executes a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from runner.engine import eager
from runner.engine.nonfinite import Watch
from runner.engine.rows import Row
from runner.engine.state import State
from runner.plan.plan import Plan


def execute(
    plan: Plan,
    state: State | None = None,
    *,
    checkpoint: Callable[[str | None], None] | None = None,
    shared: bool = False,
    watch: Watch | None = None,
) -> Iterator[Row]:
    """Run a plan by the engine that its config names, and yield a row for its start and after each step.

    Args:
        plan: as `compile` gives it.
        state: where to go on from; the start unless given. It is changed in place.
        checkpoint: what `checkpoint` steps call with their tag, to save `state`; they do nothing without it.
        shared: rows share memory with the run, and with each other where a step left a tensor as it was. That is
            cheaper, and for readers that write nothing; the run never writes what a row holds.
        watch: over `state`; one that tells what it finds as Python warnings unless given.
    Raises:
        RunError: a step fails, or makes something non-finite, whose row is yielded before; the problem names the
            place in the config.
        ExpectationError: an `expect` step does not hold.
    """
    if plan.config.engine == "cudagraph":
        from runner.engine import cudagraph

        return cudagraph.execute(plan, state, checkpoint=checkpoint, shared=shared, watch=watch)
    return eager.execute(plan, state, checkpoint=checkpoint, shared=shared, watch=watch)
