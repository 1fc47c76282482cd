"""The top of a sweep's report: what ran, how its points ended, which is best, and what failed."""

from __future__ import annotations

from collections.abc import Iterator

from runner.report.markup import Markup, alert, facts, joined, paragraph, table, tag, text
from runner.report.sweep.points import written
from runner.report.sweep.subject import Subject
from runner.report.unreadable import version_note
from runner.sweep.choosing.groups import Group, Groups
from runner.text import counted, shortened

MOST_FAILURES = 20
"""The most different failures that a page lists."""

MOST_NUMBERS = 8

_STATUS = {
    "finished": "finished",
    "failed": "failed",
    "interrupted": "was interrupted",
    "killed": "was killed",
    "running": "is going on",
}


def title_of(subject: Subject) -> str:
    return f"{subject.name} {subject.sweep.path.name}"


def head_of(subject: Subject) -> Markup:
    """The name, the description, facts, and the failures of points."""
    said = [tag("h1", text(subject.name))]
    description = None if subject.text is None else subject.sweep.config.description
    if description:
        said.append(paragraph(description))
    said.append(facts(_facts(subject)))
    said += [alert(problem.message, problem.hint) for problem in subject.problems]
    said += version_note(subject.sweep.manifest)
    if subject.sweep.status == "running":
        said.append(paragraph("The sweep was going on when this page was written: later points are not on it.", "note"))
    if not subject.tabled:
        said.append(paragraph("No point is on this page.", "note"))
    elif not subject.points.total:
        said.append(paragraph("The sweep has no points.", "note"))
    elif subject.objective is not None and subject.points.best is None:
        said.append(alert("no point has a number as its objective", _way_out(subject)))
    said += [paragraph(f"{sentence[0].upper()}{sentence[1:]}.", "note") for sentence in subject.points.left_out]
    if subject.failures:
        said.append(_failures(subject))
    return joined(said)


def _way_out(subject: Subject) -> str:
    """What to do if no point has an objective."""
    if subject.failures:
        return "the failures below say why"
    if subject.sweep.status == "running":
        return "write the page again when points have ended"
    return "sort the points below by another column"


def _facts(subject: Subject) -> Iterator[tuple[str, object]]:
    yield "sweep", subject.sweep.path.name
    yield "status", _STATUS.get(subject.sweep.status, subject.sweep.status)
    yield "points", f"{subject.points.total if subject.tabled else len(subject.sweep):,}"
    for status, count in subject.statuses.items():
        yield status, f"{count:,}"
    objective = subject.objective
    if objective is not None:
        over = f", mean over {', '.join(objective.mean_over)}" if objective.mean_over else ""
        way = "minimize" if objective.minimize else "maximize"
        yield "objective", f"{way} {objective.column}, {objective.over}{over}"
    groups = subject.points.groups
    if groups is not None and groups.best is not None:
        yield "best", _group(groups, groups.best)
    elif subject.points.best is not None:
        yield "best", f"{written(subject.points.values('objective')[0])} at point {subject.points.numbers[0]}"


def _group(groups: Groups, group: Group) -> str:
    """`0.19 ± 0.07 of 5 points, with penalty 0.001`."""
    spread = "" if group.deviation is None else f" ± {written(group.deviation)}"
    setting = ", ".join(f"{axis} {written(value)}" for axis, value in zip(groups.axes, group.values, strict=True))
    return (
        f"{written(group.mean)}{spread} of {counted(len(group.places), 'point')}{f', with {setting}' * bool(setting)}"
    )


def _failures(subject: Subject) -> Markup:
    found = sorted(subject.failures.items(), key=lambda each: -len(each[1]))
    rows = [(shortened(said, 500), f"{len(points):,}", _numbers(points)) for said, points in found[:MOST_FAILURES]]
    count = sum(map(len, subject.failures.values()))
    more = f", the {MOST_FAILURES} most frequent failures" if len(found) > MOST_FAILURES else ""
    summary = tag("summary", text(f"{counted(count, 'point')} failed{more}"))
    listed = table(("failure", "points", "which"), rows, "What the points that failed say")
    unfolded = None if subject.statuses.get("finished") else ""
    return tag("details", summary, listed, class_="alert", open=unfolded)


def _numbers(points: list[int]) -> str:
    said = ", ".join(map(str, points[:MOST_NUMBERS]))
    return f"{said}, …" if len(points) > MOST_NUMBERS else said
