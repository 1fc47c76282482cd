"""Finds axes of one space that set the same value, so that one of them would be ignored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from runner.config.keys import TOP_LEVEL_KEYS
from runner.sweep.points.axis import Axis


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two axes that set the same value, each with its path."""

    axis: Axis
    name: str
    other: Axis
    before: str

    @property
    def message(self) -> str:
        if full_path(self.name) == full_path(self.before):
            return f"two axes set `{self.name}`"
        if full_path(self.before).startswith(full_path(self.name)):
            return f"`{self.name}` replaces what the axis `{self.before}` sets"
        return f"`{self.name}` replaces a part of the axis `{self.before}`"


def full_path(name: str) -> str:
    """The path of an override; a bare name that is no key of a config is that of a constant."""
    return name if name.partition(".")[0] in TOP_LEVEL_KEYS else f"constants.{name}"


def overlaps(axes: Sequence[Axis]) -> Iterator[Overlap]:
    """Yields the axes of a product that set what an earlier one sets. Overrides apply in the order of the axes."""
    earlier: list[tuple[str, Axis]] = []
    for axis in axes:
        for name in axis.paths:
            for before, other in earlier:
                if not (other is axis and axis.listed) and _overlap(name, before, other):
                    yield Overlap(axis, name, other, before)
            earlier.append((name, axis))


def _overlap(name: str, before: str, other: Axis) -> bool:
    path, earlier = full_path(name), full_path(before)
    if path == earlier or earlier.startswith(f"{path}."):
        return True
    if not path.startswith(f"{earlier}."):
        return False
    keys = path.removeprefix(f"{earlier}.").split(".")
    return any(_has(choice.get(before), keys) for choice in other.choices)


def _has(value: Any, keys: Sequence[str]) -> bool:
    """Whether a block sets the value at some keys."""
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            return False
        value = value[key]
    return True
