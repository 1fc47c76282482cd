"""`steprun snapshot` and `steprun check`: store the numbers of configs, and compare later runs with them."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from runner.cli.input.completion import complete_config
from runner.cli.input.declarations import argument, option
from runner.cli.input.options import Allow, FaultFormat, Page, cores, examples
from runner.cli.input.runs import config_path, point_of
from runner.cli.output.annotations import annotate
from runner.cli.output.pages import check_page, observer, page_of_check, write_page
from runner.cli.output.printing import say, say_json
from runner.errors import Problem, SnapshotError, UsageError
from runner.text import counted, printable_line

if TYPE_CHECKING:
    from runner.compare.snapshots.checking import Outcome, Request, Target
    from runner.compare.snapshots.model import Snapshot
    from runner.compare.snapshots.updating import Update
    from runner.compare.uncertainty.measuring import Progress

INDENT = "  "
NARROWEST = 40
FEWEST_RUNS = 3
BARE = {"--update": "--update=differing", "--uncertainty": "--uncertainty=8"}
LONGEST_TABLE = 40
"""The most snapshots that the table lists. If there are more, it lists only those that do not match."""

_STATUSES = {
    "holds": "holds",
    "differs": "differs",
    "stale": "of another config",
    "missing": "no snapshot",
    "orphan": "no config",
    "damaged": "damaged",
    "failed": "failed",
    "skipped": "skipped",
    "written": "written",
    "updated": "updated",
}

_PLURALS = {"holds": "hold", "differs": "differ"}
_COUNTED = {"missing": "missing", "orphan": "without a config"}

Configs = Annotated[list[str], argument("CONFIG", help="YAML configs.", autocompletion=complete_config)]
Paths = Annotated[
    list[str] | None,
    argument(
        "PATH",
        help="Configs, snapshots, or folders that contain snapshots; the working directory by default.",
        autocompletion=complete_config,
    ),
]
Set = Annotated[
    list[str] | None, option("--set", metavar="KEY=VALUE", help="Override in every config, such as device=cuda.")
]
Uncertainty = Annotated[
    int | None,
    option(
        "--uncertainty",
        metavar="[=N]",
        min=0,
        help="Perturbed runs that measure the uncertainty of each number; 8 by default, 0 for none.",
    ),
]
Budget = Annotated[
    float | None,
    option(
        "--budget",
        metavar="SECONDS",
        min=0,
        help="Time for the perturbed runs of one config; 60 by default. At least 3 are made.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only what differs, and the last line.")]


class BareOptions(TyperCommand):
    """Reads `--update` and `--uncertainty` without `=` as in `BARE`: the next word is a path and not a value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [BARE.get(each, each) for each in args])


def register(application: typer.Typer) -> None:
    application.command(
        cls=BareOptions,
        epilog=examples(
            "steprun snapshot configs/linear.yaml",
            "steprun snapshot configs/*.yaml --budget 10",
            "steprun snapshot configs/linear.yaml --set device=cuda --overlay",
        ),
        short_help="Store the numbers of configs as snapshots.",
    )(snapshot)
    application.command(
        cls=BareOptions,
        epilog=examples(
            "steprun check",
            "steprun check configs --fail-fast -j 4",
            "steprun check configs/linear.yaml --update",
            "steprun check configs --set engine=compile",
            "steprun check configs --junit build/steprun.xml",
            "steprun check configs --report build/check.html --format github",
        ),
        short_help="Re-run configs and compare them with their snapshots.",
    )(check)


def snapshot(
    configs: Configs,
    sets: Set = None,
    allow: Allow = None,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Store only the values that differ in this environment.")
    ] = False,
    uncertainty: Uncertainty = None,
    budget: Budget = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print warnings only.")] = False,
    report: FaultFormat = "text",
) -> None:
    """Run configs and store every number of their rows in `snapshots/NAME.yaml` beside each config.

    Each config also runs several times with perturbed rounding, to measure how uncertain each number is on any
    machine. An existing snapshot is replaced.
    """
    from runner.compare.snapshots.capture import measured, plan_of, snapshot_of
    from runner.compare.snapshots.model import FIRST_FORMAT
    from runner.compare.snapshots.restarts import take_restarts
    from runner.compare.snapshots.targets import target_of
    from runner.compare.snapshots.updating import has_same_rows, with_overlay
    from runner.compare.snapshots.writing import write
    from runner.compare.uncertainty.meaning import check_meaning, doubts
    from runner.engine import execute

    overrides, given = tuple(sets or ()), tuple(allow or ())
    _check_count(uncertainty)
    for name, folders in map(_config_of, configs):
        allowed = (*given, *folders)
        target = target_of(name)
        path, config = Path(target.snapshot), Path(name)
        before = _existing(path, config.name)
        plan = plan_of(name, overrides, allowed)
        rows = list(execute(plan))
        if overlay:
            taken = snapshot_of(plan, rows)
            if before is None:
                raise UsageError(Problem(f"{name} has no snapshot to overlay", "take one without --overlay first"))
            if before.format == FIRST_FORMAT:
                message = f"the snapshot of {name} has format {FIRST_FORMAT}, which has no uncertainties"
                raise SnapshotError(Problem(message, "take it again without --overlay first"))
            if not has_same_rows(before, taken):
                message = f"the run of {name} has other rows than its snapshot"
                raise SnapshotError(
                    Problem(message, "an overlay holds other values of the same rows; update the snapshot")
                )
            taken = before if before.environment == taken.environment else with_overlay(before, taken)
        else:
            with Counter(f"measuring {name}: perturbed run", shown=sys.stderr.isatty() and not quiet) as counter:
                measurement = measured(
                    plan, rows, allowed, runs=uncertainty, before=None if before is None else before.measured,
                    budget=budget, progress=counter.at,
                )  # fmt: skip
            if measurement is not None:
                check_meaning(name, rows, measurement)
            with Counter("", shown=sys.stderr.isatty() and not quiet) as counter:
                restarts = take_restarts(plan, measurement, allowed, _from_row(counter, name))
            taken = snapshot_of(plan, rows, measurement, restarts)
            for doubt in () if measurement is None else doubts(plan, rows, measurement):
                say(f"{name}: {doubt}", err=True)
        write(taken, path, config.name)
        size = f"{counted(len(taken.rows), 'row')}, {counted(len(taken.columns), 'tensor')}"
        if not quiet:
            say(f"{path}  {size}{_measured(taken)}")


def _config_of(path: str) -> tuple[str, tuple[str, ...]]:
    """A path and the folders of its data; a point of a sweep stands for its config."""
    return config_path(path) if point_of(path) is not None else (path, ())


def _from_row(counter: Counter, name: str) -> Callable[[int], Progress]:
    """The progress callback for the perturbed runs that start from the state after a row."""
    return lambda after: counter.labelled(f"measuring {name} from row {after}: perturbed run").at


def _check_count(uncertainty: int | None) -> None:
    """Refuse a number of perturbed runs that is too small for an estimate."""
    if uncertainty is not None and 0 < uncertainty < FEWEST_RUNS:
        raise UsageError(Problem(f"--uncertainty is {uncertainty}", f"it takes 0, or {FEWEST_RUNS} or more"))


def _existing(path: Path, config: str) -> Snapshot | None:
    """The existing snapshot, if any; one that cannot be read is not overwritten."""
    from runner.compare.snapshots.reading import read

    if not path.exists():
        return None
    found, of = read(path)
    if of != config:
        raise SnapshotError(
            Problem(f"{path} belongs to {of}, not to {config}", "give one of the two configs a `name` of its own")
        )
    return found


def _measured(taken: Snapshot) -> str:
    measured = taken.measured
    return "" if measured is None else f"; uncertainty from {measured.runs} perturbed runs"


def check(
    paths: Paths = None,
    update: Annotated[
        str | None,
        option(
            "--update",
            metavar="[=new|differing|all]",
            help="Rewrite the snapshots that are new, that differ (the default), or all.",
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option("-j", "--jobs", metavar="N", min=0, help="Processes to run in; 0 for one per core.")
    ] = 1,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", "-x", help="Stop at the first snapshot that does not match.")
    ] = False,
    sets: Set = None,
    allow: Allow = None,
    uncertainty: Uncertainty = None,
    budget: Budget = None,
    junit: Annotated[Path | None, option("--junit", metavar="FILE", help="Also write JUnit XML.")] = None,
    page: Page = None,
    quiet: Quiet = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
    report: FaultFormat = "text",
) -> None:
    """Re-run configs and compare every number with their snapshots.

    In the environment of the snapshot, bits are compared. In another environment, or if the config was edited, numbers
    are compared within the uncertainty that the snapshot measured. The exit code is 3 if something differs.
    """
    from runner.compare.rows.report import WIDEST
    from runner.compare.snapshots import results
    from runner.compare.snapshots.checking import Request
    from runner.compare.snapshots.targets import collect

    chosen = _update(update, uncertainty, budget)
    check_page(page)
    began = time.perf_counter()
    named = [_config_of(path) for path in paths or ["."]]
    targets = collect(path for path, _ in named)
    width = max(NARROWEST, min(WIDEST, shutil.get_terminal_size().columns - len(INDENT)))
    allowed = (*(allow or ()), *dict.fromkeys(folder for _, folders in named for folder in folders))
    request = Request(
        chosen, tuple(sets or ()), allowed, width, uncertainty, budget, None if page is None else observer()
    )
    outcomes = _outcomes(targets, request, jobs, fail_fast, quiet, as_json)
    if junit is not None:
        results.write_junit(outcomes, junit)
    if page is not None:
        by = [_compared_by(outcome) for outcome in outcomes]
        write_page(page, page_of_check(outcomes, _STATUSES, by, time.perf_counter() - began))
    if report == "github":
        annotate(outcomes)
    if as_json:
        say_json(results.to_json(outcomes))
    else:
        _summarize(outcomes, len(targets), time.perf_counter() - began, quiet)
    code = results.exit_code_of(outcomes)
    if code:
        raise typer.Exit(code)


def _update(update: str | None, uncertainty: int | None, budget: float | None) -> Update | None:
    """Which snapshots `--update` rewrites; None: none.

    Raises:
        UsageError: it is no choice, or an option has no effect without it.
    """
    from runner.compare.snapshots.updating import UPDATES

    chosen = next((each for each in UPDATES if each == update), None)
    if update is not None and chosen is None:
        raise UsageError(Problem(f"--update is `{update}`", f"it takes {', '.join(UPDATES)}"))
    _check_count(uncertainty)
    if update is None and not (uncertainty is None and budget is None):
        given = "--budget" if uncertainty is None else "--uncertainty"
        raise UsageError(Problem(f"{given} has no effect without --update", "add --update, or leave it out"))
    return chosen


def _outcomes(
    targets: Sequence[Target], request: Request, jobs: int, fail_fast: bool, quiet: bool, as_json: bool
) -> list[Outcome]:
    """Check configs, and print each outcome as it comes."""
    from runner.compare.snapshots.checking import FINE
    from runner.compare.snapshots.many import check_all

    outcomes: list[Outcome] = []
    shown = sys.stderr.isatty() and not as_json and len(targets) > 1
    with Counter("checking", shown=shown) as counter:
        counter.at(1, len(targets))
        for outcome in check_all(targets, request, jobs=jobs or cores(), fail_fast=fail_fast):
            outcomes.append(outcome)
            counter.clear()
            if not as_json and not (quiet and outcome.status in FINE):
                _print_outcome(outcome)
            counter.at(len(outcomes) + 1, len(targets))
    return outcomes


class Counter:
    """Shows `checking 3 of 25` on the last line of a terminal, and erases it at the end."""

    def __init__(self, label: str, *, shown: bool) -> None:
        self._label = label
        self._shown = shown

    def __enter__(self) -> Counter:
        return self

    def __exit__(self, *error: object) -> None:
        self.clear()

    def labelled(self, label: str) -> Counter:
        self._label = label
        return self

    def at(self, number: int, total: int) -> None:
        if self._shown and number <= total:
            self.clear()
            sys.stderr.write(f"{printable_line(self._label)} {number} of {total}")
            sys.stderr.flush()

    def clear(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()


def _print_outcome(outcome: Outcome) -> None:
    if outcome.lines:
        say(f"{outcome.name}: {_STATUSES[outcome.status]}")
        say("\n".join(INDENT + line if line else "" for line in outcome.lines) + "\n")


def _summarize(outcomes: Sequence[Outcome], targets: int, seconds: float, quiet: bool) -> None:
    from runner.cli.output.plan_text import table
    from runner.compare.snapshots.checking import FINE
    from runner.compare.snapshots.results import counts

    shown = [each for each in outcomes if len(outcomes) <= LONGEST_TABLE or each.status not in FINE]
    if shown and not quiet:
        rows = [
            (
                each.name,
                _STATUSES[each.status],
                f"{each.rows:,}" if each.rows else "",
                _compared_by(each),
                f"{each.seconds:.2f} s",
            )
            for each in shown
        ]
        say("\n".join(table([("config", "status", "rows", "compared by", "took"), *rows], indent="")))
    totals = [f"{count:,} {_counted_as(status, count)}" for status, count in counts(outcomes).items()]
    skipped = targets - len(outcomes)
    if skipped:
        totals.append(f"{skipped:,} not checked")
    say(f"{counted(len(outcomes), 'snapshot')}: {', '.join(totals)} in {seconds:.1f} s")


def _compared_by(outcome: Outcome) -> str:
    """How a snapshot was compared: `bits`, or a tolerance, then with `same bits` if all bits were equal."""
    if not outcome.rows or outcome.status in ("written", "updated"):
        return ""
    by = str(outcome.details.get("compared_by", "bits"))
    same = not outcome.exact and outcome.status == "holds" and outcome.details.get("bits")
    return f"{by}, same bits" if same else by


def _counted_as(status: str, count: int) -> str:
    """A status behind a number."""
    if status in _COUNTED:
        return _COUNTED[status]
    return _PLURALS.get(status, _STATUSES[status]) if count > 1 else _STATUSES[status]
