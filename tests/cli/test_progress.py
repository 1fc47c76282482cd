"""The progress bar."""

from __future__ import annotations

import io

from runner.cli.progress import BAR, INTERVAL, PATIENCE, Progress


def test_a_short_run_shows_no_bar() -> None:
    stream = io.StringIO()
    with Progress(stream, 3, clock=lambda: 0.0) as progress:
        for _ in range(3):
            progress(None)
    assert stream.getvalue() == ""


def test_a_long_run_shows_count_rate_and_time_left_and_leaves_a_clean_line() -> None:
    stream = io.StringIO()
    now = [0.0]
    with Progress(stream, 10_000, clock=lambda: now[0]) as progress:
        for _ in range(2_500):
            progress(None)
        now[0] = PATIENCE + INTERVAL
        progress(None)
        drawn = stream.getvalue()
        progress(None)
        assert stream.getvalue() == drawn  # not again within the interval
    bar = "━" * (BAR // 4) + " " * (BAR - BAR // 4)
    assert drawn == f"\r\x1b[2K{bar}  25%  2,501 of 10,000 rows  2,274/s  0:03 left"
    assert stream.getvalue() == drawn + "\r\x1b[2K"


def test_more_rows_than_were_foreseen_are_no_fault() -> None:
    progress = Progress(io.StringIO(), 1, clock=lambda: 0.0)
    progress(None)
    progress(None)
    assert "100%  2 of 1 rows" in progress.text(1.0)


def test_hours_are_told_as_hours() -> None:
    progress = Progress(io.StringIO(), 7_201, clock=lambda: 0.0)
    progress(None)
    assert progress.text(1.0).endswith("2:00:00 left")
