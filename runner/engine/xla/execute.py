"""The `xla` engine: runs the eager engine's program, but its `train` steps in regions that JAX compiled."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from runner.engine.compiled.library import Library
from runner.engine.compiled.trainer import run_in_regions
from runner.engine.rows import AnyRows
from runner.engine.state import State, initial_state
from runner.engine.xla.translated import XlaFault, compiler
from runner.errors import RunError
from runner.language.xla.checking import DEPENDENT, reason_of
from runner.language.xla.operators import Unsupported
from runner.language.xla.tracing import DependentDraw
from runner.plan.checks.engines.translatable import OTHERS
from runner.plan.plan import Plan
from runner.plan.program.instructions import Action


def execute(plan: Plan, state: State | None = None, **given: Any) -> Iterator[AnyRows]:
    """Runs a plan for `engine: xla`; arguments, rows and errors are those of `run_in_regions`."""
    state = initial_state(plan) if state is None else state
    try:
        yield from run_in_regions(partial(Library, compiler()), plan, state, **given)
    except Unsupported as error:
        raise _untranslated(plan, state.position, reason_of(error)) from error
    except DependentDraw as error:
        raise _untranslated(plan, state.position, DEPENDENT) from error
    except XlaFault as error:
        raise _untranslated(plan, state.position, str(error), error.verb) from error


def _untranslated(plan: Plan, position: int, reason: str, verb: str = "compile") -> RunError:
    """Builds the error for a step that has no translation, though its expression has one, or that XLA refuses."""
    action = plan.program[position]
    assert isinstance(action, Action)
    message = f"`engine: xla` cannot {verb} this step: {reason}"
    return RunError(plan.config.document.problem(action.config_path, message, f"write {OTHERS}", key=True))
