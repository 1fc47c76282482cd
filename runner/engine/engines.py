"""The engines by name."""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from typing import Any, cast

from runner.engine import eager
from runner.engine.rows import AnyRows, Compiling, Row
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
    """Run a plan with the engine of its config, and yield a row for its start and after each step.

    Args:
        plan: the plan that `compile` returns.
        state: the state to start from, changed in place; the initial state by default.
        checkpoint: called by `checkpoint` steps with their tag, to save `state`.
        shared: whether rows may share memory with the run and with each other. That is cheaper, and safe for
            readers that do not write; the run never writes the tensors of a row.
        watch: watches over `state`; by default it reports as Python warnings.
        compiling: called at each compilation of `engine: compile` and `engine: xla`.
        by_row: whether `state` has to be the state after each yielded row; then no engine runs several steps at once.
    Raises:
        RunError: a step fails, or makes something non-finite, after its row is yielded. The problem has the place
            in the config.
        ExpectationError: a value differs from what an `expect` step says.
    """
    given = {"checkpoint": checkpoint, "shared": shared, "watch": watch}
    several = {"compiling": compiling, "by_row": by_row}
    return cast(Iterator[Row], _run(plan, state, given, several))


def execute_together(
    plan: Plan,
    state: State | None = None,
    *,
    checkpoint: Callable[[str | None], None] | None = None,
    watch: Watch | None = None,
    compiling: Compiling | None = None,
) -> Iterator[AnyRows]:
    """Run a plan as `execute` does with `shared`, and yield the rows of steps that ran at once as one object.

    When it is yielded, `state` is the state after the last of its rows.
    """
    given = {"checkpoint": checkpoint, "shared": True, "watch": watch}
    return _run(plan, state, given, {"compiling": compiling, "together": True})


Given = Mapping[str, Any]
"""Keyword arguments: those that every engine takes, and those of engines that run several steps at once."""


def _run(plan: Plan, state: State | None, given: Given, several: Given) -> Iterator[AnyRows]:
    rows = _ENGINES[plan.config.engine](plan, state, given, several)
    return _collecting_new_objects(cast(Generator[AnyRows, None, None], rows))


LONG = 20_000
"""The rows after which a run is long. Freezing makes Python look at all objects, which takes as long as many rows."""


def _collecting_new_objects(rows: Generator[AnyRows, None, None]) -> Iterator[AnyRows]:
    """Yields the rows. In a long run, garbage collection passes over the objects that existed before.

    Rows are many objects, so Python would look at all others again and again: a notebook may have millions. Nothing
    changes where the caller has turned garbage collection off, or has frozen objects itself.
    """
    frozen = False
    with closing(rows):
        try:
            for number, row in enumerate(rows):
                if number == LONG and gc.isenabled() and not gc.get_freeze_count():
                    gc.freeze()
                    frozen = True
                yield row
        finally:
            if frozen:
                gc.unfreeze()


def _eager(plan: Plan, state: State | None, given: Given, several: Given) -> Iterator[AnyRows]:
    return eager.execute(plan, state, groups=True, **given)


def _compiled(plan: Plan, state: State | None, given: Given, several: Given) -> Iterator[AnyRows]:
    from runner.engine.compiled.execute import execute  # imports torch's compiler

    return execute(plan, state, **given, **several)


def _captured(plan: Plan, state: State | None, given: Given, several: Given) -> Iterator[AnyRows]:
    from runner.engine.cudagraph.execute import execute

    return execute(plan, state, **given)


def _translated(plan: Plan, state: State | None, given: Given, several: Given) -> Iterator[AnyRows]:
    from runner.engine.xla.execute import execute  # imports JAX

    return execute(plan, state, **given, **several)


_ENGINES: Mapping[str, Callable[[Plan, State | None, Given, Given], Iterator[AnyRows]]] = {
    "eager": _eager,
    "compile": _compiled,
    "cudagraph": _captured,
    "xla": _translated,
}
