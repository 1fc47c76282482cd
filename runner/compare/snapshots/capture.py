"""The way from a config to the rows of its snapshot."""

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
from runner.compare.snapshots.model import Kept, KeptRow, Measured, Overlay, Restart, Snapshot
from runner.compare.snapshots.writing import ABSENT, keep
from runner.compare.uncertainty.rules import BUDGET, RULES
from runner.config import Config, load
from runner.engine import Row, execute
from runner.errors import ConfigError, Problem
from runner.plan import Plan, compile
from runner.plan.snapshots import TolerancePlan, observed_by_snapshot

if TYPE_CHECKING:
    from runner.compare.uncertainty.measuring import Measurement, Progress


def plan_of(path: str | Path, overrides: Sequence[str] = (), allowed: Sequence[str] = ()) -> Plan:
    """The plan of a config in a file, logging what its snapshot keeps.

    Raises:
        UsageError: there is no such file.
        ConfigError: the config is not valid, or its engine cannot do what it asks (`EngineError`).
    """
    config = observed_by_snapshot(load(path, overrides, allowed_folders=allowed))
    return _compiled(config, allowed)


def _compiled(config: Config, allowed: Sequence[str]) -> Plan:
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


def files_of(plan: Plan) -> dict[str, str]:
    """A digest of the bytes of each data file that a run reads, under its path from the config's folder."""
    folder = plan.config.document.folder()
    return {Path(os.path.relpath(path, folder)).as_posix(): _file_digest(path) for path in plan.files}


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def kept(
    plan: Plan, rows: Iterable[Row], measurement: Measurement | None = None, restarts: tuple[Restart, ...] = ()
) -> Snapshot:
    """The snapshot of a plan's rows in this environment.

    Args:
        measurement: how uncertain the rows are; None keeps no uncertainty.
        restarts: the steps that were started from recorded state.
    """
    large = plan.snapshot.tensors
    found = tuple(kept_row(row, large, measurement) for row in rows)
    measured = None if measurement is None else Measured(RULES, measurement.runs, measurement.asked)
    return Snapshot(
        field_digests(plan.config), environment_of(plan), large, plan.columns, found, files=files_of(plan),
        measured=measured, restarts=restarts,
    )  # fmt: skip


def kept_row(row: Row, large: str, measurement: Measurement | None = None) -> KeptRow:
    """A row as a snapshot keeps it: absent gradients are told, other absent values are left out."""
    uncertain = {} if measurement is None else measurement.rows.get(row.number, {})
    unmeasured = None if measurement is None else UNKNOWN
    values = {
        column.name: keep(value, column, large, uncertain.get(column.name, unmeasured))
        for column, value in zip(row.columns, row.values, strict=True)
        if value is not None or column.role == "gradient"
    }
    return KeptRow(row.number, row.path, values)


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
    """How uncertain the rows of a plan are; None where its config says `uncertainty: false`.

    What is measured is the eager engine on the CPU, whatever the config's engine and device.

    Args:
        allowed: folders that the plan reads data from, besides its own.
        runs: how many perturbed runs, 0 for none; those of `before` or of the config unless given.
        before: how a snapshot that is taken again was measured.
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
    """How many perturbed runs to make, and how many were asked for.

    A snapshot keeps its counts, so that taking it again moves no line, unless the config has come to say another.
    """
    planned, declared = plan.snapshot.runs, plan.config.snapshot.uncertainty
    says = declared is not None and "runs" in declared.model_fields_set
    if not planned or before is None or (says and before.asked != planned):
        return planned, planned
    return before.runs, before.asked


def measurable(config: Config) -> Config:
    """The config for the eager engine on the CPU: what can be perturbed."""
    return config.model_copy(update={"engine": "eager", "device": "cpu"})


def measurable_plan(plan: Plan, allowed: Sequence[str] = ()) -> Plan:
    """The plan itself where it is for the eager engine on the CPU, else that of its config there.

    Raises:
        ConfigError: that engine cannot run it.
    """
    if plan.config.engine == "eager" and plan.device == "cpu":
        return plan
    try:
        return _compiled(measurable(plan.config), allowed)
    except ConfigError as error:
        told = (
            "the uncertainty of its numbers is measured with the eager engine on the CPU, which cannot run this config"
        )
        hint = "write `snapshot: {uncertainty: false}`"
        first = plan.config.document.problem(("snapshot", "uncertainty"), told, hint)
        raise type(error)([first, *error.problems]) from error


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


def tolerances_of(plan: Plan, exact: bool, snapshot: Snapshot) -> Tolerances:
    """How near a run has to come to a snapshot.

    Bits where the snapshot was taken in this very environment; else the first of: the tolerance of a glob, that of all
    tensors, both from the config, what was measured, and `dtype`.

    Args:
        exact: whether the snapshot was taken in this very environment, of this very config.
    """
    given = plan.snapshot
    if exact and given.exact:
        return Tolerances()
    by_glob = [(pattern, _tolerance(each)) for pattern, each in given.by_glob]
    if given.default is not None:
        return Tolerances(_tolerance(given.default), by_glob)
    if snapshot.measured is not None and given.runs:
        return Tolerances(Tolerance("measured", factor=given.factor), by_glob)
    spread = snapshot.calibration.spread if snapshot.calibration else {}  # of the first format
    measured = [(name, replace(BY_DTYPE, spread=2 * apart)) for name, apart in spread.items() if apart]
    return Tolerances(BY_DTYPE, [*by_glob, *measured])


def _tolerance(given: TolerancePlan) -> Tolerance:
    return Tolerance(given.mode, given.rtol, given.atol, given.ulp)
