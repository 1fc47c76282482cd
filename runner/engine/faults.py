"""Faults of a run, placed in the config."""

from __future__ import annotations

from collections.abc import Sequence

from runner.engine.binding import MissingValue
from runner.engine.state import State
from runner.errors import ExpectationError, Problem, RunError
from runner.language.codegen import fault_place
from runner.language.diagnosis import torch_message
from runner.language.faults import LanguageError
from runner.plan.faults import ConfigPath, KeyPath, place
from runner.plan.instructions import Action, Again, Expectation
from runner.plan.plan import Plan


def run_fault(plan: Plan, position: int, iterations: Sequence[int], error: BaseException) -> RunError:
    """What a step raised, at the operation it happened in, else at the step."""
    document = plan.config.document
    instruction = plan.program[position]
    message = torch_message(error)
    path: ConfigPath = ("steps",)
    if not isinstance(instruction, Again):
        path = instruction.config_path
    if isinstance(instruction, Action):
        message = f"{message} (at {instruction.path.format(*iterations)})"
    if isinstance(error, MissingValue) and isinstance(error.origin, tuple):
        return RunError(document.problem(error.origin, message, key=isinstance(error.origin, KeyPath)))
    found = fault_place(error.__traceback__)
    if found is None:
        return RunError(document.problem(path, message))
    where, origin = found
    return RunError(place(document, ("expression",), LanguageError(message, None, where, origin)))


def does_not_hold(plan: Plan, state: State, failures: Sequence[tuple[Expectation, str]]) -> ExpectationError:
    """Every expectation of a step that does not hold."""
    problems: list[Problem] = []
    for expectation, difference in failures:
        message = f"`{expectation.text}`: {difference}"
        hint = f"after row {state.row - 1}"
        problems.append(plan.config.document.problem(expectation.config_path, message, hint, key=True))
    return ExpectationError(problems)
