"""Chooses and sorts recorded runs: by status, by age, by a condition, by a value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from runner.errors import Mark, Problem, UsageError, did_you_mean
from runner.record.listing.facts import Fact, Facts
from runner.record.listing.runs import UNREADABLE, Recorded
from runner.record.manifest import STATUSES

if TYPE_CHECKING:
    from runner.plan.data.selection.cells import Cells, Kind

_EXACT = 2**53


def with_status(runs: Iterable[Recorded], statuses: Sequence[str]) -> list[Recorded]:
    """The runs with one of some statuses.

    Raises:
        UsageError: there is no such status.
    """
    known = (*STATUSES, UNREADABLE)
    for status in statuses:
        if status not in known:
            hint = did_you_mean(status, known, f"statuses are {', '.join(known)}")
            raise UsageError(Problem(f"there is no status `{status}`", hint))
    return [run for run in runs if run.summary.status in statuses]


def older_than(runs: Iterable[Recorded], age: str, now: datetime) -> list[Recorded]:
    """The runs that started before an age such as `30d`, `12h` or `2w`; not those whose start is unknown.

    Raises:
        UsageError: the text is no age.
    """
    from runner.config.text.units import seconds_of

    seconds = seconds_of(age)
    if seconds is None:
        raise UsageError(Problem(f"--older-than is `{age}`", "write a time such as 30d, 12h, 45m or 2w"))
    return [run for run in runs if (start := _start(run)) is not None and (now - start).total_seconds() > seconds]


def _start(run: Recorded) -> datetime | None:
    try:
        return datetime.fromisoformat(run.summary.started or "").astimezone()
    except (ValueError, OverflowError):  # no time, or one at an end of the calendar
        return None


def that_meet(runs: Sequence[Recorded], condition: str) -> list[Recorded]:
    """The runs that meet a condition such as `loss < 0.1 and status == "finished"`, in the language of `where`.

    Raises:
        UsageError: the text is no condition, or names nothing that a run has; the problem marks the place.
    """
    from runner.language.text.faults import LanguageError
    from runner.plan.data.selection.condition import Names, compile_condition

    facts = Facts(runs)
    cells: dict[str, tuple[Kind, Cells]] = {}

    def column(name: str) -> tuple[str, Kind] | None:
        if not facts.has(name):
            return None
        if name not in cells:
            cells[name] = cells_of(facts.values(name))
        return name, cells[name][0]

    try:
        compiled = compile_condition(condition, Names("the list of runs", tuple(facts.names), column, {}, dotted=True))
        kept = compiled.holds({name: found for name, (_, found) in cells.items()})
    except LanguageError as error:
        line, start, width = error.place.as_tuple()
        excerpt = (condition.splitlines() or [""])[line - 1 : line]
        mark = Mark("--filter", line, start + 1)
        raise UsageError(
            Problem(error.message, error.hint, mark, excerpt=excerpt[0] if excerpt else None, width=width)
        ) from error
    return [run for run, keeps in zip(runs, kept.tolist(), strict=True) if keeps]


def cells_of(values: Sequence[Fact]) -> tuple[Kind, Cells]:
    """The values of a name as cells of a column; where some are text, all are."""
    import numpy

    from runner.plan.data.selection.cells import Cells

    present = [value for value in values if value is not None]
    missing = numpy.array([value is None or value != value for value in values], dtype=bool)
    kind: Kind
    array: Any
    if present and all(isinstance(value, bool) for value in present):
        kind, array = "boolean", numpy.array([bool(value) for value in values])
    elif all(isinstance(value, int | float) for value in present):
        large = any(isinstance(value, int) and abs(value) > _EXACT for value in present)
        numbers = [0 if value is None else value for value in values]
        kind, array = "number", numpy.array(numbers, dtype=object if large else numpy.float64)
    else:
        kind, array = "text", numpy.array([str(value) for value in values], dtype=object)
    return kind, Cells(array, missing)


def sorted_by(runs: Sequence[Recorded], key: str) -> list[Recorded]:
    """The runs by a value, the smallest first; the largest first for `-loss`. Runs without it come last.

    Raises:
        UsageError: no run has it.
    """
    name = key.removeprefix("-")
    values: Mapping[int, Fact] = dict(enumerate(Facts(runs).values(name)))
    known = [number for number, value in values.items() if value is not None and value == value]
    as_text = any(isinstance(values[number], str) for number in known)

    def order(number: int) -> Any:
        return str(values[number]) if as_text else values[number]

    known.sort(key=order, reverse=key.startswith("-"))
    others = sorted(values.keys() - set(known))
    return [runs[number] for number in (*known, *others)]
