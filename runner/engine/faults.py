"""Faults of a run, each at its place in the config."""

from __future__ import annotations

import re
from collections.abc import Sequence

from runner.engine.binding import MissingValue
from runner.engine.data.batches import UnreadableData
from runner.engine.state import State
from runner.engine.watch.labels import label_fault
from runner.errors import ExpectationError, Problem, RunError
from runner.faults import ConfigPath, KeyPath, place
from runner.language.graph.codegen import fault_call, fault_place
from runner.language.lowering.diagnosis import device_hint, memory_message, torch_message
from runner.language.measures.operands import OperandError
from runner.language.text.faults import LanguageError
from runner.plan.plan import Plan
from runner.plan.program.instructions import Action, Expectation, LoopEnd


class LateOption(RuntimeError):
    """The hyperparameter at `path` needs state that torch creates only in the first step of a parameter."""

    def __init__(self, message: str, path: ConfigPath) -> None:
        super().__init__(message)
        self.path = path


class Uncapturable(RuntimeError):
    """`engine: cudagraph` cannot record a computation."""


FAULTS = (RuntimeError, ValueError, IndexError, TypeError, ArithmeticError, MemoryError)
"""The exceptions that a step may raise; each becomes a `RunError` with its place in the config."""


NO_DERIVATIVE = re.compile(r"derivative for (?:'|aten::)(\w+)[^']*'? is not implemented")
"""torch's message for an operation without a derivative; the backward pass raises it, not a line of the expression."""


_OVERFLOW = re.compile(r"value cannot be converted to type (\S+) without overflow")
"""torch's message for a number, such as a learning rate, beyond the dtype of a tensor."""

_TYPES = {
    "float": "float32",
    "double": "float64",
    "c10::Half": "float16",
    "c10::BFloat16": "bfloat16",
    "int64_t": "int64",
    "int": "int32",
    "short": "int16",
    "signed char": "int8",
    "unsigned char": "uint8",
}


def run_fault(plan: Plan, state: State, position: int, error: BaseException) -> RunError:
    """The error of a step as a `RunError`, at the operation that raised it, or at the step."""
    document, iterations = plan.config.document, state.iterations
    instruction = plan.program[position]
    if isinstance(error, UnreadableData):
        return RunError(document.problem(error.path, str(error), error.hint, key=True))
    if isinstance(error, LateOption):
        return RunError(document.problem(error.path, str(error), "let it be on from the first step on"))
    message = torch_message(error)
    hint = "write `engine: eager`" if isinstance(error, Uncapturable) else device_hint(message)
    if isinstance(error, OperandError):
        hint = error.hint
    overflow = _OVERFLOW.search(message)
    if overflow is not None:
        dtype = _TYPES.get(overflow[1], overflow[1])
        message, hint = f"a number in this step does not fit {dtype}", "make it smaller, or choose a larger dtype"
    memory = memory_message(error)
    if memory is not None:
        message, hint = f"this {memory}", "make it smaller, or log less: `log: {every: 10, tensors: stats}`"
    elif isinstance(instruction, Action) and hint is None:
        message, hint = _of_label(state, instruction, error) or (message, hint)
    path: ConfigPath = ("steps",)
    if not isinstance(instruction, LoopEnd):
        path = instruction.config_path
    if isinstance(instruction, Action):
        message = f"{message} (at {instruction.path.format(*iterations)})"
    underived = NO_DERIVATIVE.search(message)
    if underived is not None:
        path, hint = (
            ("expression",),
            f"no gradient flows through `{underived[1]}`: write `.detach()` after what it reads",
        )
    if isinstance(error, MissingValue) and isinstance(error.origin, tuple):
        return RunError(document.problem(error.origin, message, error.hint, key=isinstance(error.origin, KeyPath)))
    found = fault_place(error.__traceback__)
    if found is None:
        return RunError(document.problem(path, message, hint))
    where, origin = found
    return RunError(place(document, ("expression",), LanguageError(message, hint, where, origin)))


def _of_label(state: State, action: Action, error: BaseException) -> tuple[str, str] | None:
    """The message and hint for a label or index in a batch that torch rejects; None for any other error."""
    evaluation = getattr(action.argument, "evaluation", None) or getattr(action.argument, "closure", None)
    call = fault_call(error.__traceback__)
    if call is None or evaluation is None:
        return None
    return label_fault(call, {source: state.batches[source] for _, source in evaluation.batches})


def does_not_hold(plan: Plan, state: State, failures: Sequence[tuple[Expectation, str]]) -> ExpectationError:
    """The error for every expectation of a step that failed."""
    problems: list[Problem] = []
    for expectation, difference in failures:
        message = f"`{expectation.text}`: {difference}"
        hint = f"after row {state.row - 1}"
        problems.append(plan.config.document.problem(expectation.config_path, message, hint, key=True))
    return ExpectationError(problems)
