"""`steprun snapshot` and `steprun check`: keep the numbers of configs, and hold runs to them."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from runner.cli.completion import complete_config
from runner.cli.options import Allow, FaultFormat, examples
from runner.errors import Problem, SnapshotError, UsageError

if TYPE_CHECKING:
    from runner.compare.checking import Outcome
    from runner.compare.snapshots import Snapshot

INDENT = "  "
NARROWEST = 40
BARE_UPDATE = "differing"
LONGEST_TABLE = 40
"""Snapshots up to which the table names all; of more, those that do not hold."""

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

Configs = Annotated[
    list[str],
    typer.Argument(metavar="CONFIG...", help="YAML configs.", autocompletion=complete_config, show_default=False),
]
Paths = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PATH...",
        help="Configs, snapshots, or folders with snapshots below; the working directory by default.",
        autocompletion=complete_config,
        show_default=False,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override in every config, such as device=cuda.", show_default=False
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print what does not hold and the last line only.")]


class CheckCommand(TyperCommand):
    """`--update` alone is `--update=differing`; what follows it is a path."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [f"--update={BARE_UPDATE}" if each == "--update" else each for each in args])


def register(application: typer.Typer) -> None:
    application.command(
        epilog=examples(
            "steprun snapshot configs/linear.yaml",
            "steprun snapshot configs/*.yaml --calibrate 10",
            "steprun snapshot configs/linear.yaml --set device=cuda --overlay",
        ),
        short_help="Keep the numbers of configs.",
    )(snapshot)
    application.command(
        cls=CheckCommand,
        epilog=examples(
            "steprun check",
            "steprun check configs --fail-fast -j 4",
            "steprun check configs/linear.yaml --update",
            "steprun check configs --set engine=compile",
            "steprun check configs --junit build/steprun.xml",
        ),
        short_help="Hold configs to their snapshots.",
    )(check)


def snapshot(
    configs: Configs,
    sets: Set = None,
    allow: Allow = None,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Keep what is other in this environment beside what is there.")
    ] = False,
    calibrate: Annotated[
        int | None,
        typer.Option(
            "--calibrate", metavar="N", min=1, help="Run N times more and keep the spread.", show_default=False
        ),
    ] = None,
    threads: Annotated[
        list[int] | None,
        typer.Option(
            "--threads", metavar="N", min=1, help="Thread count to calibrate over; 1 and all cores.", show_default=False
        ),
    ] = None,
    over: Annotated[
        list[str] | None,
        typer.Option("--over", metavar="KEY=VALUE", help="Calibrate with this override too.", show_default=False),
    ] = None,
    report: FaultFormat = "text",
) -> None:
    """Run configs and keep every number of their rows in `snapshots/NAME.yaml` beside each.

    A snapshot that is there is taken again, whole.
    """
    from dataclasses import replace

    from runner.compare.calibrating import calibrate as measured
    from runner.compare.calibrating import variants
    from runner.compare.collecting import target_of
    from runner.compare.snapshot_writing import write
    from runner.compare.taking import kept, plan_of
    from runner.compare.updating import has_same_rows, with_overlay
    from runner.engine import execute

    overrides, allowed = tuple(sets or ()), tuple(allow or ())
    if calibrate is None and (threads or over):
        raise UsageError("--threads and --over say what to calibrate over; add --calibrate N")
    if calibrate is not None and overlay:
        raise UsageError("--calibrate measures a snapshot that is taken anew, and --overlay takes none; give one")
    for name in configs:
        target = target_of(name)
        path, config = Path(target.snapshot), Path(name)
        before = _present(path, config.name)
        plan = plan_of(name, overrides, allowed)
        rows = None if calibrate is None else list(execute(plan))
        taken = kept(plan, execute(plan) if rows is None else rows)
        if overlay:
            if before is None:
                raise UsageError(Problem(f"{name} has no snapshot to lay over", "take one without --overlay first"))
            if not has_same_rows(before, taken):
                message = f"the run of {name} has other rows than its snapshot"
                raise SnapshotError(
                    Problem(message, "an overlay holds other values of the same rows; update the snapshot")
                )
            taken = before if before.environment == taken.environment else with_overlay(before, taken)
        elif calibrate is not None and rows is not None:
            tried = variants(threads or sorted({1, os.cpu_count() or 1}), over or ())
            spread = measured(config, rows, plan.columns, calibrate, tried, overrides, allowed)
            taken = replace(taken, calibration=spread)
        write(taken, path, config.name)
        size = f"{_counted(len(taken.rows), 'row')}, {_counted(len(taken.columns), 'tensor')}"
        typer.echo(f"{path}  {size}{_spread(taken)}")


def _present(path: Path, config: str) -> Snapshot | None:
    """The snapshot that is there; one that cannot be read is not written over."""
    from runner.compare.snapshot_reading import read

    if not path.exists():
        return None
    found, of = read(path)
    if of != config:
        raise SnapshotError(
            Problem(f"{path} is of {of}, not of {config}", "give one of the two configs a `name` of its own")
        )
    return found


def _spread(taken: Snapshot) -> str:
    if taken.calibration is None:
        return ""
    moved = {name: apart for name, apart in taken.calibration.spread.items() if apart}
    if not moved:
        return f"; {taken.calibration.runs} runs over {taken.calibration.over}: the same bits"
    name = max(moved, key=lambda each: moved[each])
    return (
        f"; {taken.calibration.runs} runs over {taken.calibration.over}: {_counted(len(moved), 'tensor')} moved, "
        f"`{name}` most, by {moved[name]:.2g}"
    )


def check(
    paths: Paths = None,
    update: Annotated[
        str | None,
        typer.Option(
            "--update",
            metavar="[=new|differing|all]",
            help="Write what is new, what differs (bare), or everything.",
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[int, typer.Option("-j", "--jobs", metavar="N", min=0, help="Processes; 0 for one a core.")] = 1,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", "-x", help="Stop at the first that does not hold.")] = False,
    sets: Set = None,
    allow: Allow = None,
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Also write JUnit XML.", show_default=False)
    ] = None,
    quiet: Quiet = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write the outcomes to standard output as JSON.")] = False,
    report: FaultFormat = "text",
) -> None:
    """Run configs again and compare every number with their snapshots.

    In the environment of a snapshot bits are compared, in another one values, within the tolerance of their dtype or
    that of the config. Exits with 3 where something differs.
    """
    from runner.compare import results
    from runner.compare.checking import FINE, Request
    from runner.compare.collecting import collect
    from runner.compare.many import check_all
    from runner.compare.report import WIDEST
    from runner.compare.updating import UPDATES

    chosen = next((each for each in UPDATES if each == update), None)
    if update is not None and chosen is None:
        raise UsageError(Problem(f"--update is `{update}`", f"it takes {', '.join(UPDATES)}"))
    began = time.perf_counter()
    targets = collect(paths or ["."])
    width = max(NARROWEST, min(WIDEST, shutil.get_terminal_size().columns - len(INDENT)))
    request = Request(chosen, tuple(sets or ()), tuple(allow or ()), width)
    outcomes = []
    with _Counter(len(targets), shown=sys.stderr.isatty() and not as_json) as counter:
        for outcome in check_all(targets, request, jobs=jobs or os.cpu_count() or 1, fail_fast=fail_fast):
            outcomes.append(outcome)
            counter.clear()
            if not as_json and not (quiet and outcome.status in FINE):
                _tell(outcome)
            counter.next()
    if junit is not None:
        results.write_junit(outcomes, junit)
    if as_json:
        typer.echo(json.dumps(results.to_json(outcomes), indent=2, ensure_ascii=False))
    else:
        _summarize(outcomes, len(targets), time.perf_counter() - began, quiet)
    code = results.exit_code_of(outcomes)
    if code:
        raise typer.Exit(code)


class _Counter:
    """`checking 3 of 25` on a line of its own, on a terminal."""

    def __init__(self, total: int, *, shown: bool) -> None:
        self._total = total
        self._shown = shown and total > 1
        self._done = 0

    def __enter__(self) -> _Counter:
        self._draw()
        return self

    def __exit__(self, *error: object) -> None:
        self.clear()

    def next(self) -> None:
        self._done += 1
        self._draw()

    def clear(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()

    def _draw(self) -> None:
        if self._shown and self._done < self._total:
            sys.stderr.write(f"checking {self._done + 1} of {self._total}")
            sys.stderr.flush()


def _tell(outcome: Outcome) -> None:
    if outcome.lines:
        typer.echo(f"{outcome.name}: {_STATUSES[outcome.status]}")
        typer.echo("\n".join(INDENT + line if line else "" for line in outcome.lines) + "\n")


def _summarize(outcomes: Sequence[Outcome], targets: int, seconds: float, quiet: bool) -> None:
    from runner.cli.page import table
    from runner.compare.checking import FINE
    from runner.compare.results import counts

    shown = [each for each in outcomes if len(outcomes) <= LONGEST_TABLE or each.status not in FINE]
    if shown and not quiet:
        rows = [
            (
                each.name,
                _STATUSES[each.status],
                f"{each.rows:,}" if each.rows else "",
                ("bits" if each.exact else "tolerance") if each.rows and each.status != "written" else "",
                f"{each.seconds:.2f} s",
            )
            for each in shown
        ]
        typer.echo("\n".join(table([("config", "status", "rows", "compared by", "took"), *rows], indent="")))
    told = [f"{count:,} {_several(status, count)}" for status, count in counts(outcomes).items()]
    skipped = targets - len(outcomes)
    if skipped:
        told.append(f"{skipped:,} not checked")
    typer.echo(f"{_counted(len(outcomes), 'snapshot')}: {', '.join(told)} in {seconds:.1f} s")


def _several(status: str, count: int) -> str:
    return _PLURALS.get(status, _STATUSES[status]) if count > 1 else _STATUSES[status]


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
