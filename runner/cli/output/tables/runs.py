"""Prints recorded runs and sweeps as tables and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from runner.cli.output.printing import say, say_json
from runner.cli.output.tables.fitted import Column, fitted_table, terminal_width
from runner.record.listing.facts import Fact, Facts
from runner.text import finite_json, printable_line

if TYPE_CHECKING:
    from runner.record.listing.runs import Recorded, RunSummary
    from runner.sweep.record.listing import SweepSummary

_UNKNOWN = "?"


def print_all(runs: Sequence[RunSummary], sweeps: Sequence[SweepSummary], as_json: bool) -> None:
    """Print runs and sweeps."""
    if as_json:
        say_json([run.to_json() for run in runs] + [sweep.to_json() for sweep in sweeps])
        return
    tables = [_table(_RUNS, list(map(_cells, runs)))] if runs else []
    tables += [_table(_SWEEPS, list(map(_sweep_cells, sweeps)))] if sweeps else []
    say("\n\n".join("\n".join(lines) for lines in tables))


_RUNS = ("started", "status", "rows", "took", "run", "failure")
_SWEEPS = ("started", "status", "points", "sweep", "failure")
_SPARE = ("rows", "points", "took", "failure", "started")
"""The columns that a narrow terminal leaves out, the most important first: the name of a directory has its time."""


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The table of runs or of sweeps; the column of failures is left out if there are none."""
    found = dict(zip(headings, zip(*rows, strict=True), strict=True))
    columns = {name: _column(name, cells) for name, cells in found.items() if name != "failure" or any(cells)}
    kept = [columns[name] for name in ("run", "sweep", "status") if name in columns]
    spare = [columns[name] for name in _SPARE if name in columns]
    return fitted_table(list(columns.values()), kept, spare, terminal_width(), "--json shows all")


def _column(name: str, cells: Sequence[str], numbers: bool = False) -> Column:
    """A column of runs. A path loses its start first, because its end names the run."""
    least = {"run": 20, "sweep": 20, "failure": 16}.get(name)
    return Column(name, cells, numbers, least, from_start=name in ("run", "sweep"))


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
    named = [_fact_column(name, values[name]) for name in shown]
    paths = _column("run", [printable_line(str(run.summary.path)) for run in runs])
    advice = "name fewer, or widen the terminal"
    say("\n".join(fitted_table([*named, paths], [paths, *named], [], terminal_width(), advice)))


def _fact_column(name: str, facts: Sequence[Fact]) -> Column:
    """A column of values that a person named."""
    numbers = all(isinstance(value, int | float | None) for value in facts)
    return Column(printable_line(name), list(map(_cell, facts)), numbers, least=8)


def _cell(value: Fact) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else printable_line(str(value))


def _sweep_cells(sweep: SweepSummary) -> tuple[str, ...]:
    points = _UNKNOWN if sweep.points is None else f"{sweep.points:,}"
    cells = (_minute(sweep.started), sweep.status, points, str(sweep.path), sweep.failure or "")
    return tuple(map(printable_line, cells))


def _minute(started: str | None) -> str:
    return started[:19].replace("T", " ") if started else _UNKNOWN


def _cells(run: RunSummary) -> tuple[str, ...]:
    cells = (
        _minute(run.started),
        run.status,
        _UNKNOWN if run.rows is None else f"{run.rows:,}",
        "" if run.seconds is None else f"{run.seconds:.1f} s",
        str(run.path),
        run.failure if run.failure and run.status in ("failed", "unreadable") else "",
    )
    return tuple(map(printable_line, cells))
