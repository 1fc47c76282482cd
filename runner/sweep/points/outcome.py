"""How a point of a sweep ended, as the part files of the sweep record it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

Statistics = tuple[float | None, float | None, float | None]
"""The last, the smallest and the largest value of a scalar column; None without a value."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one point ended."""

    index: int
    identity: str
    overrides: tuple[str, ...]
    status: str  # finished, failed or stopped
    seconds: float
    rows: int = 0
    schema: str = ""  # the folder of its rows
    failure: str | None = None
    scalars: Mapping[str, Statistics] = field(default_factory=dict)
    recent: Sequence[float] = ()  # the last values of the objective, for `over: mean(n)`
    difference: str | None = None  # of a lane that is close only: how it differs from the run alone
    distance: float | None = None  # the size of that difference
    warning: str | None = None  # of a lane that is close only, or was: what its numbers are worth
    alone: str | None = None  # why it did not run as a lane; empty: it did; None: nothing decided that
    rung: int = 0  # how many times the point had been compared before
    first: int = 0  # the number of its first row here
    state: str | None = None  # the files with its state, if it can go on
    kept: Outcome | None = None  # the part of it that a continuation keeps: it computes the last rows again


_FIELDS = tuple(each.name for each in fields(Outcome))


def joined(outcomes: Sequence[Outcome]) -> Outcome:
    """The outcome of a point from those of its rungs, in order."""
    whole = outcomes[0]
    for later in outcomes[1:]:
        lost = later.status == "failed" and not later.schema  # it has computed no row again
        before = whole if lost else whole.kept or whole
        kept = None if later.kept is None else _joined(before, later.kept)
        whole = replace(_joined(before, later), seconds=round(whole.seconds + later.seconds, 6), kept=kept)
    return whole


def _joined(before: Outcome, later: Outcome) -> Outcome:
    names = dict.fromkeys([*before.scalars, *later.scalars])
    nothing: Statistics = (None, None, None)
    return replace(
        later,
        first=before.first,
        rows=before.rows + later.rows,
        scalars={name: _both(before.scalars.get(name, nothing), later.scalars.get(name, nothing)) for name in names},
        recent=(*before.recent, *later.recent),
        warning=before.warning or later.warning,
    )


def _both(before: Statistics, later: Statistics) -> Statistics:
    last = before[0] if later[0] is None else later[0]
    return last, _chosen(min, before[1], later[1]), _chosen(max, before[2], later[2])


def _chosen(choose: Callable[[list[float]], float], *values: float | None) -> float | None:
    """The smallest or the largest value; NaN only if there is no number, None only if there is no value."""
    known = [value for value in values if value is not None]
    numbers = [value for value in known if not math.isnan(value)]
    return choose(numbers or known) if known else None


def to_json(outcomes: Sequence[Outcome]) -> str:
    """Outcomes as JSON; a number that is not finite is a text."""
    return json.dumps(list(map(_written, outcomes)))


def from_json(text: str) -> list[Outcome]:
    """The inverse of `to_json`.

    Raises:
        ValueError: the text does not describe outcomes.
    """
    try:
        return [_outcome(each) for each in json.loads(text)]
    except (TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"not the outcomes of points: {error}") from error


def outcomes_of(text: str, identity: str) -> list[Outcome]:
    """The outcomes of one point among those that `to_json` wrote; the others are not parsed.

    Raises:
        ValueError: the text does not describe outcomes.
    """
    found: list[Outcome] = []
    mark = f'"identity": {json.dumps(identity)}'
    place = text.find(mark)
    while place >= 0:
        given, end = json.JSONDecoder().raw_decode(text, text.rfind("{", 0, place))
        found += from_json(json.dumps([given]))
        place = text.find(mark, max(end, place + 1))
    return found


def _outcome(given: Mapping[str, Any]) -> Outcome:
    scalars = {str(name): _statistics(values) for name, values in given["scalars"].items()}
    return Outcome(
        index=_count(given["index"]),
        identity=str(given["identity"]),
        overrides=tuple(map(str, given["overrides"])),
        status=str(given["status"]),
        seconds=float(given["seconds"]),
        rows=_count(given["rows"]),
        schema=str(given["schema"]),
        failure=None if given["failure"] is None else str(given["failure"]),
        scalars=scalars,
        difference=None if given.get("difference") is None else str(given["difference"]),
        distance=_number(given.get("distance")),
        warning=None if given.get("warning") is None else str(given["warning"]),
        alone=None if given.get("alone") is None else str(given["alone"]),
        recent=tuple(number for number in map(_number, given["recent"]) if number is not None),
        rung=_count(given["rung"]),
        first=_count(given["first"]),
        state=None if given["state"] is None else str(given["state"]),
        kept=None if given["kept"] is None else _outcome(given["kept"]),
    )


def _written(outcome: Outcome) -> dict[str, Any]:
    written = {name: getattr(outcome, name) for name in _FIELDS}
    written["seconds"] = _spelled(outcome.seconds)
    written["distance"] = _spelled(outcome.distance)
    written["scalars"] = {name: list(map(_spelled, values)) for name, values in outcome.scalars.items()}
    written["recent"] = list(map(_spelled, outcome.recent))
    written["kept"] = None if outcome.kept is None else _written(outcome.kept)
    return written


def _spelled(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else repr(value)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError(f"{str(value)[:40]} is not a count")
    return value


def _statistics(values: Any) -> Statistics:
    last, least, most = map(_number, values)
    return last, least, most


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
