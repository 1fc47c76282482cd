"""Runs a config with perturbed rounding, and measures how far its rows are from those of the plain run."""

from __future__ import annotations

import hashlib
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import torch
from torch import Tensor

from runner.compare.numbers.bounds import UNKNOWN, Uncertainty
from runner.compare.numbers.digested import LARGEST_WHOLE, STATISTICS
from runner.compare.uncertainty.discrete import discrete_columns
from runner.compare.uncertainty.perturbation import Perturbation
from runner.compare.uncertainty.rules import BUDGET, FEWEST
from runner.engine import Row, State, eager, initial_state
from runner.engine.session import Session
from runner.engine.steps.step_code import Run
from runner.errors import RunError
from runner.plan import Plan
from runner.plan.program.instructions import Action, Expect
from runner.record.checkpoints.config_fields import config_digests
from runner.record.rows.summary import summarize

Progress = Callable[[int, int], None]
"""Called as each run begins, with its number and the number of runs."""

Start = Callable[[Plan], State]
"""Returns a new state for each run of a plan."""


_WIDENED = {3: 2.54, 4: 1.7, 5: 1.36, 6: 1.18, 7: 1.07}
"""Factors by number of runs, for an uncertainty from fewer than 8 runs, which is itself less certain. With its factor,
a correct number exceeds 5 times its uncertainty as rarely as with 8 runs. Source: quantiles of Student's t. With 8
degrees of freedom, |t| exceeds 5 with probability 0.0011. The factor is the quantile at that probability, over 5.
"""


@dataclass(frozen=True, slots=True)
class Measurement:
    """The uncertainty of the tensors of each row."""

    runs: int
    asked: int  # runs requested; more than `runs` if time ran out
    rows: Mapping[int, Mapping[str, Uncertainty]]  # row number → tensor
    notes: tuple[str, ...] = ()  # what was unusual in perturbed runs


def measure(
    plan: Plan,
    rows: Sequence[Row],
    *,
    runs: int,
    budget: float = BUDGET,
    progress: Progress | None = None,
    start: Start | None = None,
) -> Measurement:
    """Run a plan with perturbed rounding, and measure how far each tensor is from that in `rows`.

    Args:
        plan: with `engine: eager` on the CPU.
        rows: the rows of its plain run, with all tensors whole.
        runs: the number of perturbed runs.
        budget: seconds; if `runs` would take longer, fewer are made, but at least `FEWEST`.
        progress: called before each run.
        start: the state that each run starts from, if not the start of the config; the perturbed runs then have as many
            rows as `rows`.
    """
    plan = replace(plan, on_nonfinite="ignore")
    plan.drawings.take()  # drawn without perturbation
    tallies = [{column.name: _Tally() for column in row.columns} for row in rows]
    notes: list[str] = []
    wanted = runs
    began = time.monotonic()
    done = 0
    while done < runs:
        done += 1
        if progress is not None:
            progress(done, runs)
        note = _add_run(tallies, rows, _perturbed_rows(plan, _seed(plan, done), start, len(rows)))
        if note is not None:
            notes.append(note)
        taken = (time.monotonic() - began) / done
        if taken > 0:  # updated after each run: the first may include the time of imports
            runs = max(done, int(min(wanted, max(FEWEST, budget / taken))))
    notes += _nonfinite(tallies, rows)
    discrete = discrete_columns(plan)
    found = {
        row.number: {name: each.uncertainty(done) for name, each in tallies[place].items() if each.seen}
        for place, row in enumerate(rows)
    }
    return Measurement(done, wanted, _widened(found, discrete), tuple(_counted(notes)))


def _add_run(tallies: Sequence[Mapping[str, _Tally]], rows: Sequence[Row], perturbed: Iterable[Row]) -> str | None:
    """Add one perturbed run to the tallies; returns a note if it took other steps or ended early."""
    place = 0
    note = None
    try:
        for row in perturbed:
            if place == len(rows) or row.path != rows[place].path:
                note = f"a perturbed run took other steps from row {place} on: `{row.path}`"
                break
            for name, tally in tallies[place].items():
                tally.add(row[name], rows[place][name])
            place += 1
    except RunError as error:
        note = f"a perturbed run ended before row {place}: {error.problems[0].message}"
    if note is None and place < len(rows):
        note = f"a perturbed run ended before row {place}"
    for missed in tallies[place:]:
        for tally in missed.values():
            tally.miss()
    return note


def _perturbed_rows(plan: Plan, seed: int, start: Start | None, most: int) -> Iterator[Row]:
    """The rows of a run under `Perturbation`, which is inactive while a row is read; at most `most` with a `start`."""
    mode = Perturbation(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with mode:
            state = initial_state(plan) if start is None else start(plan)
            rows = eager.execute(plan, state, shared=True, bind=_bind_but_expectations)
            rows = rows if start is None else islice(rows, most)
        while True:
            with mode:
                row = next(rows, None)
            if row is None:
                return
            yield row


def _bind_but_expectations(session: Session, position: int, action: Action) -> Run:
    """Like `eager.bind_step`, but `expect` steps do nothing: perturbed numbers may fail them."""
    return (lambda: None) if isinstance(action.argument, Expect) else eager.bind_step(session, position, action)


def _seed(plan: Plan, number: int) -> int:
    """The seed of one perturbed run. The same config always gives the same perturbations."""
    digests = "\n".join(f"{key} {digest}" for key, digest in sorted(config_digests(plan.config).items()))
    return int.from_bytes(hashlib.sha256(f"{digests}\n{number}".encode()).digest()[:7])


def _nonfinite(tallies: Sequence[Mapping[str, _Tally]], rows: Sequence[Row]) -> Iterator[str]:
    """A note for each tensor whose elements are finite only in some perturbed runs, with the first such row."""
    reported: set[str] = set()
    for row, found in zip(rows, tallies, strict=True):
        for name, tally in found.items():
            if tally.nonfinite and name not in reported:
                reported.add(name)
                where = f"from row {row.number} on: any number is accepted there"
                yield f"`{name}` is finite in some perturbed runs only, {where}"


def _counted(notes: Sequence[str]) -> list[str]:
    return [
        note if notes.count(note) == 1 else note.replace("a perturbed run", f"{notes.count(note)} perturbed runs", 1)
        for note in dict.fromkeys(notes)
    ]


@dataclass(slots=True)
class _Tally:
    """Accumulates one tensor of one row over the perturbed runs."""

    squares: float = 0.0  # sum over the runs of the mean squared difference
    largest: float = 0.0
    unknown: bool = False
    nonfinite: bool = False  # whether a perturbed run and the plain one had different finite elements
    seen: bool = False  # whether the plain run has it
    statistics: dict[str, float] = field(default_factory=dict)  # sum of squared differences

    def add(self, found: Tensor | None, expected: Tensor | None) -> None:
        if expected is None:
            return
        self.seen = True
        if found is expected:
            return
        if found is None or found.shape != expected.shape:
            self.unknown = True
            return
        delta = difference_of(found, expected)
        if delta is None:
            self.unknown = self.nonfinite = True
        elif delta.numel():
            norm = float(torch.linalg.vector_norm(delta))
            self.squares += norm * norm / delta.numel()
            self.largest = max(self.largest, float(delta.max()))
        if expected.numel() > LARGEST_WHOLE and (delta is None or self.largest > 0):
            now, then = summarize(found), summarize(expected)
            for name in STATISTICS:
                a, b = getattr(now, name), getattr(then, name)
                if a is not None and b is not None:
                    self.statistics[name] = self.statistics.get(name, 0.0) + (a - b) * (a - b)

    def miss(self) -> None:
        self.unknown = True

    def uncertainty(self, runs: int) -> Uncertainty:
        if self.unknown:
            return UNKNOWN
        wide = _WIDENED.get(runs, 1.0)
        statistics = {name: wide * math.sqrt(squares / runs) for name, squares in self.statistics.items()}
        rms = min(self.largest, math.sqrt(self.squares / runs))
        return Uncertainty(wide * rms, wide * self.largest, statistics)


def difference_of(found: Tensor, expected: Tensor) -> Tensor | None:
    """Absolute differences of the finite elements, float64 `(n,)`; None if other elements are finite in `found`."""
    if not (expected.is_floating_point() or expected.is_complex()):
        return (found.to(torch.float64) - expected.to(torch.float64)).abs().reshape(-1)
    wide = torch.complex128 if expected.is_complex() else torch.float64
    a, b = found.detach().to(wide).reshape(-1), expected.detach().to(wide).reshape(-1)
    delta = (a - b).abs()
    if math.isfinite(float(delta.sum())):
        return delta
    finite = a.isfinite() & b.isfinite()
    same = (a == b) | (a.isnan() & b.isnan()) | finite
    return delta[finite] if bool(same.all()) else None


def _widened(
    rows: Mapping[int, Mapping[str, Uncertainty]], discrete: frozenset[str]
) -> Mapping[int, Mapping[str, Uncertainty]]:
    """Raise the uncertainty of discrete columns to that of the neighbouring rows: they jump in one row or the next."""
    widened = {number: dict(row) for number, row in rows.items()}
    for name in discrete:
        numbers = [number for number, row in rows.items() if name in row]
        for place, number in enumerate(numbers):
            neighbours = [rows[near][name] for near in numbers[max(0, place - 1) : place + 2]]
            keys = dict.fromkeys(key for each in neighbours for key in each.statistics)
            statistics = {key: max(each.statistics.get(key, 0.0) for each in neighbours) for key in keys}
            widened[number][name] = Uncertainty(
                max(each.rms for each in neighbours), max(each.largest for each in neighbours), statistics
            )
    return widened
