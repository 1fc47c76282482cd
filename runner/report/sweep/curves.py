"""Reads curves of many points at once: each part file once, and only the numbers that a page draws."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import numpy.typing

from runner.errors import Problem, UsageError
from runner.record.rows.arrow import columns_of
from runner.record.rows.tensors import integers_in, stacked_of
from runner.report.reading.curves import MOST_POINTS, decimated
from runner.sweep.points.outcome import Outcome
from runner.sweep.record.parts import Vanished, outcomes_in, part_paths, read_part, while_merging
from runner.text import counted

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

MOST_CURVES = 1_000
"""The most points whose curves a page has, the best first."""

MOST_QUANTITIES = 3
"""The most columns whose curves a page has."""

MOST_ROWS = 10_000_000
"""The most rows of a sweep that are read."""

MOST_PROBLEMS = 10
"""The most damaged part files that are named."""

LEAST_OF_ONE = 16
"""The fewest points of one curve to which a long one is thinned out."""

BATCH_ROWS = 1 << 16

Numbers = numpy.typing.NDArray[Any]
Piece = tuple[Numbers, dict[str, Numbers]]
"""Row numbers, and the values of each column there."""

Pieces = dict[int, dict[int, tuple[Outcome, list[Piece]]]]
"""What was read of each point, by its place on the page and by rung."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """One column of all points, one curve after another."""

    name: str
    ends: Numbers  # uint32 `(points,)`: where the curve of each point ends
    rows: Numbers  # uint32
    values: Numbers  # float32
    whole: bool  # whether nothing was thinned out


@dataclass(slots=True)
class Found:
    """The curves of the points that were read."""

    quantities: tuple[Quantity, ...] = ()
    rungs: dict[str, int] = field(default_factory=dict)  # identity → how many times a point was compared
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)  # the part files that are damaged


def read_curves(directory: Path, identities: Sequence[str], names: Sequence[str]) -> Found:
    """Read the curves of some points.

    Args:
        identities: those of the points, in the order of the page. A sampler may propose equal points.
        names: the columns to read.
    """
    return while_merging(lambda: _curves(directory, identities, names))


def _curves(directory: Path, identities: Sequence[str], names: Sequence[str]) -> Found:
    found = Found()
    pieces: Pieces = {}
    left = MOST_ROWS
    places: dict[str, int] = {}
    for place, identity in enumerate(identities):
        places.setdefault(identity, place)
    for path in reversed(_paths(directory, found.problems)):
        try:
            left = _read(path, places, names, found, pieces, left)
        except Vanished:
            raise
        except UsageError as error:
            found.problems += error.problems
    for place, identity in enumerate(identities[:MOST_CURVES]):
        if places[identity] in pieces:
            pieces[place] = pieces[places[identity]]
    found.problems = _counted(found.problems)
    found.quantities = tuple(_quantity(name, pieces, len(identities)) for name in names)
    found.quantities = tuple(each for each in found.quantities if len(each.rows))
    if len(identities) > MOST_CURVES:
        found.notes.append(f"The first {MOST_CURVES:,} points of the table have curves.")
    if not all(each.whole for each in found.quantities):
        found.notes.append("Long curves are thinned out, and keep the extremes of each stretch of rows.")
    return found


def _paths(directory: Path, problems: list[Problem]) -> list[Path]:
    """The part files; none if their folder cannot be read."""
    try:
        return list(part_paths(directory))
    except UsageError as error:
        problems += error.problems
        return []


def _counted(problems: list[Problem]) -> list[Problem]:
    """The first problems, and how many more there are."""
    if len(problems) <= MOST_PROBLEMS:
        return problems
    more = counted(len(problems) - MOST_PROBLEMS, "more part file")
    return [*problems[:MOST_PROBLEMS], Problem(f"{more} cannot be read", problems[MOST_PROBLEMS].hint)]


def _read(path: Path, places: dict[str, int], names: Sequence[str], found: Found, pieces: Pieces, left: int) -> int:
    """Read what one part has of the points that no newer part has; returns how many rows may still be read.

    Raises:
        Vanished: it has been merged.
        UsageError: it is damaged; nothing is kept of it.
    """
    wanted: dict[int, list[Piece]] = {}
    read: list[tuple[int, Outcome]] = []
    for outcome in outcomes_in(path):
        found.rungs[outcome.identity] = max(found.rungs.get(outcome.identity, 0), outcome.rung)
        place = places.get(outcome.identity, MOST_CURVES)
        if place < MOST_CURVES and outcome.rung not in pieces.get(place, {}):
            read.append((place, outcome))
            wanted[outcome.index] = []
    if not wanted or not names:
        return left
    rows = read_part(path, lambda file: int(file.metadata.num_rows), rows=False)
    if rows > left:
        found.notes = [f"The sweep has more than {MOST_ROWS:,} rows: some points have no curve."]
        return left
    read_part(path, lambda file: _add(file, names, wanted))
    for place, outcome in read:
        pieces.setdefault(place, {}).setdefault(outcome.rung, (outcome, wanted[outcome.index]))
    return left - rows


def _add(file: pyarrow.parquet.ParquetFile, names: Sequence[str], wanted: dict[int, list[Piece]]) -> None:
    """Add what one part has of some points."""
    import pyarrow

    columns = [column for column in columns_of(file.schema_arrow) if column.name in names and column.elements == 1]
    columns = [column for column in columns if column.of is None and not column.dtype.is_complex]
    indexes = numpy.asarray(sorted(wanted), dtype=numpy.int64)
    fields = ["point", "row", *(column.name for column in columns)]
    for batch in file.iter_batches(BATCH_ROWS, columns=fields, use_threads=False):
        table = pyarrow.Table.from_batches([batch])
        points, rows = (integers_in(table, name) for name in ("point", "row"))
        kept = numpy.flatnonzero(numpy.isin(points, indexes))
        values = {}
        for column in columns:
            read, present = stacked_of(table, column)
            numbers = read.reshape(len(table), -1)[:, 0].double().numpy()
            values[column.name] = numpy.where(present.numpy(), numbers, numpy.nan), present.numpy()
        for places in _of_each(points, kept):
            found = {name: numbers[places[there[places]]] for name, (numbers, there) in values.items()}
            at = {name: rows[places[there[places]]] for name, (_, there) in values.items()}
            wanted[int(points[places[0]])] += [(at[name], {name: found[name]}) for name in found]


def _of_each(points: Numbers, kept: Numbers) -> Iterator[Numbers]:
    """The kept rows of each point, in their order."""
    if not len(kept):
        return
    order = kept[numpy.argsort(points[kept], kind="stable")]
    yield from numpy.split(order, numpy.flatnonzero(numpy.diff(points[order])) + 1)


def _quantity(name: str, pieces: Pieces, count: int) -> Quantity:
    most = max(LEAST_OF_ONE, MOST_POINTS // MOST_QUANTITIES // max(1, len(pieces)))
    ends, rows, values, whole, end = [], [], [], True, 0
    for place in range(count):
        own_rows, own_values = _joined(name, pieces.get(place, {}))
        kept = decimated(own_values, most)
        whole = whole and len(kept) == len(own_values)
        rows.append(own_rows[kept].astype(numpy.uint32))
        with numpy.errstate(over="ignore"):
            values.append(own_values[kept].astype(numpy.float32))
        end += len(kept)
        ends.append(end)
    return Quantity(
        name,
        numpy.asarray(ends, dtype=numpy.uint32),
        numpy.concatenate([numpy.zeros(0, numpy.uint32), *rows]),
        numpy.concatenate([numpy.zeros(0, numpy.float32), *values]),
        whole,
    )


def _joined(name: str, rungs: dict[int, tuple[Outcome, list[Piece]]]) -> tuple[Numbers, Numbers]:
    """The rows and the values of a point; a later rung replaces the rows that it computed again."""
    rows, values = [numpy.zeros(0, numpy.int64)], [numpy.zeros(0)]
    ordered = [rungs[rung] for rung in sorted(rungs)]
    for place, (outcome, pieces) in enumerate(ordered):
        until = ordered[place + 1][0].first if place + 1 < len(ordered) else None
        for at, found in pieces:
            if name not in found:
                continue
            kept = at >= outcome.first
            if until is not None:
                kept &= at < until
            rows.append(at[kept])
            values.append(found[name][kept])
    return numpy.concatenate(rows), numpy.concatenate(values)
