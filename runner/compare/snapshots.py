"""What a snapshot holds: the rows of one run of a config, each tensor as text beside its value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from runner.compare.condensed import Condensed
from runner.plan.columns import Column

FORMAT = 1
FOLDER = "snapshots"
SUFFIX = ".yaml"
SIDECAR_SUFFIX = ".safetensors"

Value = Tensor | Condensed | None
Environment = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Kept:
    """One tensor of one row."""

    text: str  # as it stands in the file
    value: Value  # the tensor itself, where its elements were kept; None is no gradient


@dataclass(frozen=True, slots=True)
class KeptRow:
    """One row. A tensor that is not named has no value in it."""

    number: int
    path: str
    values: Mapping[str, Kept]

    @property
    def step(self) -> str:
        return self.path.rpartition(".")[2]

    def __getitem__(self, name: str) -> Value:
        kept = self.values.get(name)
        return None if kept is None else kept.value

    def __contains__(self, name: object) -> bool:
        return name in self.values


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far repeated runs lay apart, and which these were."""

    runs: int
    over: str  # "threads 1, 2"
    torch: str
    spread: Mapping[str, float]  # tensor → largest absolute difference from the snapshot in any row


@dataclass(frozen=True, slots=True)
class Overlay:
    """The tensors whose values are others in another environment."""

    environment: Environment
    rows: Mapping[int, Mapping[str, Kept]]  # row number → tensor


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The rows of one run of a config."""

    config: Mapping[str, str]  # top-level key → digest
    environment: Environment
    large: str  # how tensors of more than `LARGEST_WHOLE` elements are kept: full, stats or digest
    columns: tuple[Column, ...]
    rows: tuple[KeptRow, ...]
    calibration: Calibration | None = None
    overlays: tuple[Overlay, ...] = field(default=())
    files: Mapping[str, str] = field(default_factory=dict)  # data file, from the config's folder → digest of its bytes

    def seen_from(self, environment: Environment) -> tuple[tuple[KeptRow, ...], bool]:
        """The rows to expect in an environment, and whether they were taken in that very one.

        The overlay of the same environment comes first, then the snapshot's own, then an overlay of the same device.
        """
        if environment == self.environment:
            return self.rows, True
        for overlay in self.overlays:
            if overlay.environment == environment:
                return self.overlaid(overlay), True
        if self.environment["device"] != environment["device"]:
            for overlay in self.overlays:
                if overlay.environment["device"] == environment["device"]:
                    return self.overlaid(overlay), False
        return self.rows, False

    def overlaid(self, overlay: Overlay) -> tuple[KeptRow, ...]:
        return tuple(
            KeptRow(row.number, row.path, {**row.values, **overlay.rows[row.number]})
            if row.number in overlay.rows
            else row
            for row in self.rows
        )


def snapshot_path(config: Path, name: str) -> Path:
    """Where the snapshot of a config is: `snapshots/NAME.yaml` beside it."""
    return config.parent / FOLDER / f"{name}{SUFFIX}"


def sidecar_path(snapshot: Path) -> Path:
    return snapshot.with_suffix(SIDECAR_SUFFIX)
