"""Reports the differences of two runs as text, and as JSON values."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from runner.compare.rows.report import TALLEST, report, to_json
from runner.compare.runs.difference import ABSENT, KeyDifference, RunDifference, Written
from runner.record import Run
from runner.text import counted, printable_line, shortened

_MOST_KEYS = 6
_LONGEST = 40
_SHORTEST_VERDICT = 10


def runs_page(difference: RunDifference, found: Run, expected: Run, *, width: int) -> list[str]:
    """The two runs, then the differences of their configs, their environments and their rows."""
    lines = [f"{word:<9} {_run(run)}" for word, run in (("expected", expected), ("found", found))]
    for title, differences in (("config", difference.config), ("environment", difference.environment)):
        if differences:
            lines += ["", title, *_keys(differences, width)]
    verdict, seen = difference.verdict, _seen(difference)
    lines += ["", _rows(difference)]
    room = max(TALLEST - len(lines), _SHORTEST_VERDICT)
    lines += [f"  {line}" for line in report(verdict, **seen, height=room, width=width - 2)]
    return lines


def _seen(difference: RunDifference) -> dict[str, Any]:
    """What rows do not show: facts about the steps, and the changes of the config."""
    return {"draws": difference.draws, "every": difference.every, "first": difference.changed}


def _run(run: Run) -> str:
    size = f"{counted(len(run), 'row')} of {counted(len(run.columns), 'tensor')}"
    return f"{printable_line(str(run.path))}  {run.status}, {size}"


def _rows(difference: RunDifference) -> str:
    verdict = difference.verdict
    rows = counted(verdict.compared, "row")
    if difference.cut is not None:
        rows = f"the first {counted(difference.cut, 'row')}, all that both have so far"
    how = "bit for bit" if difference.tolerance == "bitwise" else f"with tolerance {difference.tolerance}"
    return f"rows  {rows}, {how}{': nothing differs' if verdict.holds else ''}"


def _keys(differences: Sequence[KeyDifference], width: int) -> Iterator[str]:
    shown = differences[:_MOST_KEYS]
    widest = max(len(each.key) for each in shown)
    for each in shown:
        expected, found = _shown(each)
        line = f"  {each.key:<{widest}}  {expected} → {found}{_places(each)}"
        yield shortened(line, width)
    if len(differences) > len(shown):
        yield f"  and {counted(len(differences) - len(shown), 'more key')}"


def _places(difference: KeyDifference) -> str:
    """Where each run's config sets the key. Both files are called `config.yaml`, so a label names the run."""
    expected, found = (
        None if written.mark is None else f"{Path(written.mark.source).name}:{written.mark.line}"
        for written in (difference.expected, difference.found)
    )
    if expected == found:
        return f"  ({expected} of both)" if expected else ""
    places = [f"{word} {place}" for word, place in (("expected", expected), ("found", found)) if place]
    return f"  ({', '.join(places)})"


def _shown(difference: KeyDifference) -> tuple[str, str]:
    """Both values, each on one line; for texts of several lines, the first line that differs."""
    one, other = difference.expected.value, difference.found.value
    if isinstance(one, str) and isinstance(other, str):
        lines = itertools.zip_longest(one.splitlines(), other.splitlines(), fillvalue="")
        one, other = next(((a, b) for a, b in lines if a != b), (one, other))
    return _text(one), _text(other)


def _text(value: Any) -> str:
    if value is ABSENT:
        return "nothing"
    text = " ".join((value if isinstance(value, str) else json.dumps(_plain(value), ensure_ascii=False)).split())
    return shortened(text, _LONGEST)


# --- JSON


def runs_json(difference: RunDifference, found: Run, expected: Run) -> dict[str, Any]:
    """The differences as JSON values."""
    return {
        "expected": _run_json(expected),
        "found": _run_json(found),
        "config": [_key_json(each) for each in difference.config],
        "environment": [_key_json(each) for each in difference.environment],
        "tolerance": difference.tolerance,
        "first_rows": difference.cut,
        "verdict": to_json(difference.verdict, **_seen(difference)),
    }


def _run_json(run: Run) -> dict[str, Any]:
    return {"path": str(run.path), "status": run.status, "rows": len(run)}


def _key_json(difference: KeyDifference) -> dict[str, Any]:
    return {
        "key": difference.key,
        "expected": _written_json(difference.expected),
        "found": _written_json(difference.found),
    }


def _written_json(written: Written) -> dict[str, Any]:
    at = None if written.mark is None else str(written.mark)
    return {"there": False} if written.value is ABSENT else {"there": True, "value": _plain(written.value), "at": at}


def _plain(value: Any) -> Any:
    """A value of a config, with numbers that JSON does not support as strings."""
    match value:
        case float() if not math.isfinite(value):
            return str(value)
        case list():
            return [_plain(item) for item in value]
        case dict():
            return {key: _plain(item) for key, item in value.items()}
    return value
