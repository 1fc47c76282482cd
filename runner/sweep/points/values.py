"""The values of one axis: lists, ranges, blocks with axes inside, and random draws."""

from __future__ import annotations

import ast
import hashlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from statistics import NormalDist
from typing import Any

from runner.config.text.nodes import describe
from runner.language.text.arithmetic import Scalar
from runner.language.text.faults import LanguageError
from runner.language.text.parse import parse_expression
from runner.language.text.scalars import evaluate

MOST_VALUES = 1_000_000
"""The most values of one axis."""


LARGEST_EXPONENT = 307
"""The largest exponent of 10 in a `logspace`; its negative is the smallest."""


class AxisFault(ValueError):
    """A fault of the values of an axis: what is wrong, and a hint. The caller adds the place."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def values_of(written: Any, scalars: Mapping[str, Scalar]) -> list[Any]:
    """The values of an axis; a block with axes inside becomes one value for each combination.

    Args:
        written: a list, or the text of a `range`, `linspace` or `logspace`.
        scalars: the scalar constants that the text may read.
    Raises:
        AxisFault: the text is not one of these, or there are no values.
    """
    listed = _sequence(written, scalars) if isinstance(written, str) else list(written)
    combinations = itertools.chain.from_iterable(_combinations(each, scalars) for each in listed)
    found = list(itertools.islice(combinations, MOST_VALUES + 1))
    if len(found) > MOST_VALUES:
        raise AxisFault(f"the axis has more than {MOST_VALUES:,} values", "write fewer")
    if not found:
        raise AxisFault("the axis has no values", "write at least one value")
    return found


def _combinations(value: Any, scalars: Mapping[str, Scalar]) -> Iterator[Any]:
    """Yields a value with each combination of the axes inside it."""
    if isinstance(value, dict):
        if list(value) == ["grid"]:
            yield from values_of(value["grid"], scalars)
            return
        for combination in _product(value.values(), scalars):
            yield dict(zip(value, combination, strict=True))
    elif isinstance(value, list):
        yield from map(list, _product(value, scalars))
    else:
        yield value


def _product(parts: Iterable[Any], scalars: Mapping[str, Scalar]) -> Iterator[tuple[Any, ...]]:
    """The product of the combinations of some parts."""
    choices = [list(_combinations(part, scalars)) for part in parts]
    count = math.prod(map(len, choices))
    if count > MOST_VALUES:
        raise AxisFault(f"the axis has {count:,} values, and an axis has at most {MOST_VALUES:,}", "write fewer")
    return itertools.product(*choices)


def _sequence(text: str, scalars: Mapping[str, Scalar]) -> list[Any]:
    hint = "write a list, or `range(5)`, `linspace(0, 1, 11)` or `logspace(-5, -1, 5)`"
    try:
        call = parse_expression(text)
    except LanguageError as error:
        raise AxisFault(f"`{text}` is not a list of values: {error}", hint) from error
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.keywords:
        raise AxisFault(f"`{text}` is not a list of values", hint)
    make = _SEQUENCES.get(call.func.id)
    if make is None:
        raise AxisFault(f"there is no sequence `{call.func.id}`", hint)
    try:
        arguments = [evaluate(ast.unparse(argument), scalars) for argument in call.args]
    except LanguageError as error:
        raise AxisFault(f"`{text}` has an argument that is not a number: {error}", hint) from error
    return make(text, arguments)


def _range(text: str, arguments: list[Scalar]) -> list[Any]:
    if not 1 <= len(arguments) <= 3 or not all(type(each) is int for each in arguments):
        raise AxisFault(f"`{text}` needs one to three integers", "write `range(5)`, or `range(2, 10, 2)`")
    if len(arguments) == 3 and arguments[2] == 0:
        raise AxisFault(f"`{text}` has a step of zero", "write a step such as 1")
    given = [int(each) for each in arguments]
    start, stop, step = (0, *given, 1) if len(given) == 1 else (*given, 1)[:3]
    _check_count(text, max(0, -((start - stop) // step)))  # `len` takes counts below 2^63 only
    return list(range(start, stop, step))


def _linspace(text: str, arguments: list[Scalar]) -> list[Any]:
    start, end, count = _ends(text, arguments)
    _check_span(text, end - start)
    if count == 1:
        return [start]
    return [*(start + (end - start) * (place / (count - 1)) for place in range(count - 1)), end]


def _check_span(text: str, span: float, hint: str = "write numbers that are closer together") -> None:
    if not math.isfinite(span):
        raise AxisFault(f"`{text}` spans more than a float64 can hold", hint)


_LEAST_MEANT = 0.1
"""A positive exponent below this is a value that was meant as itself."""


def _logspace(text: str, arguments: list[Scalar]) -> list[Any]:
    exponents = _linspace(text, arguments)
    least, largest = min(exponents), max(exponents)
    start, end, count = _ends(text, arguments)
    if 0 < least < _LEAST_MEANT and largest < 1 and end > 0:
        raise AxisFault(
            f"`{text}` takes exponents of 10, so its values go from {10.0**least:.6g} to {10.0**largest:.6g}",
            f"write `logspace({math.log10(start):.6g}, {math.log10(end):.6g}, {count})`, or a list",
        )
    if max(exponents) > LARGEST_EXPONENT or min(exponents) < -LARGEST_EXPONENT:
        hint = "write exponents such as `logspace(-5, -1, 5)`"
        raise AxisFault(f"`{text}` goes beyond 10^{LARGEST_EXPONENT} or 10^-{LARGEST_EXPONENT}", hint)
    return [10.0**exponent for exponent in exponents]


def _ends(text: str, arguments: list[Scalar]) -> tuple[float, float, int]:
    if len(arguments) != 3 or type(arguments[2]) is not int or not all(map(math.isfinite, arguments)):
        raise AxisFault(
            f"`{text}` needs a start, an end and a count", "write three numbers, such as `linspace(0, 1, 11)`"
        )
    _check_count(text, arguments[2])
    return float(arguments[0]), float(arguments[1]), arguments[2]


def _check_count(text: str, count: int) -> None:
    if count < 1:
        raise AxisFault(f"`{text}` has no values", "write at least one value")
    if count > MOST_VALUES:
        raise AxisFault(f"`{text}` has {count:,} values, and an axis has at most {MOST_VALUES:,}", "write fewer")


_SEQUENCES: Mapping[str, Callable[[str, list[Scalar]], list[Any]]] = {
    "range": _range,
    "linspace": _linspace,
    "logspace": _logspace,
}


def drawn(written: Any, seed: int, axis: str, number: int, scalars: Mapping[str, Scalar]) -> Any:
    """Draw `number` of a random axis: a function of (seed, axis, number) alone.

    Args:
        written: a distribution, such as `{log_uniform: [1e-5, 1e-1]}`; a choice may contain further ones.
    Raises:
        AxisFault: the arguments do not fit the distribution.
    """
    if isinstance(written, dict):
        if len(written) == 1:
            (kind, arguments), *_ = written.items()
            if kind in _DISTRIBUTIONS:
                fraction = _fraction(seed, axis, number)
                value = _DISTRIBUTIONS[kind](arguments, fraction, scalars)
                return drawn(value, seed, f"{axis}/{kind}", number, scalars) if kind == "choice" else value
        return {key: drawn(value, seed, f"{axis}.{key}", number, scalars) for key, value in written.items()}
    if isinstance(written, list):
        return [drawn(value, seed, f"{axis}.{place}", number, scalars) for place, value in enumerate(written)]
    return written


class _Listed(list[Any]):
    """The values of a choice, as `values_of` returns them."""


def resolved(written: Any, scalars: Mapping[str, Scalar]) -> Any:
    """A random axis with the values of its choices, so that `drawn` need not list them for each draw.

    Args:
        written: as for `drawn`; `check_distribution` finds no fault of it.
    """
    if isinstance(written, dict):
        if list(written) == ["choice"]:
            return {"choice": _Listed(resolved(value, scalars) for value in values_of(written["choice"], scalars))}
        return {key: resolved(value, scalars) for key, value in written.items()}
    if isinstance(written, list):
        return [resolved(value, scalars) for value in written]
    return written


def check_distribution(written: Any, scalars: Mapping[str, Scalar]) -> None:
    """Check the arguments of a random axis, so that no draw of it fails.

    Raises:
        AxisFault: the arguments do not fit the distribution.
    """
    parts = list(written.values()) if isinstance(written, dict) else written if isinstance(written, list) else []
    if isinstance(written, dict) and len(written) == 1:
        (kind, arguments), *_ = written.items()
        if kind in _DISTRIBUTIONS:
            _DISTRIBUTIONS[kind](arguments, 0, scalars)
            parts = values_of(arguments, scalars) if kind == "choice" else []
    for part in parts:
        check_distribution(part, scalars)


def _fraction(seed: int, axis: str, number: int) -> int:
    """A random integer of 64 bits: the head of a SHA-256 of the stream's name."""
    name = f"{seed}/{axis}/{number}".encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:8], "big")


_BITS = 64


def _uniform(arguments: Any, bits: int, scalars: Mapping[str, Scalar]) -> float:
    low, high = _two("uniform", arguments, scalars)
    if not low <= high:
        raise AxisFault(f"`uniform` begins at {low} and ends at {high}", "write the smaller number first")
    _check_span("uniform", high - low)
    return low + (high - low) * ((bits >> 11) / (1 << 53))


def _log_uniform(arguments: Any, bits: int, scalars: Mapping[str, Scalar]) -> float:
    low, high = _two("log_uniform", arguments, scalars)
    if not 0 < low <= high:
        message = f"`log_uniform` needs two positive numbers, the smaller first, and has {low} and {high}"
        raise AxisFault(message, "write two such as `[1e-5, 1e-1]`")
    found = math.exp(math.log(low) + (math.log(high) - math.log(low)) * ((bits >> 11) / (1 << 53)))
    return min(max(found, low), high)


_FARTHEST = 9
"""More standard deviations than any draw has from its mean: 2^-53 of a normal distribution lies beyond 8.3."""


def _normal(arguments: Any, bits: int, scalars: Mapping[str, Scalar]) -> float:
    mean, deviation = _two("normal", arguments, scalars)
    if not deviation > 0:
        raise AxisFault(f"`normal` has a standard deviation of {deviation}", "write a positive number")
    _check_span("normal", abs(mean) + _FARTHEST * deviation, "write smaller numbers")
    return NormalDist(mean, deviation).inv_cdf(((bits >> 12) + 0.5) / (1 << 52))


def _randint(arguments: Any, bits: int, scalars: Mapping[str, Scalar]) -> int:
    low, high = _two("randint", arguments, scalars)
    if low != int(low) or high != int(high) or not low < high:
        message = f"`randint` needs two integers, the smaller first, and has {low} and {high}"
        raise AxisFault(message, "write two such as `[1, 9]`; the second is excluded")
    if not -(1 << 63) <= low <= high <= 1 << 63:
        raise AxisFault("`randint` reaches beyond 64 bits", "write integers from -2^63 to 2^63")
    return int(low) + ((bits * (int(high) - int(low))) >> _BITS)


def _choice(arguments: Any, bits: int, scalars: Mapping[str, Scalar]) -> Any:
    if not isinstance(arguments, list | str):
        raise AxisFault(f"`choice` needs a list, and has {describe(arguments)}", "write `{choice: [a, b]}`")
    values = arguments if isinstance(arguments, _Listed) else values_of(arguments, scalars)
    return values[(bits * len(values)) >> _BITS]


def _two(kind: str, arguments: Any, scalars: Mapping[str, Scalar]) -> tuple[float, float]:
    if not isinstance(arguments, list) or len(arguments) != 2:
        raise AxisFault(
            f"`{kind}` needs a list of two numbers, and has {describe(arguments)}", f"write `{kind}: [0, 1]`"
        )
    try:
        low, high = (evaluate(each, scalars) if isinstance(each, str) else each for each in arguments)
    except LanguageError as error:
        raise AxisFault(f"`{kind}` has an argument that is not a number: {error}", f"write `{kind}: [0, 1]`") from error
    if not all(isinstance(each, int | float) and math.isfinite(each) for each in (low, high)):
        raise AxisFault(f"`{kind}` needs two finite numbers", f"write `{kind}: [0, 1]`")
    return low, high


_DISTRIBUTIONS: Mapping[str, Callable[[Any, int, Mapping[str, Scalar]], Any]] = {
    "uniform": _uniform,
    "log_uniform": _log_uniform,
    "normal": _normal,
    "randint": _randint,
    "choice": _choice,
}
