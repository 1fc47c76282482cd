"""The option `--tolerance`: how far apart two tensors may be, as one word."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

from runner.cli.input.declarations import option
from runner.errors import Problem, UsageError

if TYPE_CHECKING:
    from runner.compare.numbers.tolerances import Tolerance, Tolerances

ToleranceOption = Annotated[
    str | None, option("--tolerance", metavar="NAME", help="bitwise, dtype, ulp=N, rtol=R, or rtol=R,atol=A.")
]

_HINT = "it takes `bitwise`, `dtype`, `ulp=4`, `rtol=1e-3`, or `rtol=1e-3,atol=1e-6`"


def tolerances_of(text: str) -> Tolerances:
    """The tolerance that a text describes, for every tensor.

    Raises:
        UsageError: it does not describe a tolerance.
    """
    from runner.compare.numbers.tolerances import Tolerances

    return Tolerances(_tolerance(text))


def _tolerance(text: str) -> Tolerance:
    from runner.compare.numbers.tolerances import BITWISE, BY_DTYPE, Tolerance

    named = {"bitwise": BITWISE, "dtype": BY_DTYPE}
    if text in named:
        return named[text]
    numbers = {key: _number(text, value) for key, _, value in (part.partition("=") for part in text.split(","))}
    if set(numbers) == {"ulp"} and numbers["ulp"].is_integer():
        return Tolerance("ulp", ulp=int(numbers["ulp"]))
    if numbers and set(numbers) <= {"rtol", "atol"}:
        return Tolerance("explicit", rtol=numbers.get("rtol", 0.0), atol=numbers.get("atol", 0.0))
    raise UsageError(Problem(f"there is no tolerance `{text}`", _HINT))


def _number(text: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError as error:
        raise UsageError(Problem(f"there is no tolerance `{text}`", _HINT)) from error
    if not (math.isfinite(number) and number >= 0):
        raise UsageError(Problem(f"the tolerance `{text}` has {value}, which must be 0 or more", _HINT))
    return number
