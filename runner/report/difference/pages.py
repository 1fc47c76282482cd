"""The pages of differences: one difference, or the outcomes of a check with those that differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from runner.report.difference.leads import Leads
from runner.report.difference.model import Difference
from runner.report.difference.sections import sections_of
from runner.report.markup import Markup, block, facts, joined, paragraph, tag, text, wide_table
from runner.report.run.numbers import number
from runner.report.section import Report, Section
from runner.text import counted

MOST_DIFFERENCES = 12
"""The most differences that one page shows in full."""

MOST_CHECKED = 2_000
"""The most outcomes that a page lists."""


@dataclass(frozen=True, slots=True)
class Checked:
    """One outcome of a check."""

    name: str
    status: str  # as the command prints it
    fine: bool
    rows: int
    by: str  # how it was compared
    seconds: float
    lines: tuple[str, ...]  # the report as text
    difference: Difference | None  # if its rows were compared


def report_of(difference: Difference) -> Report:
    """The page of one difference; it opens at the first row, step and tensor that differ."""
    sections = sections_of(difference)
    head = joined([tag("h1", text(difference.title)), *_head(difference)])
    opens_at = "first" if difference.verdict.get("first") is not None else None
    return Report(difference.title, head, tuple(sections), opens_at=opens_at)


def report_of_check(checked: Sequence[Checked], took: float) -> Report:
    """The page of a check: all outcomes, then each that differs."""
    wrong = [each for each in checked if not each.fine]
    said = [tag("h1", text("steprun check")), facts(_counts(checked, took))]
    if not wrong:
        said.append(paragraph("Every snapshot holds." if checked else "There are no snapshots.", "note"))
    shown = [each for each in wrong if each.difference is not None][:MOST_DIFFERENCES]
    if sum(each.difference is not None for each in wrong) > len(shown):
        said.append(paragraph(f"The first {len(shown)} differences are shown in full.", "note"))
    parts: list[Section] = []
    links: dict[int, str] = {}
    for each in shown:
        assert each.difference is not None
        own = sections_of(each.difference)
        links[id(each)] = own[0].name
        parts += [_titled(section, each, place == 0) for place, section in enumerate(own)]
    for place, each in enumerate(each for each in wrong if id(each) not in links):
        if place < MOST_DIFFERENCES:
            name = f"other{place}"
            links[id(each)] = name
            parts.append(Section(name, f"{each.name}: {each.status}", block("\n".join(each.lines), "Report")))
    listed = Section("snapshots", "Snapshots", _outcomes(checked, links))
    opens_at = parts[0].name if len(wrong) == 1 and parts else None
    return Report("steprun check", joined(said), (listed, *parts), opens_at=opens_at)


def _titled(section: Section, checked: Checked, begins: bool) -> Section:
    """A section of one config among several."""
    assert checked.difference is not None
    said = joined([*_head(checked.difference), section.text]) if begins else section.text
    return Section(section.name, f"{checked.name}: {section.title}", said, section.view, section.data)


def _head(difference: Difference) -> Iterator[Markup]:
    """How the two were compared, and the first difference."""
    yield paragraph(difference.summary)
    verdict, leads = difference.verdict, Leads(difference)
    found = verdict.get("first")
    if found is not None:
        tensor = found["tensors"][0]
        said = [
            tag("strong", text("first difference: ")),
            leads.step(found["path"], f"row {found['row']}, {found['path']}"),
        ]
        said += [text(": "), leads.name(tensor["name"]), text(_apart(tensor))]
        yield tag("p", *said, class_="alert", role="alert")
    elif verdict.get("holds"):
        yield tag(
            "p",
            tag(
                "strong",
                text("no number differs" if not difference.observed.curves else "nothing differs beyond the tolerance"),
            ),
            class_="fine",
        )
    elif difference.lines:
        yield tag("p", tag("strong", text(difference.lines[0])), class_="alert", role="alert")
    if found is None:
        yield leads.configs()
    for sentence in difference.observed.left_out:
        yield paragraph(f"{sentence[0].upper()}{sentence[1:]}.", "note")


def _apart(tensor: dict[str, object]) -> str:
    worst = tensor.get("worst")
    if not isinstance(worst, dict):
        return f" ({tensor['kind']})"
    ulps = worst["ulps"]
    apart = f"relative {number(worst['relative']) if isinstance(worst['relative'], float) else worst['relative']}"
    return f" by {apart}" + ("" if ulps is None else f", {counted(ulps, 'ULP')}")


def _counts(checked: Sequence[Checked], took: float) -> Iterator[tuple[str, object]]:
    yield "snapshots", f"{len(checked):,}"
    for status in dict.fromkeys(each.status for each in checked):
        yield status, f"{sum(each.status == status for each in checked):,}"
    yield "took", f"{took:.1f} s"


def _outcomes(checked: Sequence[Checked], links: dict[int, str]) -> Markup:
    order = sorted(checked, key=lambda each: each.fine)[:MOST_CHECKED]
    rows = []
    for each in order:
        link = links.get(id(each))
        name = text(each.name) if link is None else tag("a", text(each.name), href=f"#{link}")
        cells = [text(each.status), text(f"{each.rows:,}"), text(each.by), text(f"{each.seconds:.2f} s")]
        marked = None if each.fine else "changed"
        rows.append(tag("tr", tag("th", name, scope="row"), joined(tag("td", cell) for cell in cells), class_=marked))
    said = [wide_table(("config", "status", "rows", "compared by", "took"), rows, "Snapshots")]
    if len(checked) > MOST_CHECKED:
        said.append(paragraph(f"The first {MOST_CHECKED:,} of {len(checked):,}.", "note"))
    return joined(said)
