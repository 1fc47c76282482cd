"""Assigns parameters to optimizers and their groups, by names and globs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from runner.errors import did_you_mean, listing
from runner.faults import Faults, PlacedFault
from runner.optim.plans import Path, Shaped

if TYPE_CHECKING:
    from runner.config import OptimizerDeclaration


@dataclass(frozen=True, slots=True)
class Membership:
    """The parameters of one optimizer: those of each group, and the rest."""

    rest: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]

    @property
    def all(self) -> tuple[str, ...]:
        return (*self.rest, *(name for group in self.groups for name in group))


def membership_of(
    declared: OptimizerDeclaration, parameters: Mapping[str, Shaped], alone: bool, faults: Faults
) -> Membership | None:
    """The parameters of an optimizer.

    These are the ones under `parameters`. Without that key, a single optimizer has every trainable parameter, and one
    of several optimizers has those of its groups. The parameters in no group form a further group.

    Returns:
        None if there are faults, which are collected.
    """
    before = len(faults.problems)
    base = [name for name, parameter in parameters.items() if parameter.requires_grad]
    nothing = "this optimizer has no parameters" + ("" if base else ": no parameter is trainable")
    if declared.parameters is not None:
        base = _matching(declared.parameters, parameters, (*declared.path, "parameters"), faults)
    elif not alone and not declared.groups:
        hint = "write `parameters: [...]` next to it, with names or globs"
        faults.note(PlacedFault(declared.path, "one of several optimizers must name its parameters", hint, key=True))
    wrong = len(faults.problems) > before
    groups: list[tuple[str, ...]] = []
    grouped: dict[str, int] = {}
    for position, group in enumerate(declared.groups):
        at = (*declared.path, "groups", position, "parameters")
        names = _matching(group.parameters, parameters, at, faults)
        if names and not wrong:
            with faults.collecting():
                groups.append(_group(names, base, grouped, position, at))
        grouped.update(dict.fromkeys(names, position))
    if len(faults.problems) > before:
        return None
    rest = tuple(name for name in base if name not in grouped) if declared.parameters is not None or alone else ()
    membership = Membership(rest, tuple(groups))
    if membership.all:
        return membership
    faults.note(PlacedFault((*declared.path, declared.kind), nothing, "remove it, or name its parameters", key=True))
    return None


def _group(
    names: Sequence[str], base: Sequence[str], grouped: Mapping[str, int], position: int, at: Path
) -> tuple[str, ...]:
    repeated = [name for name in names if name in grouped]
    if repeated:
        message = f"`{repeated[0]}` is in group {grouped[repeated[0]]} of this optimizer too"
        raise PlacedFault(at, message, "a parameter is in one group; narrow the names or globs")
    inside = tuple(name for name in names if name in base)
    if not inside:
        message = "this group has none of the optimizer's parameters"
        raise PlacedFault(at, message, f"the optimizer's parameters are {listing(base)}")
    return inside


def report_overlap(
    name: str, declared: OptimizerDeclaration, membership: Membership, owners: dict[str, str], faults: Faults
) -> None:
    """Add an optimizer's parameters to `owners`, and collect a fault if an earlier optimizer has one of them too."""
    repeated = [parameter for parameter in membership.all if parameter in owners]
    if repeated:
        place = (*declared.path, "parameters") if declared.parameters is not None else declared.path
        shown = listing([f"`{parameter}`" for parameter in repeated], 5)
        verb = "belongs" if len(repeated) == 1 else "belong"
        message = f"{shown} also {verb} to the optimizer `{owners[repeated[0]]}`"
        faults.note(PlacedFault(place, message, "two optimizers would both step it; name it in one of them"))
    for parameter in membership.all:
        owners.setdefault(parameter, name)


def _matching(patterns: Sequence[str], parameters: Mapping[str, Shaped], path: Path, faults: Faults) -> list[str]:
    """The trainable parameters that names and globs match, in the order of their declaration.

    A pattern without a match, or one that matches only frozen parameters, is a fault.
    """
    chosen: set[str] = set()
    for position, pattern in enumerate(patterns):
        found = [pattern] if pattern in parameters else [name for name in parameters if fnmatchcase(name, pattern)]
        trainable = [name for name in found if parameters[name].requires_grad]
        chosen.update(trainable)
        if not found:
            message = f"`{pattern}` matches no parameter" if _is_glob(pattern) else f"there is no parameter `{pattern}`"
            hint = did_you_mean(pattern, parameters, f"parameters are {listing(parameters)}")
            faults.note(PlacedFault((*path, position), message, hint))
        elif not trainable:
            frozen = "is frozen" if pattern in parameters else "matches frozen parameters only"
            hint = "give it `requires_grad: true`, or take it out here"
            faults.note(PlacedFault((*path, position), f"`{pattern}` {frozen}", hint))
    return [name for name in parameters if name in chosen]


def _is_glob(pattern: str) -> bool:
    return any(character in pattern for character in "*?[")
