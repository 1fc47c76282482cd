"""The `xla` engine: runs the eager engine's program, but its `train` steps in regions that JAX compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from runner.engine import eager
from runner.engine.compiled.trainer import Binder
from runner.engine.rows import AnyRows, Compiling
from runner.engine.state import State, initial_state
from runner.engine.watch.watch import Watch
from runner.engine.xla.library import Library
from runner.errors import RunError
from runner.language.xla.checking import DEPENDENT, reason_of
from runner.language.xla.operators import Unsupported
from runner.language.xla.tracing import DependentDraw
from runner.plan.checks.translatable import OTHERS
from runner.plan.plan import Plan
from runner.plan.program.instructions import Action


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
) -> Iterator[AnyRows]:
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
    state = initial_state(plan) if state is None else state
    bind = Binder(Library, compiling, shared=shared, by_row=by_row, together=together)
    try:
        yield from eager.execute_several(
            plan, state, checkpoint=checkpoint, shared=shared, watch=watch, bind=bind, several=bind.several
        )
    except Unsupported as error:
        raise _untranslated(plan, state.position, reason_of(error)) from error
    except DependentDraw as error:
        raise _untranslated(plan, state.position, DEPENDENT) from error


def _untranslated(plan: Plan, position: int, reason: str) -> RunError:
    """Builds the error for a step that has no translation, though its expression has one."""
    action = plan.program[position]
    assert isinstance(action, Action)
    message = f"`engine: xla` cannot compile this step: {reason}"
    return RunError(plan.config.document.problem(action.config_path, message, f"write {OTHERS}", key=True))
