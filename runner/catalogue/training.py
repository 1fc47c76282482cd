"""The closed tables of `torch.optim`, `torch.optim.lr_scheduler` and `torch.nn.init`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from runner.catalogue.signatures import Argument, parse_line
from runner.catalogue.tables import FOLDER

REFUSED_OPTIMIZERS: Mapping[str, str] = MappingProxyType(
    {"sparseadam": "it takes sparse gradients only, and every gradient here is dense"}
)
"""Classes of `torch.optim` that are left out, each with the reason."""

REFUSED_ARGUMENTS: Mapping[str, str] = MappingProxyType(
    {
        "capturable": "it is for CUDA graphs, and changes the bits; `engine: cudagraph` does not need it",
        "differentiable": "a step is not recorded by autograd; write the update in the expression and use `grad(y, x)`",
    }
)
"""Arguments of optimizers that are left out, each with the reason."""


@dataclass(frozen=True, slots=True)
class Optimizer:
    """A class of `torch.optim` under its lower-case name."""

    name: str  # "adamw"
    class_name: str  # "AdamW"
    arguments: tuple[Argument, ...]  # without `params` and the refused ones
    refused: Mapping[str, str]  # argument -> reason


@dataclass(frozen=True, slots=True)
class Initialiser:
    """A function of `torch.nn.init` under its name without the underscore."""

    name: str  # "normal"
    function: str  # "normal_"
    arguments: tuple[Argument, ...]  # without `tensor` and `generator`


@dataclass(frozen=True, slots=True)
class ScheduleEntry:
    """A schedule of `torch.optim.lr_scheduler` under its name in snake case."""

    name: str  # "step_lr"
    class_name: str  # "StepLR"
    arguments: tuple[Argument, ...]  # with the base rate, which torch takes from the optimizer


@cache
def optimizers() -> Mapping[str, Optimizer]:
    """Every dense optimizer of `torch.optim` by its lower-case name."""
    found: dict[str, Optimizer] = {}
    for name, class_name, arguments in _entries("optimizers.txt"):
        refused = {
            argument.name: REFUSED_ARGUMENTS[argument.name]
            for argument in arguments
            if argument.name in REFUSED_ARGUMENTS
        }
        kept = tuple(argument for argument in arguments if argument.name not in refused)
        found[name] = Optimizer(name, class_name, kept, MappingProxyType(refused))
    return MappingProxyType(found)


@cache
def initialisers() -> Mapping[str, Initialiser]:
    """Every function of `torch.nn.init` by its name without the underscore."""
    entries = _entries("initialisers.txt")
    return MappingProxyType({name: Initialiser(name, function, arguments) for name, function, arguments in entries})


@cache
def schedules() -> Mapping[str, ScheduleEntry]:
    """Every schedule that hyperparameters may call, by its name in snake case."""
    entries = _entries("schedules.txt")
    return MappingProxyType({name: ScheduleEntry(name, kind, arguments) for name, kind, arguments in entries})


def _entries(file: str) -> list[tuple[str, str, tuple[Argument, ...]]]:
    """Parses a table of lines `name function(arguments)`."""
    found = []
    for line in (FOLDER / file).read_text(encoding="utf-8").splitlines():
        name, _, signature = line.partition(" ")
        function, arguments, _ = parse_line(signature)
        found.append((name, function, arguments))
    return found
