"""The outcomes of a check for other programs: JUnit XML, JSON, and the exit code."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from runner.compare.snapshots.checking import DIFFERS, FINE, Outcome
from runner.config.text.source import one_line
from runner.errors import RunError
from runner.record.directory import write_atomically

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML cannot represent, but that a file name may contain."""
_KINDS = {"damaged": "error", "failed": "error", "skipped": "skipped"}
"""The JUnit elements of outcomes that are not failures."""


def exit_code_of(outcomes: Sequence[Outcome]) -> int:
    """3 if a snapshot differs, else the exit code of an outcome that could not be checked, else 0."""
    codes = {outcome.exit_code for outcome in outcomes}
    return DIFFERS if DIFFERS in codes else max(codes, default=0)


def counts(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """The number of outcomes with each status."""
    return dict(Counter(outcome.status for outcome in outcomes))


def to_json(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """All outcomes as JSON values."""
    return {
        "exit_code": exit_code_of(outcomes),
        "counts": counts(outcomes),
        "snapshots": [
            {
                "name": outcome.name,
                "status": outcome.status,
                "rows": outcome.rows,
                "exact": outcome.exact,
                "seconds": round(outcome.seconds, 6),
                "text": list(outcome.lines),
                "details": outcome.details,
            }
            for outcome in outcomes
        ],
    }


def write_junit(outcomes: Sequence[Outcome], path: Path) -> None:
    """Write JUnit XML, one test case for each snapshot.

    Raises:
        RunError: the file cannot be written.
    """
    broken = sum(_KINDS.get(outcome.status) == "error" for outcome in outcomes)
    failures = sum(outcome.status not in FINE for outcome in outcomes) - broken
    suite = ElementTree.Element(
        "testsuite",
        name="steprun",
        tests=str(len(outcomes)),
        failures=str(failures),
        errors=str(broken),
        skipped=str(sum(outcome.status == "skipped" for outcome in outcomes)),
        time=f"{sum(outcome.seconds for outcome in outcomes):.3f}",
    )
    for outcome in outcomes:
        place = Path(outcome.name)
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=_shown(str(place.parent).replace("/", ".")),
            name=_shown(place.name),
            file=_shown(outcome.name),
            time=f"{outcome.seconds:.3f}",
        )
        if outcome.status not in FINE or outcome.status == "skipped":
            kind = _KINDS.get(outcome.status, "failure")
            first = _shown(one_line((*outcome.lines, "")[0]))
            element = ElementTree.SubElement(case, kind, type=outcome.status, message=first)
            element.text = _shown("\n".join(outcome.lines))
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    ElementTree.indent(suites)
    content = ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True) + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():  # a pipe or a device, such as `/dev/stdout`, must not be replaced
            path.write_bytes(content)
        else:
            write_atomically(path.resolve(), content)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error


def _shown(text: str) -> str:
    return _NO_XML.sub("\ufffd", text)
