"""The top of a run's report: what ran, how it ended, and what went wrong."""

from __future__ import annotations

from collections.abc import Iterator

from runner.report.markup import Markup, alert, block, facts, joined, paragraph, tag, text
from runner.report.run.subject import Subject
from runner.report.run.top.failure import failure_of
from runner.report.run.top.story import story_of
from runner.report.unreadable import version_note
from runner.text import counted

MOST_PROBLEMS = 50


def title_of(subject: Subject) -> str:
    return f"{subject.name} {subject.run.path.name}"


def head_of(subject: Subject) -> Markup:
    """The name, the description, facts, the failure and the warnings."""
    manifest = subject.run.manifest
    said = [tag("h1", text(subject.name))]
    description = None if subject.plan is None else subject.plan.config.description
    if description:
        said.append(paragraph(description))
    said.append(facts(_facts(subject)))
    said += [alert(problem.message, problem.hint) for problem in subject.problems]
    if subject.problems:
        said.append(paragraph(_rows_left(subject), "note"))
    said += version_note(manifest)
    if manifest["status"] == "running":
        said.append(paragraph("The run was going on when this page was written: later rows are not on it.", "note"))
    failure = manifest.get("failure")
    for problem in (failure or {}).get("problems", ())[:MOST_PROBLEMS]:
        said.append(alert(problem["message"], problem.get("hint")))
    if subject.focus is not None and not failure:
        said.append(alert(f"row {int(subject.rows.numbers[subject.focus.position]):,}: {subject.focus.reason}"))
    found = failure_of(subject)
    if found is not None:
        said.append(found)
    said.append(story_of(subject))
    said += [paragraph(f"{sentence[0].upper()}{sentence[1:]}.", "note") for sentence in subject.left_out]
    warnings = manifest.get("warnings") or []
    if warnings:
        summary = tag("summary", text(counted(len(warnings), "warning")))
        body = joined(block(warning, "Warning") for warning in warnings[:MOST_PROBLEMS])
        opened = "" if len(warnings) <= 3 and subject.focus is None else None
        said.append(tag("details", summary, body, class_="warnings", open=opened))
    return joined(said)


def _rows_left(subject: Subject) -> str:
    """Which rows are shown of a run that is damaged."""
    if not len(subject.rows):
        return "No row of the run is on this page."
    shown, total = len(subject.rows), subject.run.manifest.get("rows") or 0
    said = f"{shown:,} of {counted(total, 'row')}" if total > shown else counted(shown, "row")
    return f"The page shows {said}, the last of them row {int(subject.rows.numbers[-1]):,}."


def _facts(subject: Subject) -> Iterator[tuple[str, object]]:
    manifest = subject.run.manifest
    yield "run", subject.run.path.name
    yield "status", manifest["status"]
    yield "rows", f"{len(subject.rows):,}"
    seconds = manifest.get("seconds")
    if seconds is not None:
        yield "took", f"{seconds:.1f} s"
    environment = manifest.get("environment") or {}
    for name in ("device", "dtype"):
        if environment.get(name):
            yield name, environment[name]
    if manifest.get("engine"):
        yield "engine", manifest["engine"]
    yield "seed", manifest.get("seed", "?")
