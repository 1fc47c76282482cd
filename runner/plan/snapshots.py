"""What a snapshot of a config stores, and the tolerances of its comparison."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from runner.config import Config
from runner.config.record_models import SnapshotDeclaration, ToleranceDeclaration
from runner.errors import listing
from runner.faults import ConfigPath, Faults
from runner.language.text.arithmetic import Scalar
from runner.plan.estimates import count_rows
from runner.plan.program.instructions import Instruction
from runner.plan.rows.columns import Column, column_hint
from runner.plan.rows.matching import Named, matches
from runner.plan.scalars import integer, number

FEWEST_RUNS = 3
"""Minimum number of perturbed runs to estimate an uncertainty from."""


@dataclass(frozen=True, slots=True)
class TolerancePlan:
    """A tolerance as declared in a config."""

    mode: Literal["bitwise", "ulp", "dtype", "explicit"]
    rtol: float = 0.0
    atol: float = 0.0
    ulp: int = 0


@dataclass(frozen=True, slots=True)
class SnapshotPlan:
    """The `snapshot` section."""

    tensors: str = "full"  # how large tensors are stored: full, stats or digest
    exact: bool = True
    default: TolerancePlan | None = None  # None: from the measured uncertainty, or by dtype
    by_glob: tuple[tuple[str, TolerancePlan], ...] = ()
    runs: int = 0  # runs with perturbed rounding; 0: don't measure uncertainty
    factor: float = 5.0  # in another environment a tensor may differ by this many times its uncertainty
    restart: tuple[int, ...] = ()  # the rows whose state is stored


def plan_snapshot(
    config: Config,
    columns: Sequence[Column],
    program: tuple[Instruction, ...],
    scalars: Mapping[str, Scalar],
    faults: Faults,
) -> SnapshotPlan:
    """The plan of the `snapshot` section; `columns` are all columns that a row can have."""
    declared = config.snapshot
    path: ConfigPath = ("snapshot",)
    own = declared.every is not None
    every = integer(declared.every, (*path, "every"), scalars, faults, 1) if own else _every_of_log(config, scalars)
    restart = _restart(declared, (*path, "restart"), scalars, faults, count_rows(program, every or 1))
    named = Named(columns)
    for place, pattern in enumerate(declared.include or ()):
        if not named.any(pattern):
            _check_glob(pattern, (*path, "include", place), columns, faults, key=False)
    include = config.log.include if declared.include is None else declared.include
    chosen = (
        range(len(columns)) if include is None else sorted({place for each in include for place in named.any(each)})
    )
    kept = [columns[place].name for place in chosen]
    by_glob: list[tuple[str, TolerancePlan]] = []
    for pattern, tolerance in declared.tolerances.items():
        place_of = (*path, "tolerances", pattern)
        if _check_glob(pattern, place_of, columns, faults, key=True) and kept:
            _check_use(pattern, place_of, [glob for glob, _ in by_glob], kept, faults)
        by_glob.append((pattern, _tolerance(tolerance, place_of, scalars, faults) or TolerancePlan("dtype")))
    default = _tolerance(declared, path, scalars, faults)
    runs, factor = _uncertainty(declared, (*path, "uncertainty"), scalars, faults)
    return SnapshotPlan(declared.tensors, declared.exact, default, tuple(by_glob), runs, factor, restart)


def _every_of_log(config: Config, scalars: Mapping[str, Scalar]) -> int | None:
    """The value of `log.every`; `plan_log` reports its problems."""
    return integer(config.log.every, ("log", "every"), scalars, Faults(config.document), 1)


def _restart(
    declared: SnapshotDeclaration, path: ConfigPath, scalars: Mapping[str, Scalar], faults: Faults, rows: int
) -> tuple[int, ...]:
    """The rows of `restart`, in a run with at most `rows` rows."""
    found: list[int] = []
    hint = f"write one from 0 to {rows - 2}" if rows > 1 else "remove `restart`: the run has no steps"
    for place, written in enumerate(declared.restart):
        row = integer(written, (*path, place), scalars, faults, 0)
        if row is None:
            continue
        if found and row <= found[-1]:
            problem = "is listed twice" if row in found else f"comes after row {found[-1]}"
            faults.add((*path, place), f"row {row} {problem}", "write each row once, in order")
        elif row >= rows:
            faults.add((*path, place), f"there is no row {row}: the last is {rows - 1}", hint)
        elif row == rows - 1:
            faults.add((*path, place), f"row {row} is the last, and no step follows it", hint)
        else:
            found.append(row)
    return tuple(found)


def _uncertainty(
    declared: SnapshotDeclaration, path: ConfigPath, scalars: Mapping[str, Scalar], faults: Faults
) -> tuple[int, float]:
    given = declared.uncertainty
    if given is None:
        return 0, 0.0
    runs = integer(given.runs, (*path, "runs"), scalars, faults, FEWEST_RUNS)
    factor = number(given.factor, (*path, "factor"), scalars, faults)
    if factor is not None and not 1 <= factor < math.inf:
        hint = "write one such as 5; `uncertainty: false` compares by dtype"
        faults.add((*path, "factor"), f"expected a factor of at least 1, found {factor}", hint)
    return runs or FEWEST_RUNS, float(factor or 1.0)


def observed_by_snapshot(config: Config) -> Config:
    """The config with its log changed to the rows and columns that `snapshot` selects, if it selects any."""
    log, snapshot = config.log, config.snapshot
    changes: dict[str, object] = {}
    if snapshot.every is not None:
        changes["every"] = snapshot.every
    if snapshot.include is not None:
        changes |= {"include": snapshot.include, "tensors": "full"}
    return config.model_copy(update={"log": log.model_copy(update=changes)}) if changes else config


def _tolerance(
    declared: SnapshotDeclaration | ToleranceDeclaration,
    path: ConfigPath,
    scalars: Mapping[str, Scalar],
    faults: Faults,
) -> TolerancePlan | None:
    if declared.ulp is not None:
        return TolerancePlan("ulp", ulp=integer(declared.ulp, (*path, "ulp"), scalars, faults, 0) or 0)
    if declared.rtol is not None or declared.atol is not None:
        rtol, atol = (
            0.0 if value is None else _not_negative(value, (*path, key), scalars, faults)
            for key, value in (("rtol", declared.rtol), ("atol", declared.atol))
        )
        return TolerancePlan("explicit", rtol, atol)
    if declared.tolerance is not None:
        return TolerancePlan("bitwise" if declared.tolerance == "bitwise" else "dtype")
    return None


def _not_negative(value: object, path: ConfigPath, scalars: Mapping[str, Scalar], faults: Faults) -> float:
    found = number(value, path, scalars, faults)
    if found is None:
        return 0.0
    if not found >= 0:
        faults.add(path, f"a tolerance cannot be negative, found {found}", "write one such as 1e-5")
    return float(found)


def _matches_any(name: str, patterns: Iterable[str]) -> bool:
    return any(matches(name, pattern) for pattern in patterns)


def _check_glob(pattern: str, path: ConfigPath, columns: Sequence[Column], faults: Faults, *, key: bool) -> bool:
    if any(matches(column.name, pattern) for column in columns):
        return True
    sliced = next((columns[place].name for place in sorted(Named(columns).any(pattern))), None)
    hint = f"write `{sliced}`: a snapshot compares whole tensors" if sliced else column_hint(pattern, columns)
    faults.add(path, f"`{pattern}` matches no column", hint, key=key)
    return False


def _check_use(pattern: str, path: ConfigPath, before: Sequence[str], kept: Sequence[str], faults: Faults) -> None:
    """Report a tolerance that applies to no column. The first glob that matches a column wins."""
    matched = [name for name in kept if matches(name, pattern)]
    if not matched:
        message = f"`{pattern}` matches no column that the snapshot keeps"
        faults.add(path, message, "add it to `include`, or remove its tolerance", key=True)
    elif all(_matches_any(name, before) for name in matched):
        earlier = [f"`{glob}`" for glob in before if any(matches(name, glob) for name in matched)]
        message = f"every column that `{pattern}` matches already has the tolerance of {listing(earlier, 4)}"
        faults.add(path, message, "put the more specific one first", key=True)
