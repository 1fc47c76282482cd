"""The pages of differences: one difference, or the outcomes of a check with those that differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from runner.report.difference.first import shapes_of
from runner.report.difference.leads import Leads
from runner.report.difference.model import Difference
from runner.report.difference.recorder import End
from runner.report.difference.sections import sections_of
from runner.report.markup import Markup, block, coded, facts, joined, paragraph, story, tag, text, wide_table
from runner.report.run.numbers import number
from runner.report.section import Report, Section
from runner.text import counted

MOST_DIFFERENCES = 12
"""The most differences that one page shows in full."""

MOST_KEYS = 6
"""The most keys of the configs that the top of a page lists."""

MOST_ERRORS = 4
"""The most errors of the first row that the top of a page lists."""

MOST_ENDS = 8
"""The most numbers whose last values the top of a page lists."""

LONGEST = 60
"""The most characters of a value that the top of a page shows."""

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
    """The page of one difference; its first section opens at the first row, step and tensor that differ."""
    sections = sections_of(difference)
    head = joined([tag("h1", text(difference.title)), *_head(difference)])
    return Report(difference.title, head, tuple(sections))


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
    yield story(_verdict(difference))
    for sentence in difference.observed.left_out:
        yield paragraph(f"{sentence[0].upper()}{sentence[1:]}.", "note")


def _verdict(difference: Difference) -> Iterator[tuple[str, Markup]]:
    """What a reviewer asks first: what changed, whether it grows, where it ends, and what is equal."""
    for keys in difference.config[:MOST_KEYS]:
        short = max(map(len, (keys.expected, keys.found))) <= LONGEST and "\n" not in keys.expected + keys.found
        both = f"{keys.expected} → {keys.found}" if short and keys.expected else "changed"
        link = tag("a", text(keys.key), href=f"#{difference.prefix}config")
        yield "config", joined([link, text(f": {both}")])
    beginning = _beginning(difference)
    if beginning is not None:
        yield f"in row {difference.observed.rows[0].number:,}", text(beginning)
    growth = difference.verdict.get("growth")
    if growth is not None:
        yield "growth", coded(_growth(growth))
    ends = difference.observed.ends[:MOST_ENDS]
    if ends:
        yield "at the end", text("; ".join(map(_end, ends)))
    same, count = difference.observed.same, len(difference.observed.curves)
    if count:
        named = f": {', '.join(same[:MOST_ENDS])}{', …' if len(same) > MOST_ENDS else ''}" if same else ""
        yield "equal in all rows", text(f"{len(same):,} of {counted(len(same) + count, 'tensor')}{named}")


def _growth(growth: Mapping[str, Any]) -> str:
    """How the error of the first tensor develops, and what that says of rounding."""
    first, last, most = (_error(growth[each]) for each in ("first", "last", "largest"))
    said = f"the error of `{growth['tensor']}` is {first} first, {last} in row {growth['last_row']:,}"
    most = f"{said}, at most {most} in row {growth['largest_row']:,}"
    return f"{most}: {_KINDS.get(str(growth['kind']), growth['kind'])}"


_KINDS: Mapping[str, str] = {
    "drift": "it grows over rows",
    "rounding": "it does not grow over rows",
    "jump": "it jumps in one row",
}


def _beginning(difference: Difference) -> str | None:
    """The largest errors of the first row that differs, in units of the rounding of their dtype."""
    rows = difference.observed.rows
    if not rows:
        return None
    errors = [(float(pair.error), name) for name, pair in rows[0].pairs.items() if pair.error[:1].isdecimal()]
    units = {curve.name: _unit(curve.kind) for curve in difference.observed.curves}
    said = [
        f"{name} {error:.2g}" + (f" ({error / unit:,.1f} units)" if (unit := units.get(name)) else "")
        for error, name in sorted(errors, reverse=True)[:MOST_ERRORS]
    ]
    known = next((units[name] for _, name in errors if units.get(name)), None)
    scale = "" if known is None else f"; a unit is {known:.2g}, and one rounding is at most half of it"
    return f"the largest relative errors are {', '.join(said)}{scale}" if said else None


def _unit(kind: str) -> float | None:
    """The relative distance of two neighbouring numbers of the dtype in a kind: `(3,) float32`."""
    dtype = getattr(torch, kind.rpartition(" ")[2], None)
    return torch.finfo(dtype).eps if isinstance(dtype, torch.dtype) and dtype.is_floating_point else None


def _error(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, (int, float)) else str(value)


def _end(end: End) -> str:
    if end.expected == end.found:
        return f"{end.name} {number(end.found)} on both sides (row {end.row:,})"
    one, other = number(end.expected), number(end.found)
    if one == other:
        one, other = repr(end.expected), repr(end.found)
    return f"{end.name} {one} → {other} (row {end.row:,})"


def _apart(tensor: dict[str, object]) -> str:
    worst = tensor.get("worst")
    if not isinstance(worst, dict):
        return f" ({shapes_of(tensor) or tensor['kind']})"
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
