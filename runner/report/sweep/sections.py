"""The sections of a sweep's report, in order."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from runner.config.files.run_paths import SWEEP_MANIFEST, is_run, resolved_sweep
from runner.errors import UsageError
from runner.report.listing import line_link, listing
from runner.report.markup import NOTHING, Markup, block, facts, joined, paragraph, table, tag, text
from runner.report.reading.curves import spans_decades
from runner.report.section import Report, Section
from runner.report.sweep.head import head_of, title_of
from runner.report.sweep.points import MOST_AXES, columns_data, free_name, numbers_data, written
from runner.report.sweep.subject import Subject, read_subject
from runner.report.unreadable import unreadable
from runner.sweep.choosing.groups import DEVIATION, MEAN, Group
from runner.sweep.record.config import SWEEP_FILE

MOST_GROUPS = 100
"""The most groups whose means a page lists."""

LISTED = 10
"""The points of the table that is there without scripts."""

CONFIG = "config"
"""The section of the config, and the first part of the addresses of its lines."""


def report_of_sweep(path: str | Path) -> Report:
    """The report of a sweep; of a damaged one, what can be read, and `problems`.

    Raises:
        UsageError: it is not a sweep directory.
    """
    directory = resolved_sweep(path)
    try:
        subject = read_subject(directory)
    except UsageError as error:
        if not is_run(directory, SWEEP_MANIFEST):
            raise
        return unreadable(directory, "sweep", SWEEP_MANIFEST, SWEEP_FILE, error.problems)
    built = [build(subject) for build in (BUILDERS if subject.tabled else WITHOUT_TABLE)]
    return Report(
        title=title_of(subject),
        head=head_of(subject),
        sections=tuple(section for section in built if section is not None),
        shared=_shared(subject) if subject.tabled else {},
        problems=subject.problems,
    )


def _shared(subject: Subject) -> dict[str, Any]:
    """The points, which all views have in common."""
    columns = columns_data(subject.points)
    if subject.halved_at:
        rungs = [subject.curves.rungs.get(identity) for identity in subject.points.values("identity")]
        columns.append({"name": free_name("rung", subject.points.axes), "kind": "place", **numbers_data(rungs)})
    return {
        "points": {
            "count": len(subject.points.table),
            "columns": columns,
            "sweep": str(subject.sweep.path),
            "objective": MEAN if subject.points.groups is not None else "objective",
            "minimize": subject.objective is None or subject.objective.minimize,
        }
    }


def _points(subject: Subject) -> Section:
    points = subject.points
    names = ["point", *points.axes, "status", *points.results[:4]]
    columns = [points.values(name)[:LISTED] for name in names]
    rows = [[written(value) for value in row] for row in zip(*columns, strict=True)]
    said = table(names, rows, "The best points" if points.best is not None else "The first points")
    return Section("points", "Points", tag("div", said, class_="static"), "points", {})


def _groups(subject: Subject) -> Section | None:
    """The mean of each group, if the objective is a mean over some axes."""
    groups = subject.points.groups
    if groups is None:
        return None
    over = ", ".join(groups.over)
    said = f"The mean of the objective over {over}, and its sample standard deviation."
    names = ["rank", *groups.axes[:MOST_AXES], MEAN, DEVIATION, "points"]
    rows = [
        [str(rank), *map(written, (*group.values[:MOST_AXES], group.mean, group.deviation)), _measured(group)]
        for rank, group in enumerate(groups.groups[:MOST_GROUPS], 1)
    ]
    more = len(groups.groups) - len(rows)
    notes = [said, *([f"{more:,} more are left out."] if more > 0 else [])]
    listed = table(names, rows, f"Means over {over}")
    return Section("means", f"Means over {over}", joined([*(paragraph(note, "note") for note in notes), listed]))


def _measured(group: Group) -> str:
    missing = group.missing
    return f"{len(group.places):,}{f', {missing:,} without an objective' if missing else ''}"


def _curves(subject: Subject) -> Section | None:
    found = subject.curves
    if not found.quantities:
        return None
    data = [
        {
            "name": each.name,
            "ends": each.ends,
            "rows": each.rows,
            "values": each.values,
            "log": spans_decades(each.values),
        }
        for each in found.quantities
    ]
    said = joined(paragraph(note, "note") for note in found.notes) if found.notes else NOTHING
    return Section("curves", "Curves", said, "pointcurves", {"quantities": data})


def _coordinates(subject: Subject) -> Section | None:
    if not subject.points.axes:
        return None
    said = paragraph("A line is a point; its colour is its objective. The best are drawn last.", "note")
    return Section("coordinates", "Parallel coordinates", said, "coordinates", {})


def _effects(subject: Subject) -> Section | None:
    if not subject.points.axes or not subject.points.results:
        return None
    said = "Each point by one of its values. A box is from the first to the third quartile, with the median."
    return Section("effects", "What each value does", paragraph(said, "note"), "effects", {})


def _rungs(subject: Subject) -> Section | None:
    """How many points came to each rung, and the best of them."""
    if not subject.halved_at:
        return None
    names = [*(f"until iteration {at}" for at in subject.halved_at), "until the end"]
    reached = list(subject.curves.rungs.values())
    shown = [subject.curves.rungs.get(identity) for identity in subject.points.values("identity")]
    values = subject.points.values("objective") if subject.points.best is not None else [None] * len(shown)
    rows = []
    for rung, name in enumerate(names):
        there, further = (sum(last >= least for last in reached) for least in (rung, rung + 1))
        best = next((written(values[place]) for place, last in enumerate(shown) if last == rung), "")
        rows.append((name, f"{there:,}", f"{further:,}" if rung < len(names) - 1 else "", best))
    said = table(("rung", "points", "went on", "best of those that ended here"), rows, "Rungs")
    return Section("rungs", "Rungs", said)


def _config(subject: Subject) -> Section:
    said: list[Markup] = []
    command = subject.sweep.manifest.get("command") or []
    if command:
        said += [tag("h3", text("Command")), block(shlex.join(command[:1000]), "Command")]
    if subject.text is None:
        said.append(paragraph(f"The config cannot be read: {subject.unreadable}.", "note"))
        return Section(CONFIG, "Config", joined(said))
    said.append(tag("h3", text("Config")))
    if not subject.tabled:
        return Section(CONFIG, "Config", joined([*said, listing(subject.text, CONFIG, "Config")]))
    said.append(paragraph("Marked lines show the values of the chosen point.", "note"))
    placed = [line_link(CONFIG, subject.lines.get(axis), axis) for axis in subject.points.axes]
    if placed:
        said.append(tag("p", text("Axes: "), joined(itertools.chain(*((each, text(" ")) for each in placed)))))
    said.append(listing(subject.text, CONFIG, "Config"))
    lines = [{"name": axis, "line": subject.lines.get(axis)} for axis in subject.points.axes]
    return Section(CONFIG, "Config", joined(said), "pointconfig", {"lines": lines, "prefix": CONFIG})


def _environment(subject: Subject) -> Section:
    manifest = subject.sweep.manifest
    found: list[tuple[str, object]] = [
        (name, manifest[name]) for name in ("started", "ended", "sampler", "lanes", "threads") if manifest.get(name)
    ]
    found += list((manifest.get("versions") or {}).items())
    environment = manifest.get("environment") or {}
    found += [(key.replace("_", " "), value) for key, value in environment.items() if value is not None]
    return Section("environment", "Environment", facts(found[:100]))


BUILDERS: Sequence[Callable[[Subject], Section | None]] = (
    _points,
    _groups,
    _curves,
    _coordinates,
    _effects,
    _rungs,
    _config,
    _environment,
)
"""Each builds a section, or returns None if the sweep has nothing for it."""

WITHOUT_TABLE = (_config, _environment)
"""Those of a sweep whose table of points cannot be read."""
