"""The `xla` engine: runs the eager engine's program, but its `train` steps in regions that JAX compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from runner.engine import eager
from runner.engine.compiled.binder import Binder
from runner.engine.rows import Compiling, Row, Rows
from runner.engine.state import State
from runner.engine.watch.watch import Watch
from runner.engine.xla.library import Library
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
    together: bool = False,
) -> Iterator[Row | Rows]:
    """Runs a plan as the eager engine does, and yields the same rows.

    A loop whose body is one `train` step runs in regions of many iterations. All other steps run as in the eager
    engine.

    Args:
        plan: from `compile`, for `engine: xla`.
        state, checkpoint, shared, watch: as in the eager engine. A checkpoint inside a region saves the state at the
            start of the region.
        compiling: called at each compilation.
        by_row: whether each region has only one iteration.
        together: whether the rows of a region are yielded together.
    Raises:
        RunError: a step fails; the problem names the place in the config.
        ExpectationError: an `expect` step does not hold.
    """
    bind = Binder(Library, compiling, shared=shared, by_row=by_row, together=together)
    return eager.execute_several(
        plan, state, checkpoint=checkpoint, shared=shared, watch=watch, bind=bind, several=bind.several
    )
