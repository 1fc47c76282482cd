"""The `compile` engine: runs the eager engine's program, but its `train` steps in compiled regions."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from runner.engine import eager
from runner.engine.compiled.library import CompilationFault, Library
from runner.engine.compiled.trainer import Binder
from runner.engine.rows import AnyRows, Compiling
from runner.engine.state import State, initial_state
from runner.engine.watch.watch import Watch
from runner.errors import RunError
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
        plan: from `compile`, for `engine: compile`.
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
    given = {"checkpoint": checkpoint, "shared": shared, "watch": watch}
    try:
        yield from eager.execute_several(plan, state, bind=bind, several=bind.several, **given)  # type: ignore[arg-type]
    except CompilationFault as error:
        raise _compilation_fault(plan, state.position, error) from error


def _compilation_fault(plan: Plan, position: int, error: CompilationFault) -> RunError:
    """Builds the error for a step that torch cannot compile, or for a missing C++ compiler."""
    document, action = plan.config.document, plan.program[position]
    assert isinstance(action, Action)
    if error.no_compiler:
        hint = "install g++ or clang++, or name one in the environment variable CXX; or write `engine: eager`"
        return RunError(
            document.problem(("engine",), "`engine: compile` needs a C++ compiler, but none was found", hint)
        )
    message = f"torch cannot compile this step: {error}"
    return RunError(document.problem(action.config_path, message, "write `engine: eager`", key=True))
