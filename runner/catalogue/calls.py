"""Checks calls against the signatures of operations; rejects denied arguments, given by name or by position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runner.catalogue.signatures import Argument, Overload, signature_text
from runner.catalogue.tables import Operation, argument_refusal, value_refusal
from runner.errors import did_you_mean, listing

ALIASES: Mapping[str, str] = {"axis": "dim", "keepdims": "keepdim"}
"""NumPy's argument names, each with torch's."""


@dataclass(frozen=True, slots=True)
class CallFault:
    """Why a call matches no signature, and the argument that is wrong."""

    message: str
    hint: str | None = None
    argument: int | str | None = None  # a position, a name, or None for the whole call


@dataclass(frozen=True, slots=True)
class _Given:
    """An argument with its given value, and its position or name in the call."""

    argument: Argument
    value: object
    where: int | str


def check_call(
    operation: Operation, positional: Sequence[object], named: Mapping[str, object], shown: str | None = None
) -> CallFault | None:
    """The fault of calling `operation` with these arguments, or None if some overload accepts them.

    Checks the number, names and strings of the arguments, and that no running statistics are written. Other types
    are left to torch. A call that passes cannot set an argument outside the tables.

    Args:
        positional, named: the given values, without the tensor of a method; only strings, None and False matter.
        shown: the operation's name as the config writes it; the operation's own name if None.
    """
    shown = shown or operation.name.removeprefix("F.").removeprefix("torch.")
    unknown = next((name for name in named if name not in operation.argument_names), None)
    if unknown is not None:
        return _unknown(operation, shown, unknown)
    most = max(_positions(overload) for overload in operation.overloads)
    if len(positional) > most:
        count = "1 argument" if most == 1 else f"{most:.0f} arguments"
        message = f"`{shown}` takes {count} by position, {len(positional)} are given"
        return CallFault(message, _arguments_hint(operation))
    faults: list[CallFault] = []
    for overload in operation.overloads:
        fault = _misfit(operation, shown, overload, positional, named)
        if fault is None:
            return _written_statistics(operation, shown, positional, named)
        faults.append(fault)
    return faults[0]


def _misfit(
    operation: Operation, shown: str, overload: Overload, positional: Sequence[object], named: Mapping[str, object]
) -> CallFault | None:
    hint = "it is " + " or ".join(f"`{signature_text(shown, each)}`" for each in operation.overloads[:3])
    takes = [argument for argument in overload if not argument.keyword_only]
    if len(positional) > _positions(overload):
        return CallFault(f"`{shown}` does not take these arguments together", hint)
    given = [_Given(takes[min(index, len(takes) - 1)], value, index) for index, value in enumerate(positional)]
    filled = {each.argument.name for each in given}
    by_name = {argument.name: argument for argument in overload}
    for name, value in named.items():
        if name not in by_name:
            return CallFault(f"`{shown}` does not take these arguments together", hint)
        if name in filled:
            return CallFault(f"argument `{name}` of `{shown}` is given twice", "remove one of them", name)
        given.append(_Given(by_name[name], value, name))
        filled.add(name)
    required = (argument.name for argument in overload if argument.default is None and not argument.variadic)
    missing = [f"`{name}`" for name in required if name not in filled]
    if missing:
        return CallFault(f"`{shown}` needs {listing(missing)}", hint)
    return next((fault for each in given if (fault := _text_fault(operation, shown, each, hint))), None)


def _text_fault(operation: Operation, shown: str, given: _Given, hint: str) -> CallFault | None:
    """The fault of a string argument whose parameter takes no string, or whose value is denied; else None."""
    argument, value = given.argument, given.value
    if not isinstance(value, str):
        return None
    if "str" not in argument.type.split("|"):
        word = _WORDS.get(argument.type, argument.type)
        article = "an" if word[0] in "aeiou" else "a"
        message = f"`{argument.name}` of `{shown}` is {article} {word}, not a string"
        return CallFault(message, hint, given.where)
    reason = value_refusal(operation, argument.name, value)
    if reason is None:
        return None
    return _refused(f"`{shown}` does not take `{argument.name}={value!r}` here", reason, given.where)


def _unknown(operation: Operation, shown: str, argument: str) -> CallFault:
    reason = argument_refusal(operation, argument)
    if reason:
        return _refused(f"`{shown}` does not take `{argument}` here", reason, argument)
    known = operation.argument_names
    alias = ALIASES.get(argument)
    meant = f"did you mean `{alias}`?" if alias in known else did_you_mean(argument, known)
    takes = _arguments_hint(operation)
    return CallFault(f"`{shown}` has no argument `{argument}`", f"{takes}; {meant}" if meant else takes, argument)


def _written_statistics(
    operation: Operation, shown: str, positional: Sequence[object], named: Mapping[str, object]
) -> CallFault | None:
    """The fault of a call that would write running statistics, as `batch_norm` does in training; else None."""
    if "running_statistics" not in operation.flags:
        return None
    given = dict(zip(operation.argument_names, positional, strict=False)) | dict(named)
    if given.get("running_mean") is None and given.get("running_var") is None:
        return None
    if given.get("training", False) is False:
        return None
    return CallFault(
        f"`{shown}` would write its running statistics in place",
        "pass `None` for them while training and update them by an `assign` step, or pass `training=False`",
    )


def _positions(overload: Overload) -> float:
    if any(argument.variadic for argument in overload):
        return float("inf")
    return sum(not argument.keyword_only for argument in overload)


def _arguments_hint(operation: Operation) -> str:
    names = operation.argument_names
    return f"it takes {listing(names)}" if names else "it takes no arguments"


def _refused(message: str, reason: str, where: int | str) -> CallFault:
    reason, _, hint = reason.partition("; ")
    return CallFault(f"{message}: {reason}", hint or None, where)


_WORDS = {
    "Tensor": "tensor",
    "Tensor[]": "list of tensors",
    "Scalar": "number",
    "Scalar|Scalar[]": "number or a list",
    "int": "integer",
    "int[]": "list of integers",
    "int|int[]": "integer or a list",
    "float": "number",
    "bool": "boolean",
}
