"""Reports a verdict as text of at most one screen, and as JSON values."""

from __future__ import annotations

import cmath
import math
import re
import textwrap
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import torch

from runner.compare.numbers.bounds import significant_digits
from runner.compare.numbers.differences import Difference, Element, Kind, Number, Passing, ScaledDifference, Values
from runner.compare.numbers.digested import Condensed
from runner.compare.numbers.growth import GrowthKind
from runner.compare.numbers.numerals import to_text
from runner.compare.rows.causes import BATCH, RANDOM, causes
from runner.compare.rows.results import Divergence, FirstDifference, Place, Rows, Verdict
from runner.errors import listing
from runner.language.dtypes import dtype_name
from runner.plan.rows.columns import Column
from runner.text import aligned, counted, finite_json, shortened

TALLEST = 24
WIDEST = 100
"""Lines and columns of one screen, the most that a report uses."""

_MOST_NAMES = 4
_MOST_STATISTICS = 7
_SHORTEST_TABLE = 3
_INDENT = 12
_NOTABLE = 1.5
_KINDS: dict[GrowthKind, str] = {"drift": "a drift", "rounding": "rounding, no growth", "jump": "a jump"}


def report(
    verdict: Verdict,
    *,
    draws: Collection[str] = (BATCH, RANDOM),
    every: int = 1,
    height: int = TALLEST,
    width: int = WIDEST,
    first: Sequence[str] = (),
) -> list[str]:
    """The verdict as lines of text; empty if nothing differs.

    Args:
        draws, every: as in `causes`.
        first: causes to print before these.
        height, width: the largest number of lines, and of characters in a line.
    """
    lines = [*structure(verdict)]
    if verdict.first_difference is not None:
        lines.append(_place(verdict.first_difference))
        sentences = [*first, *causes(verdict.first_difference, draws=draws, every=every)]
        lines += _labelled(_numbers(verdict.first_difference), width)
        lines += _labelled((("" if number else "cause", text) for number, text in enumerate(sentences)), width)
        lines += _labelled([*_since(verdict), *_growth(verdict)], width)
        room = height - len(lines)
        if len(verdict.tallies) > 1 and room >= _SHORTEST_TABLE:
            lines += _table(verdict, room)
    return [shortened(line, width) for line in lines[:height]]


def origin(verdict: Verdict, *, draws: Collection[str] = (BATCH, RANDOM), width: int = WIDEST) -> list[str]:
    """Where the first difference begins, and its likely causes; empty if nothing differs."""
    if verdict.first_difference is None:
        return []
    place = textwrap.wrap(f"born in {_place(verdict.first_difference)}", width, subsequent_indent=" " * _INDENT)
    labelled = (
        ("" if number else "cause", text) for number, text in enumerate(causes(verdict.first_difference, draws=draws))
    )
    return [*place, *_labelled(labelled, width)]


def to_json(
    verdict: Verdict, *, draws: Collection[str] = (BATCH, RANDOM), every: int = 1, first: Sequence[str] = ()
) -> dict[str, Any]:
    """The verdict as JSON values; numbers that are not finite become strings."""
    first_difference, growth = verdict.first_difference, verdict.growth
    return {
        "holds": verdict.holds,
        "rows": verdict.compared,
        "missing_rows": _rows_json(verdict.missing_rows),
        "new_rows": _rows_json(verdict.new_rows),
        "missing_tensors": [column.name for column in verdict.missing_columns],
        "new_tensors": [column.name for column in verdict.new_columns],
        "redeclared": [
            {"name": each.expected.name, "expected": _declared(each.expected), "found": _declared(each.found)}
            for each in verdict.redeclared
        ],
        "first": None if first_difference is None else _first_difference_json(first_difference),
        "causes": [] if first_difference is None else [*first, *causes(first_difference, draws=draws, every=every)],
        "unequal_since": None
        if verdict.unequal_since is None
        else {**_place_json(verdict.unequal_since[0]), "tensor": verdict.unequal_since[1].name},
        "growth": None
        if growth is None
        else {
            "tensor": growth.column.name,
            "kind": growth.kind,
            "before": finite_json(growth.before),
            "first": finite_json(growth.first),
            "last": finite_json(growth.last),
            "last_row": growth.last_number,
            "largest": finite_json(growth.largest),
            "largest_row": growth.largest_number,
            "leap": None
            if growth.leap is None
            else {
                "row": growth.leap.number,
                "before": finite_json(growth.leap.before),
                "error": finite_json(growth.leap.error),
            },
        },
        "tensors": [
            {
                "name": tally.column.name,
                "role": tally.column.role,
                "first_row": tally.first_number,
                "rows": tally.differing,
                "of": tally.compared,
                "largest_error": None if math.isnan(tally.largest) else finite_json(tally.largest),
            }
            for tally in verdict.tallies
        ],
    }


# --- text


def structure(verdict: Verdict) -> Iterator[str]:
    """Yields a line for each structural difference: tensors or rows that only one side has, another dtype or shape."""
    for word, columns in (("missing", verdict.missing_columns), ("new", verdict.new_columns)):
        if columns:
            names = listing([f"`{column.name}`" for column in columns], _MOST_NAMES)
            yield f"{counted(len(columns), 'tensor')} {_be(len(columns))} {word}: {names}"
    for each in verdict.redeclared[:_MOST_NAMES]:
        yield f"`{each.expected.name}` is {_declared(each.found)}, expected {_declared(each.expected)}"
    if len(verdict.redeclared) > _MOST_NAMES:
        more = len(verdict.redeclared) - _MOST_NAMES
        yield f"and {counted(more, 'more tensor')} {'has' if more == 1 else 'have'} another dtype or shape"
    for word, rows in (("missing", verdict.missing_rows), ("new", verdict.new_rows)):
        if rows.first is not None:
            where = f"row {rows.first.number}, {rows.first.path}"
            first = where if rows.count == 1 else f"the first is {where}"
            yield f"{counted(rows.count, 'row')} {_be(rows.count)} {word}: {first}"


def _labelled(texts: Iterable[tuple[str, str]], width: int) -> Iterator[str]:
    """Each text next to its label, wrapped to as many lines as it needs."""
    for label, text in texts:
        first, *more = textwrap.wrap(text, width - _INDENT, break_long_words=False) or [""]
        yield f"  {label:<9} {first}"
        yield from (" " * _INDENT + line for line in more)


def _place(first_difference: FirstDifference) -> str:
    first = first_difference.divergences[0]
    return f"row {_shown_place(first_difference.place)}: `{first.column.name}` {_what(first.difference)}" + _also(
        first.difference.kind, first_difference.divergences[1:]
    )


def _also(kind: Kind, others: Sequence[Divergence]) -> str:
    """The further tensors of the first row that differs; empty if there are none."""
    if not others:
        return ""
    names = listing([f"`{each.column.name}`" for each in others], _MOST_NAMES)
    if kind in ("value", "digest"):
        return f"; so {_do(len(others))} {names}"
    if kind in ("missing", "new") and all(each.difference.kind == kind for each in others):
        return f"; so {_be(len(others))} {names}"
    return f"; {names} {'differs' if len(others) == 1 else 'differ'} too"


def _shown_place(place: Place) -> str:
    return f"{place.number}" if place.path == place.step == "" else f"{place.number}, {place.path}"


def _what(difference: Difference) -> str:
    match difference.kind:
        case "missing":
            return f"is missing, expected {difference.expected}"
        case "new":
            return f"is new, {difference.found}"
        case "shape" | "dtype":
            return f"is {difference.found}, expected {difference.expected}"
        case "digest":
            return "differs in its digest"
    return "differs"


def _numbers(first_difference: FirstDifference) -> Iterator[tuple[str, str]]:
    difference = first_difference.divergences[0].difference
    values = difference.values
    for moved in difference.statistics[:_MOST_STATISTICS]:
        yield "moved", moved
    if difference.kind == "digest" and not difference.statistics:
        yield "apart", f"unknown:  {_why_unknown(first_difference)}"
    if values is None:
        return
    worst = values.worst
    where = f" at {list(worst.index)}" if worst.index else ""
    expected, found = shown(worst.expected, difference.dtype), shown(worst.found, difference.dtype)
    yield "expected", f"{expected}{where}{_digits(values, difference.dtype)}"
    yield "found", found
    yield "apart", f"{_times(values)}{_apart(worst, difference.dtype)}"
    if values.elements > 1:
        first = f", the first at {list(values.first.index)}" if values.first.index != worst.index else ""
        yield "elements", f"{values.count:,} of {values.elements:,} differ ({_percent(values.share)}){first}"
    yield "passes at", _passing(values.passing)


def _digits(values: Values, dtype: torch.dtype) -> str:
    scaled = values.uncertainty
    if scaled is None:
        return ""
    return f", about {significant_digits(scaled.rms, scaled.size, dtype):.1f} digits significant"


def _times(values: Values) -> str:
    scaled = values.uncertainty
    if scaled is None or not math.isfinite(scaled.times):
        return ""
    times = f"{scaled.times:,.0f}" if scaled.times >= 10 else f"{scaled.times:.2g}"
    return f"{times} times its uncertainty ({scaled.allowed:g} are allowed); "


def _why_unknown(first_difference: FirstDifference) -> str:
    expected = first_difference.expected[first_difference.divergences[0].column.name]
    if isinstance(expected, Condensed) and expected.summary is not None:
        return "the stored statistics are equal in all digits"
    return "only digests were stored"


def _apart(element: Element, dtype: torch.dtype) -> str:
    if element.absolute == 0:
        return "other bits of the same number"
    if not (cmath.isfinite(element.expected) and cmath.isfinite(element.found)):
        return "undefined: not both are finite"
    parts = [f"abs {element.absolute:.3g}", f"rel {element.relative:.3g}"]
    if element.ulps is not None:
        parts.append(f"{element.ulps:,} ULP of {dtype_name(dtype)}")
    return ", ".join(parts)


def _passing(passing: Passing) -> str:
    if passing.atol is None:
        return "no tolerance: numbers that are not finite must be equal"
    parts = []
    if passing.rtol is not None:
        with_atol = f" with atol {passing.beside_atol:.3g}" if passing.beside_atol else ""
        parts.append(f"rtol {rounded_up(passing.rtol)}{with_atol}")
    parts.append(f"atol {rounded_up(passing.atol)}" + (" alone" if passing.rtol is not None else ""))
    if passing.ulp is not None:
        parts.append(f"ulp {passing.ulp:,}")
    return ", or ".join(parts)


def _since(verdict: Verdict) -> Iterator[tuple[str, str]]:
    if verdict.unequal_since is not None:
        place, column = verdict.unequal_since
        where = f"row {_shown_place(place)}"
        yield "since", f"the bits of `{column.name}` differ within the tolerance from {where} on"


def _growth(verdict: Verdict) -> Iterator[tuple[str, str]]:
    growth, first_difference = verdict.growth, verdict.first_difference
    if growth is None or first_difference is None or growth.last_number == first_difference.place.number:
        return
    kind, first = _KINDS[growth.kind], f"{_error(growth.first)} in row {first_difference.place.number}"
    if growth.leap is not None:
        kind = f"{kind} in row {growth.leap.number}"
        jumped = f"{_error(growth.leap.error)} in row {growth.leap.number}"
        first += f", at most {_error(growth.leap.before)} until then, {jumped}"
    last = f"{_error(growth.last)} in row {growth.last_number}"
    most = (
        f", at most {_error(growth.largest)} in row {growth.largest_number}"
        if growth.largest > _NOTABLE * max(growth.first, growth.last)
        else ""
    )
    yield "growth", f"{kind}: error {first}, {last}{most}"


def _table(verdict: Verdict, room: int) -> list[str]:
    tallies, shapes = verdict.tallies, verdict.other_shapes
    shown_tallies = tallies[: room - 1 if len(tallies) <= room - 1 else room - 2]
    rows = [("tensor", "differs in", "from row", "largest error")]
    rows += [
        (
            tally.column.name,
            f"{tally.differing:,} of {tally.compared:,} rows",
            str(tally.first_number),
            shapes.get(tally.column.name) or _error(tally.largest),
        )
        for tally in shown_tallies
    ]
    lines = [line.rstrip() for line in aligned(rows)]
    left_out = len(tallies) - len(shown_tallies)
    return [*lines, f"  and {counted(left_out, 'more tensor')}"] if left_out else lines


def shown(number: Number, dtype: torch.dtype) -> str:
    """A number with the fewest digits that distinguish it from its neighbours in its dtype."""
    return to_text(torch.tensor(number, dtype=dtype))


def _declared(column: Column) -> str:
    return f"{dtype_name(column.dtype)} {'of varying shape' if column.shape is None else list(column.shape)}"


def rounded_up(number: float) -> str:
    """A tolerance as text with three digits, rounded up so that what passed the number also passes the text."""
    text = f"{number:.2e}"
    if float(text) < number:
        exponent = int(text.partition("e")[2])
        text = f"{float(text) + 10.0 ** (exponent - 2):.2e}"
    return re.sub(r"\.?0*e", "e", text) if number and not 1e-4 <= number < 1000 else f"{float(text):g}"


def _error(error: float) -> str:
    if math.isnan(error):
        return "unknown"
    return "no number" if math.isinf(error) else f"{error:.2g}"


def _percent(share: float) -> str:
    return "100%" if share == 1 else f"{min(99.9, 100 * share):.3g}%"


def _be(count: int) -> str:
    return "is" if count == 1 else "are"


def _do(count: int) -> str:
    return "does" if count == 1 else "do"


# --- JSON


def _first_difference_json(first_difference: FirstDifference) -> dict[str, Any]:
    return {
        **_place_json(first_difference.place),
        "tensors": [
            {"name": each.column.name, "role": each.column.role, **_difference_json(each.difference)}
            for each in first_difference.divergences
        ],
    }


def _difference_json(difference: Difference) -> dict[str, Any]:
    return {
        "kind": difference.kind,
        "expected": difference.expected,
        "found": difference.found,
        **({} if difference.values is None else _values_json(difference.values)),
        **({"statistics": list(difference.statistics)} if difference.kind == "digest" else {}),
    }


def _values_json(values: Values) -> dict[str, Any]:
    passing = values.passing
    return {
        "worst": _element_json(values.worst),
        "first": _element_json(values.first),
        "differing": values.count,
        "unequal": values.unequal,
        "elements": values.elements,
        "error": finite_json(values.error),
        "uncertainty": None if values.uncertainty is None else _scaled_json(values.uncertainty),
        "passes_at": {
            "rtol": passing.rtol,
            "beside_atol": finite_json(passing.beside_atol),
            "atol": passing.atol,
            "ulp": passing.ulp,
        },
    }


def _scaled_json(scaled: ScaledDifference) -> dict[str, Any]:
    return {"times": finite_json(scaled.times), "allowed": scaled.allowed, "rms": finite_json(scaled.rms)}


def _element_json(element: Element) -> dict[str, Any]:
    return {
        "index": list(element.index),
        "expected": _number(element.expected),
        "found": _number(element.found),
        "absolute": finite_json(element.absolute),
        "relative": finite_json(element.relative),
        "ulps": element.ulps,
    }


def _place_json(place: Place) -> dict[str, Any]:
    return {"row": place.number, "step": place.step, "path": place.path}


def _rows_json(rows: Rows) -> dict[str, Any]:
    return {"count": rows.count, "first": None if rows.first is None else _place_json(rows.first)}


def _number(number: Number) -> Any:
    if isinstance(number, complex):
        return [finite_json(number.real), finite_json(number.imag)]
    return finite_json(number) if isinstance(number, float) else number
