"""The engines by name: how each executes a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from runner.engine import eager
from runner.engine.rows import Compiling, Row
from runner.engine.state import State
from runner.engine.watch.watch import Watch
from runner.plan.plan import Plan


def execute(
    plan: Plan,
    state: State | None = None,
    *,
    checkpoint: Callable[[str | None], None] | None = None,
    shared: bool = False,
    watch: Watch | None = None,
    compiling: Compiling | None = None,
    by_row: bool = False,
) -> Iterator[Row]:
    """Run a plan by the engine that its config names, and yield a row for its start and after each step.

    Args:
        plan: as `compile` gives it.
        state: where to go on from; the start unless given. It is changed in place.
        checkpoint: what `checkpoint` steps call with their tag, to save `state`; they do nothing without it.
        shared: rows share memory with the run, and with each other where a step left a tensor as it was. That is
            cheaper, and for readers that write nothing; the run never writes what a row holds.
        watch: over `state`; one that tells what it finds as Python warnings unless given.
        compiling: told of each compilation of `engine: compile`.
        by_row: `state` is, as each row is given, that after it; an engine that takes several steps at once takes one.
    Raises:
        RunError: a step fails, or makes something non-finite, whose row is yielded before; the problem names the
            place in the config.
        ExpectationError: an `expect` step does not hold.
    """
    engine = _ENGINES[plan.config.engine]
    return engine(plan, state, compiling, by_row, {"checkpoint": checkpoint, "shared": shared, "watch": watch})


Given = Mapping[str, Any]
"""What every engine takes, by name."""


def _eager(plan: Plan, state: State | None, compiling: Compiling | None, by_row: bool, given: Given) -> Iterator[Row]:
    return eager.execute(plan, state, **given)


def _compiled(
    plan: Plan, state: State | None, compiling: Compiling | None, by_row: bool, given: Given
) -> Iterator[Row]:
    from runner.engine.compiled.execute import execute  # imports torch's compiler

    return execute(plan, state, compiling=compiling, by_row=by_row, **given)


def _captured(
    plan: Plan, state: State | None, compiling: Compiling | None, by_row: bool, given: Given
) -> Iterator[Row]:
    from runner.engine.cudagraph.execute import execute

    return execute(plan, state, **given)


_ENGINES: Mapping[str, Callable[[Plan, State | None, Compiling | None, bool, Given], Iterator[Row]]] = {
    "eager": _eager,
    "compile": _compiled,
    "cudagraph": _captured,
}
