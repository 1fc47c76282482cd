"""One config run again and held to its snapshot."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from runner.compare.causes import BATCH, RANDOM
from runner.compare.report import WIDEST, report, to_json
from runner.compare.snapshot_reading import read
from runner.compare.snapshot_writing import write
from runner.compare.snapshots import Snapshot, snapshot_path
from runner.compare.taking import digests_of, environment_of, files_of, kept, plan_of, tolerances_of
from runner.compare.updating import Update, changes, updated
from runner.compare.verdict import AnyRow, Verdict, align, compare
from runner.engine import execute
from runner.errors import DataWarning, EngineError, Problem, SnapshotError, SteprunError, UsageError
from runner.plan import Plan

Status = Literal["holds", "differs", "stale", "missing", "orphan", "damaged", "failed", "skipped", "written", "updated"]
"""`missing`: a config without a snapshot; `orphan`: a snapshot without its config; `damaged`: one that cannot be read;
`failed`: a config that is not valid or whose run fails; `skipped`: one that an engine asked for cannot do."""

FINE: tuple[Status, ...] = ("holds", "skipped", "written", "updated")
ENGINE = "engine="
DIFFERS = 3


@dataclass(frozen=True, slots=True)
class Target:
    """A config and the file of its snapshot."""

    config: str | None  # None: whatever the snapshot says it is of
    snapshot: str

    @property
    def name(self) -> str:
        """What a person calls it."""
        return self.config or self.snapshot


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of every target."""

    update: Update | None = None
    overrides: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    width: int = WIDEST  # of a line that tells what differs


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one target; plain values only, so that it can come from another process."""

    name: str
    status: Status
    exit_code: int = 0
    lines: tuple[str, ...] = ()  # what a person is told
    rows: int = 0
    seconds: float = 0.0
    exact: bool = True  # compared bit for bit
    details: dict[str, Any] = field(default_factory=dict)  # for programs


def check(target: Target, request: Request) -> Outcome:
    """Run a config and compare with its snapshot; whatever is wrong with either becomes the outcome."""
    began = time.perf_counter()
    outcome = _checked(target, request)
    return replace(outcome, seconds=time.perf_counter() - began)


def _checked(target: Target, request: Request) -> Outcome:
    path = Path(target.snapshot)
    if not path.is_file():
        if request.update is not None and target.config is not None:
            return _guarded(target.name, request, lambda: _new(target.name, Path(str(target.config)), path, request))
        hint = f"`steprun snapshot {target.name}` takes one"
        return _fault(target.name, "missing", SteprunError(Problem(f"{target.name} has no snapshot", hint)), DIFFERS)
    try:
        snapshot, of = read(path)
    except (SnapshotError, UsageError) as error:
        return _fault(target.name, "damaged", error, error.exit_code)
    config = path.parent.parent / of
    name = target.config or os.path.normpath(config)
    if target.config is not None and Path(target.config).name != of:
        message = f"{path} is of {of}, not of {target.config}"
        hint = "give one of the two configs a `name` of its own"
        return _fault(name, "damaged", SnapshotError(Problem(message, hint)), SnapshotError.exit_code)
    if not config.is_file():
        told = Problem(f"{path} is of {of}, which is not there", "restore the config, or remove this file")
        return _fault(str(path), "orphan", SnapshotError(told), DIFFERS)
    return _guarded(name, request, lambda: _held(name, config, path, snapshot, request))


def _guarded(name: str, request: Request, work: Callable[[], Outcome]) -> Outcome:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)
            return work()
    except SteprunError as error:
        if isinstance(error, EngineError) and any(given.startswith(ENGINE) for given in request.overrides):
            return _skipped(name, error)
        return _fault(name, "failed", error, error.exit_code)


def _new(name: str, config: Path, path: Path, request: Request) -> Outcome:
    plan = plan_of(config, request.overrides, request.allow)
    snapshot = kept(plan, execute(plan))
    write(snapshot, path, config.name)
    return Outcome(name, "written", rows=len(snapshot.rows), lines=(f"wrote {path}",))


def _held(name: str, config: Path, path: Path, snapshot: Snapshot, request: Request) -> Outcome:
    plan = plan_of(config, request.overrides, request.allow)
    if plan.name != path.stem:
        message = f"{path} is of {config}, whose name is `{plan.name}`"
        hint = f"`steprun snapshot {config}` takes {snapshot_path(config, plan.name).name}; remove this one"
        return _fault(name, "stale", SnapshotError(Problem(message, hint)), DIFFERS)
    stale = differing_keys(snapshot, plan)
    if stale and request.update is None:
        return _stale(name, stale, overridden=bool(request.overrides))
    rows: Sequence[Any] | None = list(execute(plan)) if request.update else None
    verdict, exact = judge(plan, snapshot, rows)
    if request.update is None or (verdict.holds and not stale and request.update != "all"):
        return _told(name, plan, snapshot, verdict, exact, request.width)
    assert rows is not None
    new = updated(snapshot, kept(plan, rows), request.update)
    if request.update == "new":
        if not _only_new(verdict):
            write(new, path, config.name)
            return _told(name, plan, snapshot, verdict, exact, request.width)
        new = replace(new, config=digests_of(plan.config))
    write(new, path, config.name)
    count = changes(snapshot, new)
    told = f"wrote {path}: {count:,} tensor{'' if count == 1 else 's'} changed"
    if new.environment != snapshot.environment:
        told += ", taken whole in this environment"
    return Outcome(name, "updated", rows=verdict.compared, lines=(told,), exact=exact)


def judge(plan: Plan, snapshot: Snapshot, found: Sequence[AnyRow] | None = None) -> tuple[Verdict, bool]:
    """The verdict on a run of a plan, and whether the snapshot is of this very environment.

    Args:
        found: the rows of the run; it is run unless they are given.
    """
    expected, exact = snapshot.seen_from(environment_of(plan))
    tolerances = tolerances_of(plan, exact, snapshot.calibration)
    rows = execute(plan) if found is None else found
    return compare(align(rows, expected), plan.columns, snapshot.columns, tolerances), exact


def differing_keys(snapshot: Snapshot, plan: Plan) -> list[str]:
    """The keys of a config that say something else than when the snapshot was taken."""
    now, then = digests_of(plan.config), snapshot.config
    return [key for key in {**then, **now} if now.get(key) != then.get(key)]


def _stale(name: str, keys: Sequence[str], *, overridden: bool) -> Outcome:
    shown = ", ".join(f"`{key}`" for key in keys)
    differ = "differs" if len(keys) == 1 else "differ"
    message = f"the snapshot is of another config: {shown} {differ} from what it was taken of"
    hint = "`steprun check --update` takes its numbers from this one"
    if overridden:
        hint = "leave out the `--set` that changes it, or change the file"
    details = {"keys": list(keys)}
    return Outcome(name, "stale", DIFFERS, (message, f"= {hint}"), details=details)


def _told(name: str, plan: Plan, snapshot: Snapshot, verdict: Verdict, exact: bool, width: int) -> Outcome:
    if verdict.holds:
        return Outcome(name, "holds", rows=verdict.compared, exact=exact)
    now = files_of(plan) if snapshot.files else {}
    others = [file for file, digest in snapshot.files.items() if now.get(file, digest) != digest]
    changed = [f"`{file}` is not the file that the snapshot was taken with" for file in others]
    draws = [name for name, drawn in ((BATCH, plan.sources), (RANDOM, plan.random)) if drawn]
    return Outcome(
        name,
        "differs",
        DIFFERS,
        (*changed, *report(verdict, draws=draws, every=plan.log.every, width=width)),
        verdict.compared,
        exact=exact,
        details={**to_json(verdict, draws=draws, every=plan.log.every), "changed_files": others},
    )


def _only_new(verdict: Verdict) -> bool:
    gone = (verdict.missing_columns, verdict.redeclared, verdict.parting)
    return not any(gone) and verdict.missing_rows.count == 0


def _skipped(name: str, error: EngineError) -> Outcome:
    """What the engine has against a config, which does not name it: the first reason, and how many more there are."""
    first, *more = error.problems
    others = f" (and {len(more)} more)" if more else ""
    details = {"problems": [problem.to_json() for problem in error.problems]}
    return Outcome(name, "skipped", lines=(f"line {first.line}: {first.message}{others}",), details=details)


def _fault(name: str, status: Status, error: SteprunError, code: int) -> Outcome:
    lines: list[str] = []
    for problem in error.problems:
        if problem.mark is None:
            lines += [problem.message, *([f"= {problem.hint}"] if problem.hint else [])]
        else:
            lines += problem.render().splitlines()
    return Outcome(
        name, status, code, tuple(lines), details={"problems": [problem.to_json() for problem in error.problems]}
    )
