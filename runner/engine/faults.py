"""Faults of a run, placed in the config."""

from __future__ import annotations

from collections.abc import Sequence

from runner.engine.state import State
from runner.errors import ExpectationError, Problem, RunError
from runner.language.codegen import fault_place
from runner.language.diagnosis import torch_message
from runner.language.faults import LanguageError
from runner.plan.faults import place
from runner.plan.instructions import Action, Assign, Expectation, Leave
from runner.plan.plan import Plan


def run_fault(plan: Plan, position: int, iterations: Sequence[int], error: BaseException) -> RunError:
    """What a step raised, at the operation it happened in, else at the step."""
    document = plan.config.document
    instruction = plan.program[position]
    message = torch_message(error)
    hint = None
    if isinstance(error, LanguageError):
        message, hint = error.message, error.hint
    path = ("steps",)
    if isinstance(instruction, Action):
        message = f"{message} (at {instruction.path.format(*iterations)})"
        path = instruction.config_path  # type: ignore[assignment]
    found = fault_place(error.__traceback__)
    if found is None:
        return RunError(document.problem(path, message, hint))
    where, origin = found
    at: tuple[str | int, ...] = ("expression",)
    if isinstance(instruction, Leave) or (
        isinstance(instruction, Action) and not hasattr(instruction.argument, "evaluation")
    ):
        at = path
        if isinstance(instruction, Action) and isinstance(instruction.argument, Assign):
            at = instruction.argument.config_paths[0]
    return RunError(place(document, at, LanguageError(message, hint, where, origin)))


def does_not_hold(plan: Plan, state: State, failures: Sequence[tuple[Expectation, str]]) -> ExpectationError:
    """Every expectation of a step that does not hold."""
    problems: list[Problem] = []
    for expectation, difference in failures:
        message = f"`{expectation.text}`: {difference}"
        hint = f"after row {state.row - 1}"
        problems.append(plan.config.document.problem(expectation.config_path, message, hint, key=True))
    return ExpectationError(problems)
