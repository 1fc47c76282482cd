"""What the tables hold and not every supported torch has: with which release it comes, or from which on it is gone.

The tables hold what any of the tested releases has. `versions.txt`, by hand, lists the differences: `name: since 2.14`,
`optimizer(argument): since 2.14`, and `name: before 2.14; ` with what to do instead. What is not listed is in all.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from types import MappingProxyType

from runner.catalogue.signatures import Argument
from runner.catalogue.tables import FOLDER
from runner.catalogue.training import Optimizer

TESTED = ("2.11", "2.12", "2.13", "2.14")
"""The releases of torch that the tests pass with; the tables hold what any of these has."""

UPDATE = "update torch"


@dataclass(frozen=True, slots=True)
class Span:
    """The releases that have something: all from one on, or all before one."""

    since: str | None = None
    before: str | None = None
    instead: str = UPDATE

    def includes(self, version: str) -> bool:
        """Whether torch `version` (`2.13.0+cpu`) has it."""
        here = _release(version)
        return (self.since is None or here >= _release(self.since)) and (
            self.before is None or here < _release(self.before)
        )

    def __str__(self) -> str:
        return f"it comes with torch {self.since}" if self.since else f"it is gone from torch {self.before} on"


@cache
def spans() -> Mapping[str, Span]:
    """The releases that have an operation, a method or an argument (`lbfgs(maximize)`) that not all have."""
    found = {}
    for line in (FOLDER / "versions.txt").read_text(encoding="utf-8").splitlines():
        name, _, text = line.partition(": ")
        span, _, instead = text.partition("; ")
        word, _, release = span.partition(" ")
        found[name] = Span(since=release) if word == "since" else Span(before=release, instead=instead)
    return MappingProxyType(found)


def absence(name: str, version: str) -> tuple[str, str] | None:
    """Why torch `version` does not have what the tables call `name`, and what to do; None where `versions.txt` says
    that it does, or nothing.

    The reason follows the name: "`linalg.polar` " + "does not exist in torch 2.13.0: it comes with torch 2.14".
    """
    span = spans().get(name)
    if span is None or span.includes(version):
        return None
    return f"does not exist in torch {_shown(version)}: {span}", span.instead


def argument_absence(optimizer: Optimizer, argument: str, version: str) -> tuple[str, str]:
    """What is wrong with an argument of the table that torch `version` does not have, and what to do."""
    span = spans().get(f"{optimizer.name}({argument})")
    message = f"{optimizer.name} has no argument `{argument}` in torch {_shown(version)}"
    return (f"{message}: {span}", f"remove it, or {span.instead}") if span else (message, "remove it")


def installed(optimizer: Optimizer) -> Optimizer:
    """An optimizer of the table with the arguments and defaults of the installed torch's class, from its signature.

    An older torch has fewer. One that is newer than the tables may have more: those whose type the default or the
    annotation tells are taken too.
    """
    import torch  # slow: only a plan, or an argument that the table does not have, asks for it

    parameters = {**inspect.signature(getattr(torch.optim, optimizer.class_name)).parameters}
    known = {argument.name for argument in optimizer.arguments} | {*optimizer.refused, "params"}
    kept = [
        replace(argument, default=repr(parameters[argument.name].default))
        for argument in optimizer.arguments
        if argument.name in parameters
    ]
    newer = [_argument(parameter) for name, parameter in parameters.items() if name not in known]
    return replace(optimizer, arguments=(*kept, *(argument for argument in newer if argument)))


def newer_arguments(optimizer: Optimizer) -> tuple[str, ...]:
    """The arguments that the installed torch's class has and the table does not: what they do, only torch knows.

    Args:
        optimizer: an entry of the table.
    """
    if _release(metadata.version("torch")) <= _release(TESTED[-1]):
        return ()  # without importing torch, for an argument that was misspelt
    known = {argument.name for argument in optimizer.arguments}
    return tuple(argument.name for argument in installed(optimizer).arguments if argument.name not in known)


_KINDS = ("bool", "int", "float", "str")


def _argument(parameter: inspect.Parameter) -> Argument | None:
    """An argument as the tables have it; None where it has no default, or may be more than a number or a word."""
    default = parameter.default
    words = re.findall(r"\w+", str(getattr(parameter.annotation, "__name__", "") or parameter.annotation))
    given = type(default).__name__ if default is not None else next((word for word in words if word in _KINDS), "")
    if given not in _KINDS:
        return None
    return Argument(parameter.name, repr(default), given, keyword_only=True, optional=default is None)


def _release(version: str) -> tuple[int, int]:
    """`(2, 13)` of `2.13.0+cpu` and of `2.13.0a0+git1234`."""
    found = re.match(r"(\d+)\.(\d+)", version)
    assert found is not None, version
    return int(found[1]), int(found[2])


def _shown(version: str) -> str:
    return version.partition("+")[0]
