"""Computes the rows and the content of a config's snapshot."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from runner.compare.environment import environment_of
from runner.compare.numbers.bounds import UNKNOWN
from runner.compare.numbers.tolerances import BY_DTYPE, Tolerance, Tolerances
from runner.compare.numbers.ulp import same_bits
from runner.compare.snapshots.edits import field_digests
from runner.compare.snapshots.model import Measured, Overlay, Restart, Snapshot, StoredRow, StoredTensor
from runner.compare.snapshots.writing import ABSENT, store_tensor
from runner.compare.uncertainty.rules import BUDGET, RULES
from runner.config import Config, load
from runner.engine import Row, execute
from runner.errors import ConfigError, Problem
from runner.plan import Plan, compile
from runner.plan.snapshots import TolerancePlan, observed_by_snapshot

if TYPE_CHECKING:
    from runner.compare.uncertainty.measuring import Measurement, Progress


def plan_of(path: str | Path, overrides: Sequence[str] = (), allowed: Sequence[str] = ()) -> Plan:
    """The plan of a config file, with the log that its snapshot needs.

    Raises:
        UsageError: there is no such file.
        ConfigError: the config is not valid, or its engine does not support it (`EngineError`).
    """
    config = observed_by_snapshot(load(path, overrides, allowed_folders=allowed))
    return _compiled(config, allowed)


def _compiled(config: Config, allowed: Sequence[str]) -> Plan:
    try:
        return compile(config, allowed=[Path(folder) for folder in allowed])
    except ConfigError as error:
        raise type(error)(_without_repeats(error.problems)) from error


def _without_repeats(problems: Sequence[Problem]) -> list[Problem]:
    """Drop problems of `log` that repeat one of `snapshot`, which `observed_by_snapshot` copies into `log`."""
    own = {(each.path.partition(".")[2], each.message) for each in problems if each.path.startswith("snapshot.")}
    return [
        each
        for each in problems
        if not (each.path.startswith("log.") and (each.path.partition(".")[2], each.message) in own)
    ]


def files_of(plan: Plan) -> dict[str, str]:
    """A digest of the bytes of each data file that a run reads, by its path relative to the config's folder."""
    folder = plan.config.document.folder()
    return {Path(os.path.relpath(path, folder)).as_posix(): _file_digest(path) for path in plan.files}


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def snapshot_of(
    plan: Plan, rows: Iterable[Row], measurement: Measurement | None = None, restarts: tuple[Restart, ...] = ()
) -> Snapshot:
    """The snapshot of a plan's rows in this environment.

    Args:
        measurement: the uncertainty of the rows; None stores no uncertainty.
        restarts: the steps that start from recorded state.
    """
    large = plan.snapshot.tensors
    found = tuple(stored_row(row, large, measurement) for row in rows)
    measured = None if measurement is None else Measured(RULES, measurement.runs, measurement.asked)
    return Snapshot(
        field_digests(plan.config), environment_of(plan), large, plan.columns, found, files=files_of(plan),
        measured=measured, restarts=restarts,
    )  # fmt: skip


def stored_row(row: Row, large: str, measurement: Measurement | None = None) -> StoredRow:
    """A row as a snapshot stores it: a missing gradient is stored as null, other missing values are left out."""
    uncertain = {} if measurement is None else measurement.rows.get(row.number, {})
    unmeasured = None if measurement is None else UNKNOWN
    values = {
        column.name: store_tensor(value, column, large, uncertain.get(column.name, unmeasured))
        for column, value in zip(row.columns, row.values, strict=True)
        if value is not None or column.role == "gradient"
    }
    return StoredRow(row.number, row.path, values)


def measured(
    plan: Plan,
    rows: Sequence[Row],
    allowed: Sequence[str] = (),
    *,
    runs: int | None = None,
    before: Measured | None = None,
    budget: float | None = None,
    progress: Progress | None = None,
) -> Measurement | None:
    """The uncertainty of a plan's rows; None if its config says `uncertainty: false`.

    It is always measured with the eager engine on the CPU, whatever the config's engine and device.

    Args:
        allowed: folders that the plan may read data from, besides its own.
        runs: the number of perturbed runs, 0 for none; by default that of `before` or of the config.
        before: how the previous snapshot was measured, if it is taken again.
    """
    runs, asked = _counts(plan, before) if runs is None else (runs, runs)
    if not runs:
        return None
    perturbed = measurable_plan(plan, allowed)
    rows = rows if perturbed is plan else list(execute(perturbed))
    from runner.compare.uncertainty.measuring import measure  # imports torch's compiler

    found = measure(perturbed, rows, runs=runs, budget=BUDGET if budget is None else budget, progress=progress)
    return replace(found, asked=asked)


def _counts(plan: Plan, before: Measured | None) -> tuple[int, int]:
    """The number of perturbed runs, and the number requested.

    A snapshot that is taken again keeps both numbers, so that no line changes, unless the config sets another number.
    """
    planned, declared = plan.snapshot.runs, plan.config.snapshot.uncertainty
    says = declared is not None and "runs" in declared.model_fields_set
    if not planned or before is None or (says and before.asked != planned):
        return planned, planned
    return before.runs, before.asked


def measurable(config: Config) -> Config:
    """The config with the eager engine and the CPU: only these can be perturbed."""
    return config.model_copy(update={"engine": "eager", "device": "cpu"})


def measurable_plan(plan: Plan, allowed: Sequence[str] = ()) -> Plan:
    """The plan itself if it is for the eager engine on the CPU, else a new plan of its config for these.

    Raises:
        ConfigError: that engine cannot run it.
    """
    if plan.config.engine == "eager" and plan.device == "cpu":
        return plan
    try:
        return _compiled(measurable(plan.config), allowed)
    except ConfigError as error:
        message = (
            "the uncertainty of its numbers is measured with the eager engine on the CPU, which cannot run this config"
        )
        hint = "write `snapshot: {uncertainty: false}`"
        first = plan.config.document.problem(("snapshot", "uncertainty"), message, hint)
        raise type(error)([first, *error.problems]) from error


def overlay_of(taken: Snapshot, base: Snapshot) -> Overlay:
    """The differences between a snapshot taken in another environment and `base`, which has the same rows."""
    rows: dict[int, Mapping[str, StoredTensor]] = {}
    for mine, its in zip(taken.rows, base.rows, strict=True):
        names = {**its.values, **mine.values}
        changed = {
            name: mine.values.get(name, ABSENT)
            for name in names
            if not is_same(mine.values.get(name, ABSENT), its.values.get(name, ABSENT))
        }
        if changed:
            rows[mine.number] = changed
    return Overlay(taken.environment, rows)


def is_same(a: StoredTensor, b: StoredTensor) -> bool:
    """Whether two stored tensors have the same bits, or the same digest if their elements were not stored."""
    if isinstance(a.value, torch.Tensor) and isinstance(b.value, torch.Tensor):
        return same_bits(a.value, b.value)
    digest_a, digest_b = (getattr(stored.value, "digest", None) for stored in (a, b))
    return (digest_a is not None and digest_a == digest_b) or (a.value is None and b.value is None)


# --- tolerances


def tolerances_of(plan: Plan, exact: bool, snapshot: Snapshot) -> Tolerances:
    """The tolerances for comparing a run with a snapshot.

    Bitwise if `exact`, unless the config sets `exact: false`. Otherwise the first of these that there is: the config's
    tolerance for a glob, the config's tolerance for all tensors, the measured uncertainty, `dtype`.

    Args:
        exact: whether the snapshot was taken in exactly this environment, of exactly this config.
    """
    given = plan.snapshot
    if exact and given.exact:
        return Tolerances()
    by_glob = [(pattern, _tolerance(each)) for pattern, each in given.by_glob]
    if given.default is not None:
        return Tolerances(_tolerance(given.default), by_glob)
    if snapshot.measured is not None and given.runs:
        return Tolerances(Tolerance("measured", factor=given.factor), by_glob)
    spread = snapshot.calibration.spread if snapshot.calibration else {}  # only a snapshot of the first format has one
    measured = [(name, replace(BY_DTYPE, spread=2 * difference)) for name, difference in spread.items() if difference]
    return Tolerances(BY_DTYPE, [*by_glob, *measured])


def _tolerance(given: TolerancePlan) -> Tolerance:
    return Tolerance(given.mode, given.rtol, given.atol, given.ulp)
