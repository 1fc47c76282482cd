"""Faults of a run, placed in the config."""

from __future__ import annotations

import re
from collections.abc import Sequence

from runner.engine.batches import UnreadableData
from runner.engine.binding import MissingValue
from runner.engine.state import State
from runner.errors import ExpectationError, Problem, RunError
from runner.language.codegen import fault_place
from runner.language.diagnosis import torch_message
from runner.language.faults import LanguageError
from runner.plan.faults import ConfigPath, KeyPath, place
from runner.plan.instructions import Action, Again, Expectation
from runner.plan.plan import Plan

_LABEL = re.compile(r"Target (-?\d+) is out of bounds")
"""What torch says of a class that `cross_entropy` and `nll_loss` have no score for."""


def run_fault(plan: Plan, state: State, position: int, error: BaseException) -> RunError:
    """What a step raised, at the operation it happened in, else at the step."""
    document, iterations = plan.config.document, state.iterations
    instruction = plan.program[position]
    if isinstance(error, UnreadableData):
        return RunError(document.problem(error.path, str(error), error.hint, key=True))
    message, hint = torch_message(error), None
    label = _LABEL.search(str(error))
    if label and isinstance(instruction, Action):
        message, hint = _of_label(state, instruction, int(label[1])) or (message, None)
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
    return RunError(place(document, ("expression",), LanguageError(message, hint, where, origin)))


def _of_label(state: State, action: Action, label: int) -> tuple[str, str] | None:
    """Which sample holds the label that torch refuses, and a hint; None where no batch holds it."""
    evaluation = getattr(action.argument, "evaluation", None)
    for name, source in evaluation.batches if evaluation is not None else ():
        batches = state.batches[source]
        column = batches.taken[name]
        places = (column == label).reshape(len(column), -1).any(1).nonzero()
        if not column.is_floating_point() and len(places):
            sample = batches.sample(int(places[0]))
            message = f"the label {label} is out of bounds: sample {sample} of `{name}` in `{source}` holds it"
            return message, "labels are 0 to C - 1: give the scores more classes, or mend the data"
    return None


def does_not_hold(plan: Plan, state: State, failures: Sequence[tuple[Expectation, str]]) -> ExpectationError:
    """Every expectation of a step that does not hold."""
    problems: list[Problem] = []
    for expectation, difference in failures:
        message = f"`{expectation.text}`: {difference}"
        hint = f"after row {state.row - 1}"
        problems.append(plan.config.document.problem(expectation.config_path, message, hint, key=True))
    return ExpectationError(problems)
