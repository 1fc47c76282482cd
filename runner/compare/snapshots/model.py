"""The content of a snapshot: the rows of one run of a config, each tensor as a value and as its text."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from runner.compare.environment import Environment
from runner.compare.numbers.bounds import Uncertainty
from runner.compare.numbers.digested import Condensed
from runner.config.files.safe_files import Folder, Refused
from runner.errors import Problem, SnapshotError
from runner.plan.rows.columns import Column

FORMAT = 2
FIRST_FORMAT = 1
"""The previous format: no uncertainties, and an environment that does not determine the bits."""
FOLDER = "snapshots"
SUFFIX = ".yaml"
SIDECAR_SUFFIX = ".safetensors"

Value = Tensor | Condensed | None


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of one row."""

    text: str  # as in the file
    value: Value  # the tensor itself if its elements are stored; None: no gradient
    uncertainty: Uncertainty | None = None  # None: exact, or not measured


@dataclass(frozen=True, slots=True)
class StoredRow:
    """One row. A tensor that is not in `values` has no value in it."""

    number: int
    path: str
    values: Mapping[str, StoredTensor]

    @property
    def step(self) -> str:
        return self.path.rpartition(".")[2]

    def __getitem__(self, name: str) -> Value:
        stored = self.values.get(name)
        return None if stored is None else stored.value

    def __contains__(self, name: object) -> bool:
        return name in self.values


def _with_uncertainty(values: Mapping[str, StoredTensor], row: StoredRow) -> dict[str, StoredTensor]:
    """The tensors of an overlay, each with the uncertainty of that tensor in the base row."""
    return {name: StoredTensor(stored.text, stored.value, uncertainty_of(row, name)) for name, stored in values.items()}


def uncertainty_of(row: object, name: str) -> Uncertainty | None:
    """The uncertainty of a tensor in a row of a snapshot; None if it is exact or was not measured."""
    assert isinstance(row, StoredRow)
    return row.values[name].uncertainty if name in row.values else None


@dataclass(frozen=True, slots=True)
class Measured:
    """How the uncertainties of a snapshot were measured."""

    rules: int  # the version of the perturbation rules
    runs: int
    asked: int  # runs requested; more than `runs` if time ran out


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far apart repeated runs were, and which runs these were. Only in snapshots of the first format."""

    runs: int
    over: str  # "threads 1, 2"
    torch: str
    spread: Mapping[str, float]  # tensor → largest absolute difference from the snapshot in any row


@dataclass(frozen=True, slots=True)
class Overlay:
    """The tensors whose values differ in another environment."""

    environment: Environment
    rows: Mapping[int, Mapping[str, StoredTensor]]  # row number → tensor


@dataclass(frozen=True, slots=True)
class Restart:
    """The state of a run after one of its rows, and the rows of the steps that start from it."""

    after: int  # the number of the row
    state: bytes  # as `restart_state.encoded` returns it
    rows: tuple[StoredRow, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The rows of one run of a config."""

    config: Mapping[str, str]  # dotted field → digest; in the first format, top-level key → digest
    environment: Environment
    large: str  # how tensors of more than `LARGEST_WHOLE` elements are stored: full, stats or digest
    columns: tuple[Column, ...]
    rows: tuple[StoredRow, ...]
    calibration: Calibration | None = None
    overlays: tuple[Overlay, ...] = field(default=())
    files: Mapping[str, str] = field(
        default_factory=dict
    )  # data file, relative to the config's folder → digest of its bytes
    measured: Measured | None = None  # None: `uncertainty: false`, or the first format
    format: int = FORMAT
    sidecar: str | None = None  # the file next to it with its large tensors, as read
    restarts: tuple[Restart, ...] = ()

    def rows_in(self, environment: Environment) -> tuple[tuple[StoredRow, ...], bool]:
        """The rows to expect in an environment, and whether they were taken in exactly that environment.

        These are the snapshot's own rows or an overlay, if they were taken in this environment. Otherwise they are the
        own rows if their device is the same, else an overlay of the same device, else the own rows.
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

    def overlaid(self, overlay: Overlay) -> tuple[StoredRow, ...]:
        return tuple(
            StoredRow(row.number, row.path, {**row.values, **_with_uncertainty(overlay.rows[row.number], row)})
            if row.number in overlay.rows
            else row
            for row in self.rows
        )


@contextmanager
def folder_of(snapshot: Path, *, create: bool = False) -> Iterator[Folder]:
    """Open the folder of a snapshot. A link is refused, because it may lead anywhere.

    Raises:
        OSError: it cannot be opened.
        SnapshotError: it is a link, or not a folder.
    """
    parent = Path(os.path.abspath(snapshot)).parent
    with Folder(parent.parent) as above:
        try:
            found = above.folder(parent.name, create=create)
        except Refused as error:
            message = f"cannot use {snapshot.parent} as the folder of snapshots: {error.strerror}"
            raise SnapshotError(Problem(message, "replace it with a folder")) from error
        with found as folder:
            yield folder


def snapshot_path(config: Path, name: str) -> Path:
    """The path of a config's snapshot: `snapshots/NAME.yaml` next to the config."""
    return config.parent / FOLDER / f"{name}{SUFFIX}"


def sidecar_path(snapshot: Path, digest: str) -> Path:
    """The path of the large tensors: `snapshots/NAME.0123456789abcdef.safetensors`, named by their content."""
    return snapshot.with_suffix(f".{digest}{SIDECAR_SUFFIX}")


def state_path(snapshot: Path, state: bytes) -> Path:
    """The path of a restart's state, named by its content, as for large tensors."""
    return sidecar_path(snapshot, hashlib.sha256(state).hexdigest()[:16])


def first_sidecar_path(snapshot: Path) -> Path:
    """The path of the large tensors of a snapshot of the first format."""
    return snapshot.with_suffix(SIDECAR_SUFFIX)
