"""Evaluates arguments: numbers, expressions over scalar constants, tuples; checks them against the table's types."""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from runner.catalogue import Argument
from runner.faults import PlacedFault
from runner.language.text.arithmetic import COUNTERS, FUNCTIONS, Names, Scalar
from runner.language.text.faults import LanguageError
from runner.language.text.scalars import calls_in, evaluate, names_in
from runner.optim.plans import Element, Option, Path, Scheduled, Value


@dataclass(frozen=True, slots=True)
class Scope:
    """The names that expressions in arguments may read."""

    names: Names  # scalar constants, and known 1-d constants as tuples
    running: Collection[str] = ()  # an expression that reads one of these is evaluated at each step
    unknown: Collection[str] = ()  # those of `running` without a value during planning: 1-d constants
    unreadable: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # tensors, why not, and a hint
    measured: Collection[str] = ()  # those of `running` that are parameters


def scalar(value: object, path: Path, names: Names) -> Scalar:
    """The number, or the value of the expression over scalar constants.

    Raises:
        PlacedFault: the value is neither a number nor a valid expression.
    """
    if isinstance(value, str):
        try:
            return evaluate(value, names)
        except LanguageError as error:
            raise PlacedFault.within(path, error) from None
    if isinstance(value, (int, float)):
        return value
    raise PlacedFault(path, f"{_shown(value)} is not a number", "write a number or an expression over scalar constants")


def integer(value: object, path: Path, names: Names) -> int:
    """As `scalar`, for an integer."""
    result = scalar(value, path, names)
    if isinstance(result, int) and not isinstance(result, bool):
        return result
    if isinstance(value, str):
        hint = "`//` divides integers" if "/" in value else "make it an integer"
        raise PlacedFault(path, f"an integer is needed here, and `{value}` is {_shown(result)}", hint)
    raise PlacedFault(path, f"an integer is needed here, not {_shown(result)}", "write an integer")


def argument_value(argument: Argument, value: object, path: Path, scope: Scope) -> Option:
    """The value of an argument as torch takes it: a number, boolean, string, None, or a tuple of numbers.

    An expression that reads a running name becomes a `Scheduled`, also as an element of a tuple.

    Raises:
        PlacedFault: the value does not fit the argument's type.
    """
    base = argument.type.split("|")[0]
    default = _default(argument)
    if value is None:
        if default is None or base.endswith("?"):
            return None
        raise PlacedFault(
            path, f"`{argument.name}` cannot be null", f"leave it out for its default, {argument.default}"
        )
    base = base.removesuffix("?")
    if base.endswith("[]"):
        return _tuple(argument, value, path, scope, default if isinstance(default, tuple) else None)
    return _element(argument, base, value, path, scope)


def _tuple(
    argument: Argument, value: object, path: Path, scope: Scope, default: tuple[Any, ...] | None
) -> tuple[Element, ...]:
    example = f"for instance {list(default)}".replace("None", "null") if default else "for instance [0.9, 0.99]"
    if not isinstance(value, (list, tuple)):
        raise PlacedFault(path, f"`{argument.name}` takes a list of numbers, not {_shown(value)}", example)
    if default and len(value) != len(default):
        raise PlacedFault(path, f"`{argument.name}` takes {len(default)} numbers, not {len(value)}", example)
    base = argument.type.removesuffix("[]")
    elements: list[Element] = []
    for position, part in enumerate(value):
        if part is None and default and default[position] is None:
            elements.append(None)
            continue
        element = _element(argument, base, part, (*path, position), scope)
        elements.append(float(element) if base == "float" and isinstance(element, int) else element)
    return tuple(elements)


def _element(argument: Argument, base: str, value: object, path: Path, scope: Scope) -> Element:
    if base == "str" and isinstance(value, str):
        return value
    if base == "str" or isinstance(value, (list, tuple, dict)):
        raise _misfit(argument, base, f", not {_shown(value)}", path)
    if isinstance(value, str) and base == "bool" and value.lower() in ("yes", "no", "on", "off", "y", "n"):
        raise PlacedFault(path, f"`{value}` is a string, not a boolean", "write `true` or `false`")
    if isinstance(value, str):
        _check_reads_numbers(value, path, scope.unreadable)
    if isinstance(value, str) and _runs(value, path, {*scope.running, *COUNTERS - scope.names.keys()}):
        return Scheduled(value, path, tuple(sorted(names_in(value) & {*scope.measured})))
    result = scalar(value, path, scope.names)
    if not fits(base, result):
        shown = f", and `{value}` is {_shown(result)}" if isinstance(value, str) else f", not {_shown(result)}"
        raise _misfit(argument, base, shown, path)
    return result


def _check_reads_numbers(text: str, path: Path, unreadable: Mapping[str, tuple[str, str]]) -> None:
    """Raise PlacedFault if an expression names a tensor that is no number."""
    try:
        found = sorted(names_in(text) & {*unreadable})
    except LanguageError:
        return  # compiling the expression reports this
    if found:
        raise PlacedFault(path, *unreadable[found[0]])


def _misfit(argument: Argument, base: str, shown: str, path: Path) -> PlacedFault:
    hint = "write one" if argument.default is None else f"its default is {argument.default}"
    return PlacedFault(path, f"`{argument.name}` takes {_NEEDS.get(base, 'a number')}{shown}", hint)


_FITS: Mapping[str, Callable[[Value], bool]] = {
    "float": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "bool": lambda value: isinstance(value, bool),
}
_NEEDS = {"float": "a number", "int": "an integer", "bool": "true or false", "str": "a word"}


def fits(base: str, value: Value) -> bool:
    """Whether a value has an argument's type (`float`, `int`, `bool`); any other type accepts every number."""
    check = _FITS.get(base)
    return check is None or check(value)


def _runs(text: str, path: Path, names: Collection[str]) -> bool:
    """Whether an expression reads one of the names, or calls a function that may be a schedule of the step count."""
    if not names:
        return False
    try:
        return not (names_in(text).isdisjoint(names) and calls_in(text) <= FUNCTIONS.keys())
    except LanguageError as error:
        raise PlacedFault.within(path, error) from None


def _default(argument: Argument) -> Any:
    return ... if argument.default is None else ast.literal_eval(argument.default)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    return f"`{value}`" if isinstance(value, str) else repr(value)
