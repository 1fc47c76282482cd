"""The `compile` engine: runs the eager engine's program, but its `train` steps in compiled regions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from runner.engine.compiled.library import Library
from runner.engine.compiled.machine_code import COMPILER, CompilationFault
from runner.engine.compiled.trainer import run_in_regions
from runner.engine.rows import AnyRows
from runner.engine.state import State, initial_state
from runner.errors import RunError
from runner.plan.plan import Plan
from runner.plan.program.instructions import Action


def execute(plan: Plan, state: State | None = None, **given: Any) -> Iterator[AnyRows]:
    """Runs a plan for `engine: compile`; arguments, rows and errors are those of `run_in_regions`."""
    state = initial_state(plan) if state is None else state
    try:
        yield from run_in_regions(partial(Library, COMPILER), plan, state, **given)
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
