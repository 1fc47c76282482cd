"""Whether a call fits an operation's signatures: the check that keeps denied arguments out, by name or by position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runner.catalogue.signatures import Argument, Overload, signature_text
from runner.catalogue.tables import Operation, argument_refusal
from runner.errors import did_you_mean, listing

ALIASES: Mapping[str, str] = {"axis": "dim", "keepdims": "keepdim"}
"""NumPy's names that torch's own functions take too."""


@dataclass(frozen=True, slots=True)
class CallFault:
    """Why a call fits no signature, and which argument is to blame."""

    message: str
    hint: str | None = None
    argument: int | str | None = None  # a position, a name, or the call as a whole


def check_call(operation: Operation, positional: Sequence[object], named: Mapping[str, object]) -> CallFault | None:
    """The fault of calling `operation` with these arguments, or None where some overload takes them.

    Counts, names and strings are checked, and that statistics are not written. Types are left to torch, which knows
    them better; but a call that passes here reaches no argument outside the tables.

    Args:
        positional, named: the values given (of a method without its tensor); of them only strings, None and False
            are looked at.
    """
    unknown = next((name for name in named if name not in operation.argument_names), None)
    if unknown is not None:
        return _unknown(operation, unknown)
    faults = [_misfit(operation, overload, positional, named) for overload in operation.overloads]
    if None in faults:
        return _written_statistics(operation, positional, named) if "running_statistics" in operation.flags else None
    return max((fault for fault in faults if fault), key=lambda fault: fault.progress).fault


@dataclass(frozen=True, slots=True)
class _Misfit:
    fault: CallFault
    progress: int  # how far the overload fitted


def _misfit(
    operation: Operation, overload: Overload, positional: Sequence[object], named: Mapping[str, object]
) -> _Misfit | None:
    name = _shown(operation)
    hint = "it is " + listing(f"`{signature_text(name, each)}`" for each in operation.overloads)
    takes = [argument for argument in overload if not argument.keyword_only]
    variadic = next((index for index, argument in enumerate(takes) if argument.variadic), None)
    if variadic is None and len(positional) > len(takes):
        plural = "" if len(takes) == 1 else "s"
        message = f"`{name}` takes {len(takes)} positional argument{plural}, {len(positional)} are given"
        return _Misfit(CallFault(message, hint, len(takes)), 0)
    given: dict[str, tuple[Argument, object, int | str]] = {}
    for index, value in enumerate(positional):
        argument = takes[index if variadic is None else min(index, variadic)]
        given[argument.name] = argument, value, index
    for key, value in named.items():
        found = next((argument for argument in overload if argument.name == key), None)
        if found is None:
            return _Misfit(CallFault(f"`{name}` takes `{key}` only beside other arguments", hint, key), 1)
        if key in given:
            return _Misfit(CallFault(f"argument `{key}` of `{name}` is given twice", "remove one of them", key), 2)
        given[key] = found, value, key
    missing = [
        f"`{each.name}`" for each in overload if each.default is None and not each.variadic and each.name not in given
    ]
    if missing:
        return _Misfit(CallFault(f"`{name}` needs {listing(missing)}", hint), 3)
    for argument, value, where in given.values():
        if isinstance(value, str) and argument.type and "str" not in argument.type.split("|"):
            message = f"`{argument.name}` of `{name}` is {_article(argument.type)}, not a string"
            return _Misfit(CallFault(message, hint, where), 4)
    return None


def _unknown(operation: Operation, argument: str) -> CallFault:
    name = _shown(operation)
    reason = argument_refusal(operation, argument)
    if reason:
        return CallFault(f"`{argument}` of `{name}` is not available: {reason}", None, argument)
    known = operation.argument_names
    takes = f"it takes {listing(known)}" if known else "it takes none"
    meant = did_you_mean(argument, known)
    return CallFault(f"`{name}` has no argument `{argument}`", f"{takes}; {meant}" if meant else takes, argument)


def _written_statistics(
    operation: Operation, positional: Sequence[object], named: Mapping[str, object]
) -> CallFault | None:
    """`batch_norm` writes the running statistics that it is given, except where `training` is False."""
    names = [argument.name for argument in operation.overloads[0]]
    given = dict(zip(names, positional, strict=False)) | dict(named)
    statistics = [name for name in ("running_mean", "running_var") if given.get(name) is not None]
    if not statistics or given.get("training", False) is False:
        return None
    return CallFault(
        f"`{_shown(operation)}` would write `{statistics[0]}` while training",
        "give None for both statistics while training, and update them by an `assign` step",
        statistics[0] if statistics[0] in named else names.index(statistics[0]),
    )


def _shown(operation: Operation) -> str:
    """The name as a person would write it."""
    return operation.name.removeprefix("F.").removeprefix("torch.")


def _article(kind: str) -> str:
    word = {"Tensor": "tensor", "Tensor[]": "list of tensors", "int[]": "list of integers", "Scalar": "number"}.get(
        kind, kind
    )
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"
