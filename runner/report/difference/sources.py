"""Makes differences for pages: of two recorded runs, of a config and its snapshot, of two variants."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.compare.rows.report import report, to_json
from runner.compare.rows.results import AnyRow
from runner.compare.rows.verdict import Watch
from runner.compare.runs.difference import ABSENT, KeyDifference, RunDifference
from runner.compare.snapshots.checking import FINE, Outcome
from runner.compare.variants.error_table import ErrorTable
from runner.config import Config
from runner.language.dtypes import dtype_name
from runner.plan import Plan
from runner.plan.checks.engines.versions import JAX
from runner.plan.rows.columns import Column
from runner.record import Run
from runner.report.difference.model import Difference, Keys
from runner.report.difference.pages import Checked
from runner.report.difference.recorder import Observed, Recorder
from runner.report.difference.side import Side, side_of
from runner.text import counted, steprun_command

HEIGHT = 200
"""The most lines of a verdict as text."""

MOST_PATHS = 200


# --- two runs


def difference_of_runs(difference: RunDifference, found: Run, expected: Run, observed: Observed) -> Difference:
    """The difference of two runs, for a page."""
    seen: dict[str, Any] = {"draws": difference.draws, "every": difference.every, "first": difference.changed}
    verdict = to_json(difference.verdict, **seen)
    how = "bit for bit" if difference.tolerance == "bitwise" else f"with tolerance {difference.tolerance}"
    rows = counted(difference.verdict.compared, "row")
    first = "" if difference.cut is None else "the first "
    paths = _paths(verdict, observed)
    return Difference(
        title=f"{_name(expected)}: {expected.path.name} and {found.path.name}",
        summary=f"Expected {expected.path}, the first; found {found.path}, the second: {first}{rows} compared {how}.",
        verdict=verdict,
        lines=tuple(report(difference.verdict, **seen, height=HEIGHT)),
        observed=observed,
        expected=_side_of_run("expected", expected, paths),
        found=_side_of_run("found", found, paths),
        config=tuple(map(_keys, difference.config)),
        environment=tuple(map(_keys, difference.environment)),
        tolerance="" if difference.tolerance == "bitwise" else difference.tolerance,
        command=steprun_command("diff", expected.path, found.path),
    )


def _name(run: Run) -> str:
    return str(run.manifest.get("name") or run.path.parent.name)


def _side_of_run(label: str, run: Run, paths: Sequence[str]) -> Side:
    versions = run.manifest.get("versions") or {}
    facts: list[tuple[str, object]] = [
        ("run", run.path),
        ("status", run.status),
        ("rows", f"{len(run):,}"),
        ("started", run.manifest.get("started") or "?"),
        *((name, versions[name]) for name in ("steprun", "torch", *JAX) if name in versions),
    ]
    return side_of(label, run.config, run.columns, paths, facts)


def _keys(difference: KeyDifference) -> Keys:
    expected, found = difference.expected, difference.found
    lines = [None if side.mark is None else side.mark.line for side in (expected, found)]
    return Keys(difference.key, _value(expected.value), _value(found.value), (lines[0], lines[1]))


def _value(value: Any) -> str:
    if value is ABSENT:
        return "not set"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _paths(verdict: dict[str, Any], observed: Observed) -> list[str]:
    """The paths of the rows that the page names."""
    places = [verdict.get("first"), *((verdict.get(each) or {}).get("first") for each in ("missing_rows", "new_rows"))]
    found = [each["path"] for each in places if each is not None] + [row.path for row in observed.rows]
    return list(dict.fromkeys(found))[:MOST_PATHS]


# --- a config and its snapshot


@dataclass(frozen=True, slots=True)
class Watched:
    """What was seen of one config while it was checked."""

    observed: Observed
    found: Side


class CheckObserver:
    """Sees the rows of one config as they are compared with its snapshot."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._recorder: Recorder | None = None
        self._paths: dict[str, None] = {}

    def __call__(self, watch: Watch, found: AnyRow | None, expected: AnyRow | None) -> None:
        if self._recorder is None:
            self._recorder = Recorder(watch.found_columns, watch.expected_columns)
        self._recorder(watch, found, expected)
        if found is not None and len(self._paths) < MOST_PATHS:
            self._paths[found.path] = None

    def result(self) -> Watched:
        observed = Observed((), (), ()) if self._recorder is None else self._recorder.result()
        paths = [*(row.path for row in observed.rows), *self._paths]
        return Watched(observed, side_of("found", self._plan.config, self._plan.columns, paths))


def checked_of(outcomes: Iterable[Outcome], statuses: Mapping[str, str], by: Sequence[str]) -> list[Checked]:
    """The outcomes of a check, for a page.

    Args:
        statuses: how each status reads.
        by: how each outcome was compared, as text.
    """
    found = []
    for place, (outcome, how) in enumerate(zip(outcomes, by, strict=True)):
        difference = None
        if isinstance(outcome.observed, Watched) and outcome.status == "differs":
            difference = Difference(
                title=outcome.name,
                summary=f"{counted(outcome.rows, 'row')} of {outcome.name} compared with its snapshot, by {how}.",
                verdict=outcome.details,
                lines=outcome.lines,
                observed=outcome.observed.observed,
                expected=None,
                found=outcome.observed.found,
                config=tuple(map(_edit, outcome.details.get("edited") or ())),
                prefix=f"c{place}-",
                tolerance=how,
                command=steprun_command("check", outcome.name),
            )
        status = statuses[outcome.status]
        fine = outcome.status in FINE
        found.append(Checked(outcome.name, status, fine, outcome.rows, how, outcome.seconds, outcome.lines, difference))
    return found


def _edit(edit: Mapping[str, Any]) -> Keys:
    """An edit of a config since its snapshot was taken; the snapshot has digests of what was there."""
    place = "" if edit["file"] is None else f" in {edit['file']}"
    return Keys(edit["field"], "", f"{edit['kind']}{place}", (None, None if edit["file"] else edit["line"]))


# --- two variants


def difference_of_variants(
    table: ErrorTable, this: Plan, other: Plan, pairs: Sequence[str], observed: Observed
) -> Difference:
    """The difference of a config and a variant of it, for a page."""
    shown = table.verdict if table.within is None else table.within
    verdict = to_json(shown, draws=table.draws)
    paths = _paths(verdict, observed)
    return Difference(
        title=f"{this.name} and its variant",
        summary=f"{this.name} as it is, and with {' '.join(pairs)}: {counted(table.rows, 'row')} in lockstep.",
        verdict=verdict,
        lines=tuple(report(shown, draws=table.draws, height=HEIGHT)),
        observed=observed,
        expected=_side_of_plan("expected", this.config, this.columns, paths),
        found=_side_of_plan("found", other.config, other.columns, paths),
        environment=tuple(
            Keys(name, mine, theirs)
            for name, mine, theirs in (
                ("dtype", dtype_name(this.dtype), dtype_name(other.dtype)),
                ("device", this.device, other.device),
            )
            if mine != theirs
        ),
    )


def _side_of_plan(label: str, config: Config, columns: Iterable[Column], paths: Sequence[str]) -> Side:
    return side_of(label, config, columns, paths)
