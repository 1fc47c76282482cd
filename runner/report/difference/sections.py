"""The sections of a difference, in order."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from runner.report.difference.first import first, shapes_of
from runner.report.difference.leads import Leads
from runner.report.difference.model import Difference, Keys
from runner.report.difference.side import Side
from runner.report.listing import changed_lines, line_link, listing
from runner.report.markup import Markup, facts, grid, joined, paragraph, tag, text
from runner.report.reading.curves import MOST_VISIBLE
from runner.report.section import Section
from runner.text import counted

MOST_NAMES = 100
"""The most names of one kind that a page lists."""


def sections_of(difference: Difference) -> list[Section]:
    """The sections of a difference; each name begins with its prefix."""
    built = [build(difference) for build in BUILDERS]
    return [section for section in built if section is not None]


def _errors(difference: Difference) -> Section | None:
    """The relative error of each tensor over rows."""
    return _curves(difference, "errors", "Error over rows", "errors", "‖found - expected‖ / ‖expected‖ of each tensor.")


def _ulps(difference: Difference) -> Section | None:
    """The largest distance of the elements of each tensor in units in the last place."""
    said = (
        "The largest distance of the elements of each tensor, in units in the last place. "
        "Two numbers near 0 of different signs are billions of these apart."
    )
    return _curves(difference, "ulps", "ULPs over rows", "ulps", said)


def _curves(difference: Difference, name: str, title: str, what: str, said: str) -> Section | None:
    shown = [(curve, getattr(curve, what)) for curve in difference.observed.curves]
    shown = [(curve, values) for curve, values in shown if numpy.isfinite(values).any()]
    if not shown:
        return None
    data = [
        {
            "name": curve.name,
            "rows": curve.rows,
            "values": numpy.asarray(values, dtype=numpy.float64),
            "visible": place < MOST_VISIBLE,
            "thinned": len(curve.rows) < curve.count,
        }
        for place, (curve, values) in enumerate(shown)
    ]
    said = f"{said} Rows without a point do not differ."
    more = {"log": True, "curves": data}
    return Section(f"{difference.prefix}{name}", title, paragraph(said, "note"), "curves", more)


def _tensors(difference: Difference) -> Section | None:
    """Every tensor that differs somewhere."""
    tallies = difference.verdict.get("tensors") or []
    if not tallies:
        return None
    leads = Leads(difference)
    shapes = {each["name"]: shapes_of(each) for each in difference.verdict.get("redeclared") or ()}
    ulps = {curve.name: f"{curve.most:,.0f}" for curve in difference.observed.curves if math.isfinite(curve.most)}
    rows = [
        (
            leads.name(each["name"]),
            text(each["role"]),
            text(f"{each['rows']:,} of {each['of']:,}"),
            text(each["first_row"]),
            text(shapes.get(each["name"]) or _error(each["largest_error"])),
            text(ulps.get(each["name"], "")),
        )
        for each in tallies[:MOST_NAMES]
    ]
    head = ("tensor", "role", "rows that differ", "first row", "largest error", "largest ULP")
    by = f"differ beyond the tolerance, {difference.tolerance}" if difference.tolerance else "differ in any bit"
    said = [grid(head, rows, f"Tensors that {by}")]
    if any(each["role"] == "gradient" for each in tallies):
        said.append(
            paragraph("A gradient stays in `.grad`: rows of steps that compute none repeat the last one.", "note")
        )
    same = difference.observed.same
    if same:
        named = f"{', '.join(same[:MOST_NAMES])}{', …' if len(same) > MOST_NAMES else ''}"
        said.append(paragraph(f"Equal in all rows: {named}.", "note"))
    if len(tallies) > MOST_NAMES:
        said.append(paragraph(f"And {len(tallies) - MOST_NAMES:,} more.", "note"))
    return Section(f"{difference.prefix}tensors", "Tensors that differ", joined(said))


def _error(value: Any) -> str:
    """The largest error of a tensor: a number, or a text for one that is not finite."""
    if value is None:
        return "unknown"
    return f"{value:.3g}" if isinstance(value, (int, float)) else "no number"


def _structure(difference: Difference) -> Section | None:
    """What only one side has, and tensors with another name."""
    verdict, leads = difference.verdict, Leads(difference)
    said: list[Markup] = []
    renamed = difference.observed.renamed
    if renamed:
        pairs = [(leads.name(one), leads.name(other)) for one, other in renamed]
        said.append(grid(("expected", "found"), pairs, "Tensors with the same bits in all rows: renamed"))
    gone, came = ({pair[side] for pair in renamed} for side in (0, 1))
    for word, names, known in (("expected", "missing_tensors", gone), ("found", "new_tensors", came)):
        only = [name for name in verdict.get(names) or () if name not in known]
        if only:
            listed = joined(tag("li", leads.name(name)) for name in only[:MOST_NAMES])
            more = f", the first {MOST_NAMES}" if len(only) > MOST_NAMES else ""
            said += [
                tag("h3", text(f"{counted(len(only), 'tensor')} on the {word} side only{more}")),
                tag("ul", listed),
            ]
    for each in (verdict.get("redeclared") or ())[:MOST_NAMES]:
        name = leads.name(each["name"])
        said.append(tag("p", name, text(f" is {each['found']}, expected {each['expected']}")))
    for word, rows in (("expected", "missing_rows"), ("found", "new_rows")):
        found = verdict.get(rows) or {}
        if found.get("count"):
            place = found["first"]
            where = leads.step(place["path"], f"row {place['row']}, {place['path']}")
            said.append(
                tag("p", text(f"{counted(found['count'], 'row')} on the {word} side only; the first is "), where)
            )
    if not said:
        return None
    return Section(f"{difference.prefix}structure", "What only one side has", joined(said))


def _config(difference: Difference) -> Section:
    """The keys that differ, then the text of each side."""
    said: list[Markup] = []
    prefix, sides = difference.prefix, [difference.found]
    if difference.expected is not None:
        sides.insert(0, difference.expected)
    texts = [[content for _, content in side.texts] for side in sides]
    same = len(sides) == 2 and texts[0] == texts[1]
    if difference.config:
        rows = [_key(each, prefix, difference) for each in difference.config[:MOST_NAMES]]
        said.append(grid(("key", "expected", "found"), rows, "Keys that differ"))
    if same:
        said.append(paragraph("The texts of both configs are the same.", "note"))
        sides = sides[1:]
    if len(sides) == 2:
        said.append(paragraph("Lines that differ are marked.", "note"))
    parts = [
        _text(side, prefix, alone=len(sides) == 1, other=sides[1 - place] if len(sides) == 2 else None)
        for place, side in enumerate(sides)
    ]
    said.append(tag("div", *parts, class_="beside"))
    return Section(f"{prefix}config", "Config", joined(said))


def _key(keys: Keys, prefix: str, difference: Difference) -> tuple[Markup, ...]:
    """A key, with both values; each leads to its line."""
    cells = [text(keys.key)]
    for side, value, line in zip(("expected", "found"), (keys.expected, keys.found), keys.lines, strict=True):
        there = side == "found" or difference.expected is not None
        link = line_link(f"{prefix}{side}", line if there else None, value)
        cells.append(tag("span", link, class_="lines"))
    return tuple(cells)


def _text(side: Side, prefix: str, *, alone: bool, other: Side | None) -> Markup:
    said = []
    others = [] if other is None else [content for _, content in other.texts]
    for number_, (name, content) in enumerate(side.texts):
        heading = name if alone else f"{side.label}: {name}"
        marked = changed_lines(content, others[number_]) if number_ < len(others) else ()
        shown = listing(content, f"{prefix}{side.label}{number_ or ''}", heading, marked)
        said += [tag("h3", text(heading)), shown]
    return tag("div", *said, class_="half")


def _environment(difference: Difference) -> Section | None:
    said: list[Markup] = []
    if difference.environment:
        rows = [(text(each.key), text(each.expected), text(each.found)) for each in difference.environment]
        said.append(grid(("what", "expected", "found"), rows, "Environments that differ"))
    for side in (difference.expected, difference.found):
        if side is not None and side.facts:
            said += [tag("h3", text(side.label)), facts(side.facts)]
    return Section(f"{difference.prefix}environment", "Environment", joined(said)) if said else None


BUILDERS: Sequence[Callable[[Difference], Section | None]] = (
    first,
    _structure,
    _errors,
    _ulps,
    _tensors,
    _config,
    _environment,
)
"""Each builds a section, or returns None if the difference has nothing for it."""
