"""Foreign cases as tests, and a table of them by source after the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from .attempts import Attempt, attempts_in
from .cases import FOLDER, cases_folder

OUTCOMES = ("passed", "failed", "cannot be said", "not stated")
UNSAID = "cannot be said: "


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "attempt" not in metafunc.fixturenames:
        return
    folder = cases_folder()
    if folder is None:
        reason = f"{FOLDER} names no folder of cases"
        metafunc.parametrize("attempt", [pytest.param(None, marks=pytest.mark.skip(reason), id="no-cases")])
        return
    attempts = attempts_in(folder)
    if not attempts:
        raise pytest.UsageError(f"{FOLDER}={folder} holds no cases")
    marks = {True: [pytest.mark.slow], False: []}
    metafunc.parametrize(
        "attempt", [pytest.param(attempt, id=str(attempt), marks=marks[attempt.slow]) for attempt in attempts]
    )


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def counted(attempt: Attempt, record_property: Any) -> None:
    """Counts the test in the table of sources."""
    record_property("conformance", attempt.case.source)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts: dict[str, Counter[str]] = {}
    reasons: Counter[str] = Counter()
    for kind in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(kind, ()):
            properties = dict(getattr(report, "user_properties", ()))
            if "mutations" in properties and kind == "passed":
                reasons[properties["mutations"]] += 0
            if "conformance" not in properties:
                continue
            outcome = "failed" if kind == "error" else kind
            if kind == "skipped":
                reason = _skip_reason(report)
                outcome = "cannot be said" if reason.startswith(UNSAID) else "not stated"
                reasons[f"{properties['conformance']}: {reason}"] += 1
            counts.setdefault(properties["conformance"], Counter())[outcome] += 1
    if counts:
        _write_table(terminalreporter, counts, reasons)


def _write_table(terminal: pytest.TerminalReporter, counts: dict[str, Counter[str]], reasons: Counter[str]) -> None:
    terminal.section("foreign cases, in float64 and float32")
    width = max(len(source) for source in [*counts, "all"])
    terminal.write_line(" " * width + "".join(f"{outcome:>16}" for outcome in OUTCOMES))
    total: Counter[str] = Counter()
    for source, counted in sorted(counts.items()):
        total += counted
        terminal.write_line(f"{source:<{width}}" + "".join(f"{counted[outcome]:>16}" for outcome in OUTCOMES))
    terminal.write_line(f"{'all':<{width}}" + "".join(f"{total[outcome]:>16}" for outcome in OUTCOMES))
    for reason, count in sorted(reasons.items()):
        terminal.write_line(f"{count} × {reason}" if count else reason)


def _skip_reason(report: pytest.TestReport) -> str:
    assert isinstance(report.longrepr, tuple)
    return str(report.longrepr[2]).removeprefix("Skipped: ")
