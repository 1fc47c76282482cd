"""Runs a config again and compares it with its snapshot."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from runner.compare.environment import environment_of
from runner.compare.numbers.digested import Condensed
from runner.compare.places import place_of
from runner.compare.rows.causes import BATCH, RANDOM
from runner.compare.rows.report import WIDEST, report, structure, to_json
from runner.compare.rows.results import AnyRow, Pair, Verdict
from runner.compare.rows.verdict import Observe, Watch, align, align_edited, compare
from runner.compare.snapshots.capture import files_of, measured, plan_of, snapshot_of, tolerances_of
from runner.compare.snapshots.edits import START, Edit, edits, explains, field_digests
from runner.compare.snapshots.model import FIRST_FORMAT, Snapshot, snapshot_path, uncertainty_of
from runner.compare.snapshots.reading import read
from runner.compare.snapshots.restarts import Restarted, compare_restarts, take_restarts
from runner.compare.snapshots.updating import Update, changes, updated
from runner.compare.snapshots.writing import write
from runner.engine import Row, execute
from runner.errors import DataWarning, EngineError, Problem, SnapshotError, SteprunError, UsageError, listing
from runner.plan import Plan
from runner.text import Shown, Table, steprun_command

Status = Literal["holds", "differs", "stale", "missing", "orphan", "damaged", "failed", "skipped", "written", "updated"]
"""`stale`: a snapshot of another config, or of one that was edited too much to compare. `missing`: a config without a
snapshot. `orphan`: a snapshot without its config. `damaged`: a snapshot that cannot be read. `failed`: the config is
not valid, or its run fails. `skipped`: the requested engine does not support the config.
"""

FINE: tuple[Status, ...] = ("holds", "skipped", "written", "updated")
ENGINE = "engine="
DIFFERS = 3


@dataclass(frozen=True, slots=True)
class Target:
    """A config and the file of its snapshot."""

    config: str | None  # None: the config that the snapshot names
    snapshot: str

    @property
    def name(self) -> str:
        """The name in reports."""
        return self.config or self.snapshot


class Observer(Protocol):
    """Sees the rows of one config as they are compared; its result can go to another process."""

    def __call__(self, watch: Watch, found: AnyRow | None, expected: AnyRow | None) -> None: ...
    def result(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class Request:
    """The options for every target."""

    update: Update | None = None
    overrides: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    width: int = WIDEST  # the width of the lines that describe differences
    runs: int | None = None  # perturbed runs if a snapshot is written; None: as the config says
    budget: float | None = None  # seconds for the perturbed runs
    observer: Callable[[Plan], Observer] | None = None  # makes what sees the rows of each config as they are compared


@dataclass(frozen=True, slots=True)
class Outcome(Shown):
    """The result for one target. It has plain values only, so that another process can return it."""

    name: str
    status: Status
    exit_code: int = 0
    lines: tuple[str, ...] = ()  # the report as text
    rows: int = 0
    seconds: float = 0.0
    exact: bool = True  # whether it was compared bit for bit
    details: dict[str, Any] = field(default_factory=dict)  # the report as JSON values
    observed: Any = None  # the result of the observer

    def _tables(self) -> Iterator[Table]:
        facts = [("config", self.name), ("status", self.status), ("rows", f"{self.rows:,}")]
        yield Table([*facts, *([("report", "\n".join(self.lines))] if self.lines else ())])


def check(target: Target, request: Request) -> Outcome:
    """Run a config and compare it with its snapshot. Errors of either become part of the outcome."""
    began = time.perf_counter()
    outcome = _checked(target, request)
    return replace(outcome, seconds=time.perf_counter() - began)


def _checked(target: Target, request: Request) -> Outcome:
    path = Path(target.snapshot)
    if not os.path.lexists(path):
        if request.update is not None and target.config is not None:
            return _catching(target.name, request, lambda: _new(target.name, Path(str(target.config)), path, request))
        hint = f"`{steprun_command('snapshot', target.name)}` takes one"
        return _fault(target.name, "missing", SteprunError(Problem(f"{target.name} has no snapshot", hint)), DIFFERS)
    try:
        snapshot, of = read(path)
    except (SnapshotError, UsageError) as error:
        return _fault(target.name, "damaged", error, error.exit_code)
    config = path.parent.parent / of
    name = target.config or os.path.normpath(config)
    if target.config is not None and Path(target.config).name != of:
        message = f"{path} belongs to {of}, not to {target.config}"
        hint = "give one of the two configs a `name` of its own"
        return _fault(name, "damaged", SnapshotError(Problem(message, hint)), SnapshotError.exit_code)
    if not config.is_file():
        problem = Problem(f"{path} belongs to {of}, which does not exist", "restore the config, or remove this file")
        return _fault(str(path), "orphan", SnapshotError(problem), DIFFERS)
    return _catching(name, request, lambda: _compared(name, config, path, snapshot, request))


def _catching(name: str, request: Request, work: Callable[[], Outcome]) -> Outcome:
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
    rows = list(execute(plan))
    snapshot, doubts = _take_snapshot(config, plan, rows, request)
    write(snapshot, path, config.name)
    return Outcome(name, "written", rows=len(snapshot.rows), lines=(f"wrote {path}", *doubts))


def _take_snapshot(
    config: Path, plan: Plan, rows: Sequence[Row], request: Request, before: Snapshot | None = None
) -> tuple[Snapshot, tuple[str, ...]]:
    """The snapshot of a run, and warnings about numbers that mean little.

    Uncertainty is measured as for the previous snapshot, unless the request says otherwise.
    """
    runs, how = request.runs, None if before is None else before.measured
    if runs is None and how is None and before is not None and before.format != FIRST_FORMAT:
        runs = 0
    uncertainty = measured(plan, rows, request.allow, runs=runs, before=how, budget=request.budget)
    warned: tuple[str, ...] = ()
    if uncertainty is not None:
        from runner.compare.uncertainty.meaning import check_meaning, doubts  # imports torch's compiler

        check_meaning(str(config), rows, uncertainty)
        warned = tuple(doubts(plan, rows, uncertainty))
    return snapshot_of(plan, rows, uncertainty, take_restarts(plan, uncertainty, request.allow)), warned


@dataclass(frozen=True, slots=True)
class Judged:
    """A run compared with its snapshot."""

    verdict: Verdict
    exact: bool  # whether the environment is the same and the config was not edited
    measured: bool  # whether the default tolerance is the measured uncertainty
    edited: tuple[Edit, ...]
    matches: bool  # whether any row after the start matches a row of the snapshot
    restarts: tuple[Restarted, ...] = ()

    @property
    def compared_by(self) -> str:
        if self.exact:
            return "bits"
        return "uncertainty" if self.measured else "tolerance"

    @property
    def holds(self) -> bool:
        return self.agrees(self.verdict) and not self.differing

    @property
    def refreshes(self) -> bool:
        """Whether the config was edited and no bit changed, so that only the digests of the config need an update."""
        verdicts = [self.verdict, *(each.verdict for each in self.restarts if each.verdict is not None)]
        return bool(self.edited) and self.holds and all(verdict.same_bits for verdict in verdicts)

    @property
    def differing(self) -> list[tuple[int, Verdict]]:
        """The rows whose recorded state led to other numbers, each with its verdict."""
        found = [(each.after, each.verdict) for each in self.restarts if each.verdict is not None]
        return [(after, verdict) for after, verdict in found if not self.agrees(verdict)]

    def agrees(self, verdict: Verdict) -> bool:
        """Whether a verdict passes. If the config was edited, new rows and tensors are allowed."""
        return _only_new(verdict) if self.edited else verdict.holds


def _compared(name: str, config: Path, path: Path, snapshot: Snapshot, request: Request) -> Outcome:
    plan = plan_of(config, request.overrides, request.allow)
    if plan.name != path.stem:
        message = f"{path} belongs to {config}, whose name is `{plan.name}`"
        takes = steprun_command("snapshot", config)
        hint = f"`{takes}` takes {snapshot_path(config, plan.name).name}; remove this one"
        return _fault(name, "stale", SnapshotError(Problem(message, hint)), DIFFERS)
    rows: list[Row] | None = list(execute(plan)) if request.update else None
    observer = None if request.observer is None else request.observer(plan)
    judged = judge(plan, snapshot, rows, observer)
    outcome = _judged(name, plan, config, path, snapshot, request, rows, judged)
    return outcome if observer is None else replace(outcome, observed=observer.result())


def _judged(
    name: str,
    plan: Plan,
    config: Path,
    path: Path,
    snapshot: Snapshot,
    request: Request,
    rows: list[Row] | None,
    judged: Judged,
) -> Outcome:
    """The outcome of a comparison, after writing what the request updates."""
    if judged.edited and not judged.matches and request.update is None:
        return _unmatched(name, plan, snapshot, judged)
    stored = tuple(restart.after for restart in snapshot.restarts) == plan.snapshot.restart
    fresh = judged.holds and stored and not judged.edited and request.update != "all"
    first = snapshot.format == FIRST_FORMAT
    if request.update is None or (first and request.update == "new") or (fresh and not first):
        return _outcome(name, plan, snapshot, judged, request.width)
    assert rows is not None
    doubts: tuple[str, ...] = ()
    if judged.refreshes and stored and request.update == "differing" and _can_be_refreshed(snapshot, judged):
        new = replace(
            snapshot, config=field_digests(plan.config)
        )  # the numbers are the same: only the config's digests are new
    else:
        taken, doubts = _take_snapshot(config, plan, rows, request, snapshot)
        new = updated(snapshot, taken, request.update)
    if request.update == "new":
        if judged.differing or not _only_new(judged.verdict):
            write(new, path, config.name)
            return _outcome(name, plan, snapshot, judged, request.width)
        new = replace(new, config=field_digests(plan.config))
    write(new, path, config.name)
    return _written(name, path, snapshot, new, judged, doubts)


def _written(name: str, path: Path, before: Snapshot, new: Snapshot, judged: Judged, doubts: Sequence[str]) -> Outcome:
    count = changes(before, new)
    summary = f"wrote {path}: {count:,} tensor{'' if count == 1 else 's'} changed"
    if judged.edited:
        summary += f", {_counted_edits(judged.edited)}"
    if new.environment != before.environment:
        summary += ", taken whole in this environment"
    return Outcome(name, "updated", rows=judged.verdict.compared, lines=(summary, *doubts), exact=judged.exact)


def judge(
    plan: Plan, snapshot: Snapshot, found: Sequence[AnyRow] | None = None, observe: Observe | None = None
) -> Judged:
    """Compare a run of a plan with its snapshot.

    Args:
        found: the rows of the run; by default, the plan is run.
        observe: sees each pair of rows after it was compared.
    """
    edited = edits(plan.config, snapshot.config, first_format=snapshot.format == FIRST_FORMAT)
    expected, same = snapshot.rows_in(environment_of(plan))
    exact = same and not edited
    tolerances = tolerances_of(plan, exact, snapshot)
    rows = execute(plan) if found is None else found
    if edited:
        stored = {column.name for column in snapshot.columns}
        common = [column.name for column in plan.columns if column.role == "value" and column.name in stored]
        pairs = align_edited(list(rows), expected, common)
    else:
        pairs = align(rows, expected)
    matched: list[str] = []
    collecting = _collecting(pairs, matched)
    verdict = compare(collecting, plan.columns, snapshot.columns, tolerances, uncertainty_of, observe)
    restarts = compare_restarts(plan, snapshot, tolerances, edited=bool(edited))
    measured_elsewhere = tolerances.default.mode == "measured"
    matches = any(step != START for step in matched) or len(expected) < 2
    return Judged(verdict, exact, measured_elsewhere, edited, matches, tuple(restarts))


def _collecting(pairs: Iterable[Pair], matched: list[str]) -> Iterator[Pair]:
    """Yields the pairs, and adds the step of each matched row to `matched`."""
    for found, expected in pairs:
        if found is not None and expected is not None:
            matched.append(expected.step)
        yield found, expected


def _unmatched(name: str, plan: Plan, snapshot: Snapshot, judged: Judged) -> Outcome:
    message = "the config was edited, and none of its steps is in the snapshot"
    hint = "`steprun check --update` takes the numbers of the edited config"
    lines = (message, *_edits_lines(judged.edited), *_notes(plan, snapshot, judged), f"= {hint}")
    details = {"edited": [_edit_json(edit) for edit in judged.edited]}
    return Outcome(name, "stale", DIFFERS, lines, details=details)


MOST_EDITS = 6


def _counted_edits(edited: Sequence[Edit]) -> str:
    return f"{len(edited)} field{'' if len(edited) == 1 else 's'} of the config edited"


def _edits_lines(edited: Sequence[Edit]) -> list[str]:
    shown = [str(edit) for edit in edited[:MOST_EDITS]]
    return [*shown, f"and {len(edited) - MOST_EDITS} more fields"] if len(edited) > MOST_EDITS else shown


def _edit_json(edit: Edit) -> dict[str, Any]:
    return {"field": edit.name, "kind": edit.kind, "file": edit.source, "line": edit.line}


def _outcome(name: str, plan: Plan, snapshot: Snapshot, judged: Judged, width: int) -> Outcome:
    verdict = judged.verdict
    bits = verdict.same_bits and all(each.verdict is None or each.verdict.same_bits for each in judged.restarts)
    details = {
        "edited": [_edit_json(edit) for edit in judged.edited],
        "compared_by": judged.compared_by,
        "bits": bits,
        "digests": _digests(snapshot),
    }
    notes = [*_edits_lines(judged.edited), *_notes(plan, snapshot, judged)]
    if judged.holds:
        lines = (*notes, *(structure(verdict) if judged.edited else ()))
        return Outcome(name, "holds", rows=verdict.compared, exact=judged.exact, lines=lines, details=details)
    now = files_of(plan) if snapshot.files else {}
    others = [file for file, digest in snapshot.files.items() if now.get(file, digest) != digest]
    changed = [f"`{file}` is not the file that the snapshot was taken with" for file in others]
    draws = [name for name, drawn in ((BATCH, plan.sources), (RANDOM, plan.random)) if drawn]
    first = _explained(judged, plan)
    every = plan.log.every
    page = [*notes, *changed]
    if not judged.agrees(verdict):
        page += report(verdict, draws=draws, every=every, width=width, first=first)
    restarts: list[dict[str, Any]] = []
    for after, restarted in judged.differing:
        page.append(f"started from the recorded state after row {after}:")
        page += report(restarted, draws=draws, every=1, width=width)
        restarts.append({"after": after, **to_json(restarted, draws=draws, every=1)})
    details |= to_json(verdict, draws=draws, every=every, first=first)
    details |= {"changed_files": others, "restarts": restarts, "at": _place(plan, judged)}
    return Outcome(name, "differs", DIFFERS, tuple(page), verdict.compared, exact=judged.exact, details=details)


def _place(plan: Plan, judged: Judged) -> dict[str, Any] | None:
    """The line to look at: of an edit that can explain the difference, else of the first tensor that differs."""
    verdict, first = judged.verdict, judged.verdict.first_difference
    own = [edit for edit in judged.edited if edit.source is None and edit.line is not None]
    able = [edit for edit in own if first is not None and explains(edit, first, plan)] or own
    if able:
        return {"file": plan.config.document.source.name, "line": able[0].line, "column": 1}
    columns = [] if first is None else [first.divergences[0].column]
    for column in [*columns, *verdict.missing_columns, *verdict.new_columns]:
        found = place_of(plan.config, column)
        if found is not None and not found[0].is_override:
            return {"file": found[1].source, "line": found[1].line, "column": found[1].column}
    return None


def _explained(judged: Judged, plan: Plan) -> list[str]:
    """The edits that can cause the first difference; they are the first of its causes."""
    first_difference = judged.verdict.first_difference
    if first_difference is None:
        return []
    able = [edit for edit in judged.edited if explains(edit, first_difference, plan)]
    return [f"{edit}, which can explain this" for edit in able[:MOST_EDITS]]


def _notes(plan: Plan, snapshot: Snapshot, judged: Judged) -> Iterator[str]:
    if snapshot.format == FIRST_FORMAT:
        yield "the snapshot has format 1, without uncertainties: `steprun snapshot` takes it again"
    digests = _digests(snapshot)
    if digests and not judged.exact and not judged.verdict.same_bits:
        known = "is stored only as a digest" if digests == 1 else "are stored only as digests"
        yield f"{digests:,} tensor{'' if digests == 1 else 's'} of rows {known}, and cannot be compared elsewhere"
    for restart in judged.restarts:
        if restart.verdict is None:
            yield f"the state after row {restart.after} does not fit the edited config: {restart.misfit}"
    missing = sorted({*plan.snapshot.restart} - {restart.after for restart in snapshot.restarts})
    if missing:
        rows = f"row{'' if len(missing) == 1 else 's'} {listing([str(row) for row in missing], 6)}"
        yield f"the snapshot has no state after {rows}: `steprun check --update` stores it"


def _digests(snapshot: Snapshot) -> int:
    """The number of tensors that are stored only as a digest, including those after a restart."""
    rows = [*snapshot.rows, *(row for restart in snapshot.restarts for row in restart.rows)]
    found = (stored for row in rows for stored in row.values.values())
    return sum(isinstance(stored.value, Condensed) and stored.value.summary is None for stored in found)


def _can_be_refreshed(snapshot: Snapshot, judged: Judged) -> bool:
    """Whether an edited config has no new rows or tensors, and its snapshot's states still fit it."""
    verdict = judged.verdict
    if snapshot.format == FIRST_FORMAT:  # its environment lacks fields that the current format has
        return False
    fitting = all(each.verdict is not None for each in judged.restarts)
    return fitting and not verdict.new_columns and verdict.new_rows.count == 0


def _only_new(verdict: Verdict) -> bool:
    gone = (verdict.missing_columns, verdict.redeclared, verdict.first_difference)
    return not any(gone) and verdict.missing_rows.count == 0


def _skipped(name: str, error: EngineError) -> Outcome:
    """The outcome of a config that the engine does not support, with the first reason and the number of others."""
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
