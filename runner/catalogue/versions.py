"""The entries of the tables that only some supported releases of torch have.

The tables list everything that at least one tested release has. `versions.txt` is written by hand and lists what some
of them lack: `name: since 2.14`, `optimizer(argument): since 2.14`, or `name: before 2.14; ` with what to do instead.
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
"""The releases of torch that the tests pass with; the tables list what at least one of these has."""

UPDATE = "update torch"


@dataclass(frozen=True, slots=True)
class Span:
    """The releases that have an entry: all from `since` on, or all before `before`."""

    since: str | None = None
    before: str | None = None
    instead: str = UPDATE

    def includes(self, version: str) -> bool:
        """Whether torch `version` (`2.13.0+cpu`) is one of them."""
        here = _release(version)
        return (self.since is None or here >= _release(self.since)) and (
            self.before is None or here < _release(self.before)
        )

    def __str__(self) -> str:
        return f"it comes with torch {self.since}" if self.since else f"it is gone from torch {self.before} on"


@cache
def spans() -> Mapping[str, Span]:
    """The entries of `versions.txt` by name (`linalg.polar`, `lbfgs(maximize)`), with the releases that have each."""
    found = {}
    for line in (FOLDER / "versions.txt").read_text(encoding="utf-8").splitlines():
        name, _, text = line.partition(": ")
        span, _, instead = text.partition("; ")
        word, _, release = span.partition(" ")
        found[name] = Span(since=release) if word == "since" else Span(before=release, instead=instead)
    return MappingProxyType(found)


def absence(name: str, version: str) -> tuple[str, str] | None:
    """Why torch `version` lacks the entry `name`, and a hint; None unless `versions.txt` says that it does.

    The reason continues after the name: "does not exist in torch 2.13.0: it comes with torch 2.14".
    """
    span = spans().get(name)
    if span is None or span.includes(version):
        return None
    return f"does not exist in torch {_shown(version)}: {span}", span.instead


def argument_absence(optimizer: Optimizer, argument: str, version: str) -> tuple[str, str]:
    """The message and hint for an argument that the table has and torch `version` lacks."""
    span = spans().get(f"{optimizer.name}({argument})")
    message = f"{optimizer.name} has no argument `{argument}` in torch {_shown(version)}"
    return (f"{message}: {span}", f"remove it, or {span.instead}") if span else (message, "remove it")


def installed(optimizer: Optimizer) -> Optimizer:
    """An entry of the table with the arguments and defaults of the installed class, read from its signature.

    An older torch has fewer arguments than the table. A newer one may have more: an argument is added if its default or
    annotation shows its type.
    """
    import torch  # slow, so only for planning, or for an argument that the table lacks

    parameters = _signature(getattr(torch.optim, optimizer.class_name))
    known = {argument.name for argument in optimizer.arguments} | {*optimizer.refused, "params"}
    kept = [
        _with_default(argument, repr(parameters[argument.name].default))
        for argument in optimizer.arguments
        if argument.name in parameters
    ]
    newer = [_argument(parameter) for name, parameter in parameters.items() if name not in known]
    return replace(optimizer, arguments=(*kept, *(argument for argument in newer if argument)))


def _with_default(argument: Argument, default: str) -> Argument:
    return argument if argument.default == default else replace(argument, default=default)


@cache
def _signature(optimizer: type) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(optimizer).parameters


def newer_arguments(optimizer: Optimizer) -> tuple[str, ...]:
    """The arguments of the installed class that the table lacks; none unless torch is newer than the tables.

    Args:
        optimizer: an entry of the table.
    """
    if _release(metadata.version("torch")) <= _release(TESTED[-1]):
        return ()  # a misspelt argument should not import torch
    known = {argument.name for argument in optimizer.arguments}
    return tuple(argument.name for argument in installed(optimizer).arguments if argument.name not in known)


_KINDS = ("bool", "int", "float", "str")


def _argument(parameter: inspect.Parameter) -> Argument | None:
    """A parameter of a class as an `Argument`; None if it has no default, or its type is not one of `_KINDS`."""
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
