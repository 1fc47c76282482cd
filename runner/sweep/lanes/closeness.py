"""Judges whether a lane that is close only differs from the run alone by more than rounding explains.

A few units of rounding need no proof. Beyond them, the run alone is repeated with perturbed rounding, as for a
snapshot, and each recorded number may differ by five times its uncertainty.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow
import torch
from torch import Tensor

from runner.compare.numbers.bounds import UNKNOWN, Uncertainty
from runner.compare.numbers.differences import absolute_differences, deviation
from runner.compare.numbers.tolerances import Tolerance, root_mean_square
from runner.config import overridden
from runner.engine import eager, initial_state
from runner.engine.state import State
from runner.errors import SteprunError
from runner.plan import Plan, compile
from runner.plan.rows.columns import Column
from runner.record.rows.arrow import columns_of
from runner.record.rows.tensors import tensors_of
from runner.sweep.points.task import Task
from runner.sweep.record.states import load_state
from runner.sweep.rungs import cut, go_on
from runner.sweep.single import Work

RUNS = 4
"""Runs with perturbed rounding; their uncertainty is widened, because 8 would be more certain."""

DOUBTFUL = 0.01
"""The share of its largest value so far from which on a difference is reported, although rounding explains it."""

MOST_BYTES = 256 << 20
"""Bytes of the rows that are measured; of a longer log only some are, each for those before it."""

_END = 1 << 63
_DIGITS = (6, 9, 17)
_ABSENT = torch.empty(0, 0)
_NOTHING = Uncertainty(0.0, 0.0)

Uncertainties = Mapping[int, Mapping[str, Uncertainty]]
"""Row number → column."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the numbers of a lane are worth."""

    warning: str | None = None
    column: str | None = None  # one that differs by more than rounding explains


@dataclass(frozen=True, slots=True)
class _Pair:
    """A number of a lane, and that of the run alone, which has other bits."""

    column: Column
    row: int  # `_END` for a weight at the end
    iteration: int
    lane: Tensor
    alone: Tensor
    largest: float  # root mean square of the run alone, the largest so far

    def is_within(self, uncertainty: Uncertainty) -> bool:
        return not deviation(self.lane, self.alone, Tolerance("measured", uncertainty=uncertainty)).beyond

    @property
    def is_doubtful(self) -> bool:
        """Whether it is a value or a weight of which fewer than two digits agree."""
        if self.column.role not in ("value", "weight") or not self.alone.is_floating_point():
            return False
        delta, _, _ = absolute_differences(self.lane, self.alone)
        return float(delta.square().mean().sqrt()) > DOUBTFUL * self.largest

    def text(self) -> str:
        """`loss` at iteration 12 is 0.51 as a lane and 0.49 alone."""
        when = "at the end" if self.row == _END else f"at iteration {self.iteration}"
        if self.lane is _ABSENT or self.alone is _ABSENT:
            return f"`{self.column.name}` {when} exists only {'alone' if self.lane is _ABSENT else 'as a lane'}"
        if self.lane.shape != self.alone.shape:
            shapes = [list(each.shape) for each in (self.lane, self.alone)]
            return f"`{self.column.name}` {when} has shape {shapes[0]} as a lane and {shapes[1]} alone"
        delta, _, _ = absolute_differences(self.lane, self.alone)
        place = int(delta.reshape(-1).argmax())
        found = [_number(each.reshape(-1)[place]) for each in (self.lane, self.alone)]
        one, other = next(
            (texts for digits in _DIGITS if len(set(texts := [f"{each:.{digits}g}" for each in found])) == 2),
            [f"{each}" for each in found],
        )
        index = torch.unravel_index(torch.tensor(place), self.lane.shape) if self.lane.numel() > 1 else ()
        name = f"{self.column.name}[{', '.join(str(int(each)) for each in index)}]" if index else self.column.name
        return f"`{name}` {when} is {one} as a lane and {other} alone"


def _number(value: Tensor) -> complex | float:
    return complex(value.item()) if value.is_complex() else float(value.item())


def judge(
    work: Work,
    task: Task,
    lane: tuple[pyarrow.Table, pyarrow.Table],
    alone: tuple[pyarrow.Table, pyarrow.Table],
    going_on: Callable[[], None],
) -> Judgement:
    """Judge a lane by the rows and the weights of its point.

    Args:
        lane, alone: rows and weights as they are stored, of the lane and of the run alone; as many rows.
        going_on: called before each perturbed run; what it raises ends the measurement.
    """
    rows, weights = ([*_pairs(one, other)] for one, other in zip(lane, alone, strict=True))
    pairs = [*rows, *(replace(pair, row=_END) for pair in weights)]
    if all(pair.is_within(_NOTHING) for pair in pairs):
        return Judgement()
    try:
        found = _measured(work, task, going_on)
    except (SteprunError, MemoryError):
        return Judgement(
            f"point {task.index}: {pairs[0].text()}, and what rounding explains cannot be measured",
            pairs[0].column.name,
        )
    pairs.sort(key=lambda pair: pair.row)
    numbers = list(found)
    beyond = next((pair for pair in pairs if not pair.is_within(_uncertainty(pair, found, numbers))), None)
    if beyond is not None:
        return Judgement(f"point {task.index}: {beyond.text()}: more than rounding explains", beyond.column.name)
    doubtful = next((pair for pair in pairs if pair.is_doubtful), None)
    if doubtful is None:
        return Judgement()
    return Judgement(f"point {task.index}: {doubtful.text()}: rounding alone changes this training as much")


def _pairs(lane: pyarrow.Table, alone: pyarrow.Table) -> Iterator[_Pair]:
    """The numbers that differ, column by column; digests cannot be compared, nor can counts of elements."""
    has_rows = "row" in alone.column_names
    numbers = alone.column("row").to_pylist() if has_rows else [0]
    iterations = alone.column("iteration").to_pylist() if has_rows else [0]
    for column in columns_of(alone.schema):
        if column.is_digest or (column.of is not None and not column.dtype.is_floating_point):
            continue
        largest = 0.0
        values = zip(numbers, iterations, tensors_of(lane, column), tensors_of(alone, column), strict=True)
        for number, iteration, found, expected in values:
            if found is None and expected is None:
                continue
            found, expected = (_ABSENT if each is None else each for each in (found, expected))
            if column.of is not None and found is not _ABSENT is not expected:
                found, expected = found.to(column.rounded), expected.to(column.rounded)
            size = root_mean_square(expected) if expected.numel() else 0.0
            largest = max(largest, size) if math.isfinite(size) else largest
            if found.shape != expected.shape or not torch.equal(found, expected):
                yield _Pair(column, number, iteration, found, expected, largest)


def _uncertainty(pair: _Pair, found: Uncertainties, numbers: Sequence[int]) -> Uncertainty:
    """The uncertainty of a number; that of a statistic is at most that of all elements together.

    Args:
        numbers: those of the rows of `found`, in order.
    """
    row = found[numbers[min(bisect_left(numbers, pair.row), len(numbers) - 1)]]  # it grows from row to row
    if pair.column.of is None:
        return row.get(pair.column.name, UNKNOWN)
    whole, elements = row.get(pair.column.of.name, UNKNOWN), pair.column.of.elements
    most = math.inf if elements is None else whole.largest * math.sqrt(elements)
    return Uncertainty(most, most)


def _measured(work: Work, task: Task, going_on: Callable[[], None]) -> Uncertainties:
    """How uncertain each number of a point is, measured with the eager engine, also of weights that no row has."""
    from runner.compare.uncertainty.measuring import measure  # imports torch's compiler

    config = overridden(work.base, task.overrides)
    everything = ["log.tensors=full", *(["~log.include"] if config.log.include is not None else [])]

    def planned(*further: str) -> Plan:
        whole = overridden(config, [*everything, f"log.budget={1 << 50}", *further])
        eager_one = whole.model_copy(update={"engine": "eager", "device": "cpu"})
        return compile(eager_one, allowed=work.allowed, limits=work.limits)

    plan = planned()
    if plan.estimates.log > MOST_BYTES:
        plan = planned(f"log.every={plan.log.every * -(-plan.estimates.log // MOST_BYTES)}")
    part = None if task.until is None else cut(plan, task.until)
    plan = part or plan

    def start(plan: Plan) -> State:
        state = initial_state(plan)
        if task.state is not None:
            go_on(plan, state, *load_state(work.directory, task.state, task.identity))
        return state

    rows = list(eager.execute(plan, start(plan), shared=True))
    return measure(plan, rows, runs=RUNS, progress=lambda *_: going_on(), start=start).rows
