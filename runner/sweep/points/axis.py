"""An axis of a sweep: override paths, and the values that they take together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.config.text.nodes import Path

Values = Mapping[str, Any]
"""Override path → value."""


COLUMNS = ("point", "status", "objective", "rows", "seconds", "failure", "identity")
"""The columns of the table of points that are no axes, besides those of the scalars."""

MEAN_COLUMNS = ("mean", "deviation")
"""The columns of an objective that is a mean over some axes."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Some override paths whose values vary together."""

    paths: tuple[str, ...]
    choices: Sequence[Values]
    place: Path | None = None  # the part of the config that has these paths as keys; None: the command line
    listed: bool = False  # whether the part is a list of points

    def at(self, name: str) -> Path:
        """The place of a path in the config."""
        assert self.place is not None
        return self.place if self.listed else (*self.place, name)
