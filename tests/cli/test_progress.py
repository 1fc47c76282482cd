"""The progress bar."""

from __future__ import annotations

import io
import itertools
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from runner.cli.output.bar import Bar, clock_time, readable_rate
from runner.cli.output.progress import INTERVAL, PATIENCE, Progress, can_draw, compile_progress
from runner.engine.rows import Row
from runner.plan.rows.columns import Column
from runner.plan.rows.layout import Columns
from runner.record.display.whole_rows import RowPrinter

LAYOUT = Columns((Column("loss", "value", torch.float32, ()), Column("w", "weight", torch.float32, ())))
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\r")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True

    def pictures(self) -> list[str]:
        """Each line that was drawn and is not the same as the one before it, without its styles."""
        lines = (ESCAPES.sub("", line).rstrip() for line in re.split(r"\x1b\[1A|\r|\n", self.getvalue()))
        return [line for line, _ in itertools.groupby(filter(None, lines))]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["80"])
def terminal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """A terminal of as many columns as the parameter says."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", request.param)
    return Terminal()


def row(number: int, loss: Tensor | None = None) -> Row:
    return Row(number, "train", "train", number, LAYOUT, (loss, torch.tensor(0.5)))


def test_a_short_run_shows_no_bar(terminal: Terminal, clock: Clock) -> None:
    with Progress(terminal, 3, clock=clock) as progress:
        for number in range(3):
            progress(row(number))
    assert terminal.getvalue() == ""


def test_a_long_run_shows_count_rate_time_left_and_objective(terminal: Terminal, clock: Clock) -> None:
    with Progress(terminal, 10_000, ["loss"], clock=clock) as progress:
        for number in range(2_500):
            progress(row(number))
        clock.now = PATIENCE + INTERVAL
        progress(row(2_500, torch.tensor(0.123456)))
        drawn = terminal.getvalue()
        progress(row(2_501))
        assert terminal.getvalue() == drawn  # not again within the interval
    bar = "━━━╺" + "━" * 8  # a quarter
    assert terminal.pictures() == [f"{bar}  25%  2,501 of 10,000 rows  2,274/s  0:03 left  loss 0.12346"]
    assert terminal.getvalue().endswith("\x1b[2K")  # nothing remains


@pytest.mark.parametrize(
    ("terminal", "expected"),
    [
        ("40", "  1%  909/s  1:49 left  loss 0.25"),
        ("20", "  1%  909/s  1:49 l…"),
        ("200", "━" * 40 + "   1%  1,000 of 100,000 rows  909/s  1:49 left  loss 0.25"),
    ],
    indirect=["terminal"],
)
def test_a_bar_fits_its_terminal(terminal: Terminal, clock: Clock, expected: str) -> None:
    with Progress(terminal, 100_000, ["loss"], clock=clock) as progress:
        progress(row(0))
        clock.now = PATIENCE + INTERVAL
        progress(row(999, torch.tensor(0.25)))
    assert [line.lstrip() for line in terminal.pictures()] == [expected.lstrip()]


def test_a_step_that_does_not_compute_the_objective_leaves_the_last_one_standing(
    terminal: Terminal, clock: Clock
) -> None:
    with Progress(terminal, 100, ["missing", "loss"], clock=clock) as progress:
        for number, loss in enumerate([None, torch.tensor(2.5), None]):
            clock.now = number + PATIENCE
            progress(row(number, loss))
    assert [line.split("left")[1].strip() for line in terminal.pictures()] == ["", "loss 2.5", "loss 2.5"]


def test_an_objective_of_several_elements_is_not_told(terminal: Terminal, clock: Clock) -> None:
    with Progress(terminal, 100, ["loss"], clock=clock) as progress:
        clock.now = PATIENCE
        progress(row(0, torch.ones(2)))
    assert terminal.pictures()[0].endswith("left")


def test_a_run_that_goes_on_counts_the_rows_behind_it_and_not_in_its_rate(terminal: Terminal, clock: Clock) -> None:
    with Progress(terminal, 1_000, clock=clock) as progress:
        progress(row(500))
        clock.now = 2.0
        progress(row(599))
    assert terminal.pictures()[0].endswith("60%  600 of 1,000 rows  50/s  0:08 left")


def test_more_rows_than_were_foreseen_are_no_fault(terminal: Terminal, clock: Clock) -> None:
    with Progress(terminal, 1, clock=clock) as progress:
        clock.now = PATIENCE
        progress(row(1))
    assert terminal.pictures()[0].endswith("100%  2 of 1 rows  1/s  0:00 left")


def test_rows_that_are_printed_stand_above_the_bar(terminal: Terminal, clock: Clock) -> None:
    with (
        Progress(terminal, 100, clock=clock) as progress,
        RowPrinter(LAYOUT.columns, terminal, width=80, color=False, before=progress.clear) as printer,
    ):
        for number in range(2):
            clock.now = number + PATIENCE
            printer(row(number))
            progress(row(number))
    text = terminal.getvalue()
    assert text.index("row 0") < text.index("1 of 100") < text.index("row 1") < text.index("2 of 100")
    assert "\x1b[2K" in text[text.index("1 of 100") : text.index("row 1")]  # the bar went before the row came


@pytest.mark.parametrize("rate", [("9500", "9,500"), ("12.4", "12"), ("0.254", "0.25")])
def test_rates_are_told_to_two_digits_or_more(rate: tuple[str, str]) -> None:
    assert readable_rate(float(rate[0])) == rate[1]


@pytest.mark.parametrize(("seconds", "text"), [(7, "0:07"), (750, "12:30"), (7200, "2:00:00")])
def test_hours_are_told_as_hours(seconds: int, text: str) -> None:
    assert clock_time(seconds) == text


def test_names_that_look_like_styles_are_shown_as_they_are(terminal: Terminal) -> None:
    bar = Bar(terminal, 10)
    bar.show(1, 1.0, "test[bold].loss 1")
    bar.hide()
    assert terminal.pictures()[0].endswith("test[bold].loss 1")


def test_no_color_leaves_a_bar_without_colors(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def styles() -> list[str]:
        stream = Terminal()
        bar = Bar(stream, 10)
        bar.show(5, 1.0, "")
        bar.hide()
        return re.findall(r"\x1b\[[0-9;]*m", stream.getvalue())

    assert styles()
    monkeypatch.setenv("NO_COLOR", "1")
    assert styles() == []


def test_nothing_is_drawn_into_a_pipe_or_on_a_terminal_that_cannot_move_its_cursor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert can_draw(Terminal())
    assert not can_draw(io.StringIO())
    monkeypatch.setenv("TERM", "dumb")
    assert not can_draw(Terminal())


def test_a_run_that_draws_no_bar_does_not_import_rich() -> None:
    program = (
        "import io, sys\n"
        "from runner.cli.output.progress import Progress\n"
        "with Progress(io.StringIO(), 1) as progress: pass\n"
        "assert 'rich' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_terminal_is_told_of_a_compilation_and_then_what_it_took() -> None:
    stream = Terminal()
    tell = compile_progress(stream, quiet=False)
    assert tell is not None
    tell("repeat[1].train", None)
    assert stream.getvalue() == "\r\x1b[2Kcompiling repeat[1].train …"
    tell("repeat[1].train", 4.25)
    assert stream.getvalue().endswith("…\r\x1b[2Kcompiled repeat[1].train in 4.2 s\n")


def test_a_file_and_who_asks_for_quiet_are_told_nothing() -> None:
    assert compile_progress(io.StringIO(), quiet=False) is None
    assert compile_progress(Terminal(), quiet=True) is None
