"""Tables in a narrow terminal: no line wraps, a line says what is left out, and a pipe gets all."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path
from unittest import mock

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.cli.output.tables import results
from runner.cli.output.tables import runs as runs_table
from runner.cli.output.tables.fitted import Column, fitted_table
from runner.record.listing.runs import RunSummary
from runner.sweep.record.listing import SweepSummary
from tests.cli.commands import LINEAR, steprun
from tests.tables import over

columns = st.builds(
    lambda heading, cells, numbers, least, from_start: Column(heading, cells, numbers, least, from_start),
    st.text("abc.", min_size=1, max_size=30),
    st.lists(st.text("xyz", max_size=30), min_size=3, max_size=3),
    st.booleans(),
    st.none() | st.integers(1, 20),
    st.booleans(),
)


@given(kept=st.lists(columns, min_size=1, max_size=6), spare=st.lists(columns, max_size=6), width=st.integers(1, 200))
def test_a_table_fits_and_accounts_for_every_column(kept: list[Column], spare: list[Column], width: int) -> None:
    both = [*spare, *kept]
    whole = fitted_table(both, kept, spare, None, "look")
    assert fitted_table(both, kept, spare, 10_000, "look") == whole
    fitted = fitted_table(both, kept, spare, width, "look")
    lines, notes = fitted[:4], fitted[4:]
    assert max(map(len, lines)) <= max(width, kept[0].narrowest)
    assert (notes == []) == (lines == whole)
    assert all(note == "… marks what is cut; look" or int(note.split()[0]) for note in notes)


def test_columns_are_cut_and_left_out_by_their_importance() -> None:
    path = Column("run", ["runs/linear/20261130-101500-7f3a"], least=20, from_start=True)
    axis = Column("optimizer.sgd.lr", ["0.125"], numbers=True, least=4)
    kind = Column("optimizer", ["{adamw: {lr: rate}}"], least=6)
    rows = Column("rows", ["100"], numbers=True)

    def shown(width: int) -> list[str]:
        return fitted_table([axis, kind, rows, path], [path, axis, kind], [rows], width, "--csv shows all")

    assert shown(79) == [
        "optimizer.sgd.lr  optimizer            rows  run",
        "           0.125  {adamw: {lr: rate}}   100  runs/linear/20261130-101500-7f3a",
    ]
    assert shown(76) == [
        "optimizer.sgd.lr  optimizer            run",
        "           0.125  {adamw: {lr: rate}}  runs/linear/20261130-101500-7f3a",
        "1 more column: rows; --csv shows all",
    ]
    assert shown(50) == [
        "…er.sgd.lr  optimizer    run",
        "     0.125  {adamw: {l…  …ear/20261130-101500-7f3a",
        "1 more column: rows; --csv shows all",
    ]
    assert shown(35) == [
        "…d.lr  …mizer  run",
        "0.125  {adam…  …0261130-101500-7f3a",
        "1 more column; --csv shows all",
    ]
    assert shown(20) == ["run", "…0261130-101500-7f3a", "3 more columns; --csv shows all"]


STAMPS = ("20261130-101500-7f3a", "20261130-101400-c81d")
RUNS = [
    RunSummary(Path("runs/linear") / STAMPS[0], "linear", "finished", "2026-11-30T10:15:00+01:00", 61.25, 1_000, None),
    RunSummary(
        Path("runs/bad") / STAMPS[1], "bad", "failed", "2026-11-30T10:14:00+01:00", 0.5, 3, "`loss` is inf, from w"
    ),
]
SWEEPS = [SweepSummary(Path("sweeps/linear") / STAMPS[0], "linear", "running", "2026-11-30T10:15:00+01:00", 27)]


@over(
    ("width", "expected"),
    [
        (None, """\
started              status    rows   took    run                               failure
2026-11-30 10:15:00  finished  1,000  61.2 s  runs/linear/20261130-101500-7f3a
2026-11-30 10:14:00  failed    3      0.5 s   runs/bad/20261130-101400-c81d     `loss` is inf, from w

started              status   points  sweep
2026-11-30 10:15:00  running  27      sweeps/linear/20261130-101500-7f3a
"""),
        (75, """\
status    rows   took    run                               failure
finished  1,000  61.2 s  runs/linear/20261130-101500-7f3a
failed    3      0.5 s   runs/bad/20261130-101400-c81d     `loss` is inf, …
1 more column: started; --json shows all

started              status   points  sweep
2026-11-30 10:15:00  running  27      sweeps/linear/20261130-101500-7f3a
"""),
        (60, """\
status    rows   took    run
finished  1,000  61.2 s  runs/linear/20261130-101500-7f3a
failed    3      0.5 s   runs/bad/20261130-101400-c81d
2 more columns: started, failure; --json shows all

status   points  sweep
running  27      sweeps/linear/20261130-101500-7f3a
1 more column: started; --json shows all
"""),
        (40, """\
status    run
finished  …s/linear/20261130-101500-7f3a
failed    runs/bad/20261130-101400-c81d
4 more columns; --json shows all

status   sweep
running  …ps/linear/20261130-101500-7f3a
2 more columns; --json shows all
"""),
    ],
)  # fmt: skip
def test_runs_in_a_terminal(width: int | None, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    with mock.patch.object(runs_table, "terminal_width", return_value=width):
        runs_table.print_all(RUNS, SWEEPS, as_json=False)
    assert capsys.readouterr().out == expected


POINTS = pyarrow.table(
    {
        "point": [1, 0],
        "optimizer.sgd.momentum": [0.5, 0.9],
        "optimizer": ["{adamw: {lr: rate}}", "{adam: {lr: rate}}"],
        "status": ["finished", "failed"],
        "objective": [0.125, None],
        "loss.last": [0.125, None],
        "loss.min": [0.125, None],
        "rows": [6, 3],
        "seconds": [0.25, 0.5],
        "failure": [None, "`loss` is inf, w"],
        "identity": ["a", "b"],
    }
)


@over(
    ("width", "expected"),
    [
        (None, """\
point  optimizer.sgd.momentum  optimizer            status    objective  loss.last  rows  seconds  failure
    1                     0.5  {adamw: {lr: rate}}  finished      0.125      0.125     6     0.25
    0                     0.9  {adam: {lr: rate}}   failed                             3      0.5  `loss` is inf, w"""),
        (100, """\
point  optimizer.sgd.momentum  optimizer            status    objective  loss.last  failure
    1                     0.5  {adamw: {lr: rate}}  finished      0.125      0.125
    0                     0.9  {adam: {lr: rate}}   failed                          `loss` is inf, w
2 more columns: rows, seconds; --csv shows all"""),
        (80, """\
point  …er.sgd.momentum  optimizer         status    objective  failure
    1               0.5  {adamw: {lr: ra…  finished      0.125
    0               0.9  {adam: {lr: rat…  failed               `loss` is inf, w
3 more columns: loss.last, rows, seconds; --csv shows all"""),
        (60, """\
point  …omentum  …imizer  status    objective  failure
    1       0.5  {adamw…  finished      0.125
    0       0.9  {adam:…  failed               `loss` is in…
3 more columns: loss.last, rows, seconds; --csv shows all"""),
        (40, """\
point  ….momentum  optimizer   objective
    1         0.5  {adamw: {…      0.125
    0         0.9  {adam: {l…
5 more columns; --csv shows all"""),
    ],
)  # fmt: skip
def test_results_in_a_terminal(width: int | None, expected: str) -> None:
    shown = [name for name in POINTS.column_names if name not in ("identity", "loss.min")]
    with mock.patch.object(results, "terminal_width", return_value=width):
        lines = results._lines(POINTS, POINTS.to_pylist(), shown, ["optimizer.sgd.momentum", "optimizer"], "objective")
    assert "\n".join(lines) == expected


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}])
def test_a_terminal_gets_what_fits_and_a_pipe_gets_all(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "linear.yaml").write_text(LINEAR)
    assert steprun("linear.yaml", "--quiet", cwd=tmp_path).code == 0
    inherited = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    command = [sys.executable, "-m", "runner", "runs"]
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    subprocess.run(command, cwd=tmp_path, env=inherited | environment, stdout=theirs, check=True)
    os.close(theirs)
    lines = os.read(ours, 4096).decode().splitlines()
    os.close(ours)
    assert lines[0].split() == ["status", "rows", "took", "run"]
    assert lines[2] == "1 more column: started; --json shows all"
    assert max(map(len, lines)) <= 60
    narrow = inherited | environment | {"COLUMNS": "40"}
    piped = subprocess.run(command, cwd=tmp_path, env=narrow, stdout=subprocess.PIPE, text=True, check=True)
    assert piped.stdout.splitlines()[0].split() == ["started", "status", "rows", "took", "run"]
