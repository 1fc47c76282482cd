"""Prints recorded runs and sweeps as tables and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from runner.cli.output.printing import say, say_json
from runner.record.listing.facts import Fact, Facts
from runner.text import aligned, finite_json, printable_line

if TYPE_CHECKING:
    from runner.record.listing.runs import Recorded, RunSummary
    from runner.sweep.record.listing import SweepSummary

_UNKNOWN = "?"


def print_all(runs: Sequence[RunSummary], sweeps: Sequence[SweepSummary], as_json: bool) -> None:
    """Print runs and sweeps."""
    if as_json:
        say_json([run.to_json() for run in runs] + [sweep.to_json() for sweep in sweeps])
        return
    tables = [[("started", "status", "rows", "took", "run"), *map(_cells, runs)]] if runs else []
    tables += [[("started", "status", "points", "sweep"), *map(_sweep_cells, sweeps)]] if sweeps else []
    say("\n\n".join("\n".join(line.rstrip() for line in aligned(rows, indent="")) for rows in tables))


def print_runs(runs: Sequence[Recorded], names: Sequence[str] | None, as_json: bool) -> None:
    """Print runs with some of their values; the path of a run stands last.

    Raises:
        UsageError: no run has a value of a name.
    """
    if names is None:
        print_all([run.summary for run in runs], [], as_json)
        return
    facts = Facts(runs)
    shown = facts.expanded(names)
    facts.read_last(shown)
    values = {name: facts.values(name) for name in shown}
    rows = list(zip(*values.values(), strict=True)) if values else [()] * len(runs)
    if as_json:
        pairs = zip(runs, rows, strict=True)
        say_json([run.summary.to_json() | finite_json(dict(zip(shown, row, strict=True))) for run, row in pairs])
        return
    shown = [name for name in shown if name != "run"]
    cells = [[_cell(values[name][number]) for name in shown] for number in range(len(runs))]
    right = [all(isinstance(value, int | float | None) for value in values[name]) for name in shown]
    lines = [[*map(printable_line, shown), "run"]]
    lines += [[*row, printable_line(str(run.summary.path))] for row, run in zip(cells, runs, strict=True)]
    say("\n".join(line.rstrip() for line in aligned(lines, right, "")))


def _cell(value: Fact) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else printable_line(str(value))


def _sweep_cells(sweep: SweepSummary) -> tuple[str, ...]:
    path = f"{sweep.path}  {sweep.failure}" if sweep.failure else str(sweep.path)
    cells = (_minute(sweep.started), sweep.status, _UNKNOWN if sweep.points is None else f"{sweep.points:,}", path)
    return tuple(map(printable_line, cells))


def _minute(started: str | None) -> str:
    return started[:19].replace("T", " ") if started else _UNKNOWN


def _cells(run: RunSummary) -> tuple[str, ...]:
    path = f"{run.path}  {run.failure}" if run.failure and run.status in ("failed", "unreadable") else str(run.path)
    cells = (
        _minute(run.started),
        run.status,
        _UNKNOWN if run.rows is None else f"{run.rows:,}",
        "" if run.seconds is None else f"{run.seconds:.1f} s",
        path,
    )
    return tuple(map(printable_line, cells))
