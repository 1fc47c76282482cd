"""The way from a config to the rows of its snapshot."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from runner.compare.snapshot_writing import ABSENT, keep
from runner.compare.snapshots import Calibration, Environment, Kept, KeptRow, Overlay, Snapshot
from runner.compare.tolerances import BY_DTYPE, Tolerance, Tolerances
from runner.compare.ulp import same_bits
from runner.config import Config, load
from runner.engine import Row
from runner.errors import ConfigError, Problem
from runner.plan import Plan, compile
from runner.plan.snapshots import TolerancePlan, observed_by_snapshot
from runner.record.config_fields import config_digests
from runner.record.manifest import fingerprint

VARIANTS = ("device", "engine")
"""Keys of a config that its environment tells: the same snapshot serves them, within a tolerance or by an overlay."""


def plan_of(path: str | Path, overrides: Sequence[str] = (), allowed: Sequence[str] = ()) -> Plan:
    """The plan of a config in a file, logging what its snapshot keeps.

    Raises:
        UsageError: there is no such file.
        ConfigError: the config is not valid, or its engine cannot do what it asks (`EngineError`).
    """
    config = observed_by_snapshot(load(path, overrides, allowed_folders=allowed))
    try:
        return compile(config, allowed=[Path(folder) for folder in allowed])
    except ConfigError as error:
        raise type(error)(_told_once(error.problems)) from error


def _told_once(problems: Sequence[Problem]) -> list[Problem]:
    """Without what is told of `log` again, which `observed_by_snapshot` gives the words of `snapshot`."""
    own = {(each.path.partition(".")[2], each.message) for each in problems if each.path.startswith("snapshot.")}
    return [
        each
        for each in problems
        if not (each.path.startswith("log.") and (each.path.partition(".")[2], each.message) in own)
    ]


def digests_of(config: Config) -> dict[str, str]:
    """The digest of every key that a snapshot depends on, under the name that the config gives it."""
    told = {key: digest for key, digest in config_digests(config).items() if key not in VARIANTS}
    if told.pop("single_optimizer", None) is not None:
        told = {"optimizer" if key == "optimizers" else key: digest for key, digest in told.items()}
    return told


def files_of(plan: Plan) -> dict[str, str]:
    """A digest of the bytes of each data file that a run reads, under its path from the config's folder."""
    folder = plan.config.document.folder()
    return {Path(os.path.relpath(path, folder)).as_posix(): _file_digest(path) for path in plan.files}


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def environment_of(plan: Plan) -> Environment:
    """What the bits of a run depend on besides its config."""
    dtype = str(plan.dtype).removeprefix("torch.")
    return {**fingerprint(plan.device, dtype), "engine": plan.config.engine}


def kept(plan: Plan, rows: Iterable[Row]) -> Snapshot:
    """The snapshot of a plan's rows in this environment."""
    large = plan.snapshot.tensors
    found = tuple(kept_row(row, large) for row in rows)
    return Snapshot(digests_of(plan.config), environment_of(plan), large, plan.columns, found, files=files_of(plan))


def kept_row(row: Row, large: str) -> KeptRow:
    """A row as a snapshot keeps it: absent gradients are told, other absent values are left out."""
    values = {
        column.name: keep(value, column, large)
        for column, value in zip(row.columns, row.values, strict=True)
        if value is not None or column.role == "gradient"
    }
    return KeptRow(row.number, row.path, values)


def overlay_of(taken: Snapshot, base: Snapshot) -> Overlay:
    """What of a snapshot that was taken in another environment differs from `base`, which has the same rows."""
    rows: dict[int, Mapping[str, Kept]] = {}
    for mine, its in zip(taken.rows, base.rows, strict=True):
        names = {**its.values, **mine.values}
        changed = {
            name: mine.values.get(name, ABSENT)
            for name in names
            if not is_kept_alike(mine.values.get(name, ABSENT), its.values.get(name, ABSENT))
        }
        if changed:
            rows[mine.number] = changed
    return Overlay(taken.environment, rows)


def is_kept_alike(a: Kept, b: Kept) -> bool:
    """Whether two kept tensors are the same, whatever their statistics were rounded to."""
    if isinstance(a.value, torch.Tensor) and isinstance(b.value, torch.Tensor):
        return same_bits(a.value, b.value)
    digest_a, digest_b = (getattr(kept.value, "digest", None) for kept in (a, b))
    return (digest_a is not None and digest_a == digest_b) or (a.value is None and b.value is None)


# --- tolerances


def tolerances_of(plan: Plan, exact: bool, calibration: Calibration | None) -> Tolerances:
    """How near a run has to come to a snapshot.

    Args:
        exact: whether the snapshot was taken in this very environment.
        calibration: what was measured; its spread, twice, is allowed on top of `dtype`, as a run that was not measured
            may lie as far on the other side.
    """
    snapshot = plan.snapshot
    if exact and snapshot.exact:
        return Tolerances()
    by_glob = [(pattern, _tolerance(given)) for pattern, given in snapshot.by_glob]
    if snapshot.default is not None:
        return Tolerances(_tolerance(snapshot.default), by_glob)
    spread = calibration.spread if calibration else {}
    measured = [(name, replace(BY_DTYPE, spread=2 * apart)) for name, apart in spread.items() if apart]
    return Tolerances(BY_DTYPE, [*by_glob, *measured])


def _tolerance(given: TolerancePlan) -> Tolerance:
    return Tolerance(given.mode, given.rtol, given.atol, given.ulp)
