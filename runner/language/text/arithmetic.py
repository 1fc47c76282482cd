"""Scalar arithmetic: Python's operators and functions of `math`, with bounds on what can grow.

Imports no torch.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from runner.language.text.parse import MAX_INTEGER

Scalar = int | float | bool
Names = Mapping[str, Any]
"""Scalars by name, and tuples of scalars for 1-d constants."""

_UNBOUNDED_SIZES = {"factorial": 20, "comb": 10_000, "perm": 10_000}
_NOT_SCALAR = {"fsum", "prod", "dist", "sumprod", "frexp", "modf"}


class ScalarError(Exception):
    """Scalar arithmetic failed: out of bounds, division by zero, outside a function's domain."""


def bounded(result: Any) -> Any:
    """`result` itself where it fits; exact integers end at 2^63.

    Raises:
        ScalarError: an integer beyond that.
    """
    if isinstance(result, int) and abs(result) > MAX_INTEGER:
        raise ScalarError("the result is an integer larger than 2^63")
    return result


def power(base: Scalar, exponent: Scalar) -> Any:
    """`base ** exponent`, refused before it grows beyond 2^63."""
    exact = isinstance(base, int) and isinstance(exponent, int) and exponent > 0 and abs(base) > 1
    if exact and exponent * math.log2(abs(base)) > 64:
        raise ScalarError("the result is an integer larger than 2^63")
    result = base**exponent
    if isinstance(result, complex):
        raise ScalarError("a negative number to a fractional power is not real")
    return bounded(result)


def _bounded_operator(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def apply(left: Any, right: Any) -> Any:
        return bounded(function(left, right))

    apply.__name__ = function.__name__
    return apply


COUNTERS = frozenset(("iteration", "row", "step", "epoch", "iter", "global_step", "iterations", "steps", "epochs"))
"""What people expect to count here, as it does in other places or in other tools."""

BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: _bounded_operator(operator.add),
    ast.Sub: _bounded_operator(operator.sub),
    ast.Mult: _bounded_operator(operator.mul),
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: power,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
}
UNARY: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
    ast.Invert: operator.invert,
}
COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def _sized(name: str, function: Callable[..., Any], largest: int) -> Callable[..., Any]:
    def apply(*arguments: Any) -> Any:
        if any(argument > largest for argument in arguments):
            raise ScalarError(f"`{name}` takes numbers up to {largest} here")
        return bounded(function(*arguments))

    return apply


def _functions() -> dict[str, Callable[..., Any]]:
    table: dict[str, Callable[..., Any]] = {
        name: function
        for name, function in vars(math).items()
        if callable(function) and not name.startswith("_") and name not in _NOT_SCALAR
    }
    for name, largest in _UNBOUNDED_SIZES.items():
        table[name] = _sized(name, table[name], largest)
    table["pow"] = power
    for name in ("floor", "ceil", "trunc", "gcd", "lcm", "isqrt"):
        table[name] = _bounded_call(table[name])
    table.update(abs=abs, min=min, max=max, round=_rounded, int=_bounded_call(_integer), float=_real)
    return table


def _bounded_call(function: Callable[..., Any]) -> Callable[..., Any]:
    def apply(*arguments: Any) -> Any:
        return bounded(function(*arguments))

    return apply


def _rounded(number: Scalar, digits: int | None = None) -> Any:
    if digits is not None and abs(digits) > 400:
        raise ScalarError("`round` takes at most 400 digits")
    return bounded(round(number, digits))


def _integer(number: Scalar) -> int:
    return int(number)


def _real(number: Scalar) -> float:
    return float(number)


FUNCTIONS: Mapping[str, Callable[..., Any]] = _functions()
"""Scalar functions: Python's `math`, and `abs min max round int float`."""

CONSTANTS: Mapping[str, float] = {"pi": math.pi, "inf": math.inf, "nan": math.nan}

FAULTS = (ScalarError, ArithmeticError, ValueError, TypeError, IndexError)
"""What scalar arithmetic may raise; every caller turns these into a placed fault."""


def fault_text(error: Exception) -> str:
    """A scalar fault in words."""
    if isinstance(error, ZeroDivisionError):
        return "division by zero"
    if isinstance(error, OverflowError):
        return "the result is too large"
    if isinstance(error, ValueError) and "domain" in str(error):
        return "outside the function's domain"
    text = str(error).rstrip(".")
    operands = _OPERANDS.search(text)
    if operands:
        return f"`{operands[1]}` does not take {_article(operands[2])} and {_article(operands[3])}"
    return text[:1].lower() + text[1:]


_OPERANDS = re.compile(r"unsupported operand type\(s\) for (\S+?):? '(\w+)' and '(\w+)'")


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
