"""The table of foreign cases by source, after the tests."""

from __future__ import annotations

from collections import Counter

import pytest

OUTCOMES = ("passed", "failed", "not expressible", "not stated")
UNSAID = "not expressible: "
"""How the reason of a skip begins where the language has no words for a case."""


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
                outcome = "not expressible" if reason.startswith(UNSAID) else "not stated"
                reasons[f"{properties['conformance']}: {reason}"] += 1
            counts.setdefault(properties["conformance"], Counter())[outcome] += 1
    if counts:
        _write_table(terminalreporter, counts, reasons)
    digits = [
        dict(report.user_properties)["digits"]
        for report in (*terminalreporter.stats.get("passed", ()), *terminalreporter.stats.get("failed", ()))
        if report.when == "call" and "digits" in dict(report.user_properties)
    ]
    if digits:
        _write_digits(terminalreporter, sorted(digits))


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


def _write_digits(terminal: pytest.TerminalReporter, digits: list[tuple[str, float, float, str, str]]) -> None:
    terminal.section("digits of the certified parameters that L-BFGS reaches, of 11")
    terminal.write_line(f"{'problem':<10}{'start':>7}{'reached':>9}  directions")
    for problem, begun, reached, directions, remark in digits:
        terminal.write_line(f"{problem:<10}{begun:>7.1f}{reached:>9.1f}  {directions:<10}{remark}".rstrip())


def _skip_reason(report: pytest.TestReport) -> str:
    assert isinstance(report.longrepr, tuple)
    return str(report.longrepr[2]).removeprefix("Skipped: ")
