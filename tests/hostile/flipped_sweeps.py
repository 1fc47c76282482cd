"""Sweep directories for `tests.hostile.bit_flips`, and what is read of them."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow

import runner
from runner.compare.numbers.ulp import same_bits
from runner.errors import SteprunError
from runner.sweep.planning import plan_sweep
from runner.sweep.points.outcome import Outcome
from runner.sweep.record.reading import Sweep, open_sweep
from runner.sweep.running import How, resume_sweep, run_sweep, start_sweep
from tests.sweep.inline import Inline

SWEEP = """\
name: swept
parameters: {w: {shape: [3], init: normal}}
constants: {rate: 0.1}
expression: loss = ((w - dropout(ones(3), 0.5)) ** 2).sum()
optimizer: {adam: {lr: rate}}
steps: 6
sweep:
  grid: {rate: [0.1, 0.2, 0.3], optimizer: [{adam: {lr: rate}}, {sgd: {lr: rate, momentum: 0.5}}]}
  objective: {minimize: loss}
  halving: {at: [2], keep: 2/3}
"""
Content = tuple[pyarrow.Table, Sequence[pyarrow.Table], Sequence[Any]]
"""The table of a sweep without seconds, the rows of each point, and its weights."""


class _Watch:
    """Follows a sweep, and interrupts it when all points wait for their rung, if it should."""

    def __init__(self, interrupts: bool = False) -> None:
        self._interrupts = interrupts
        self._paused: set[int] = set()

    def begun(self, index: int) -> None: ...

    def known(self, outcomes: Sequence[Outcome]) -> None:
        self.ended(outcomes)

    def ended(self, outcomes: Sequence[Outcome]) -> None:
        self._paused |= {outcome.index for outcome in outcomes if outcome.status == "paused"}
        if self._interrupts and len(self._paused) == 6:
            raise KeyboardInterrupt


def _run(directory: Path, how: How, watch: _Watch, plan: Any) -> None:
    with patch("runner.sweep.running.Processes", Inline):
        run_sweep(directory, plan, how, watch)


def _content(sweep: Sweep) -> Content:
    points = range(len(sweep))
    table = sweep.table().drop_columns(["seconds"])
    return table, [sweep.rows(point) for point in points], [sweep.weights(point) for point in points]


def _same(found: Content, sound: Content) -> bool:
    return (
        found[0].equals(sound[0])
        and all(one.equals(other) for one, other in zip(found[1], sound[1], strict=True))
        and all(
            one.keys() == other.keys() and all(same_bits(one[name], other[name]) for name in one)
            for one, other in zip(found[2], sound[2], strict=True)
        )
    )


def sweeps(folder: Path) -> Iterator[tuple[str, Path, Callable[[Path, Path], str]]]:
    """A finished sweep, one of whose points is a run directory, and one that was interrupted while its points waited.

    Yields:
        what to call each, a folder with the sweep in it as `sweep`, and what reads and resumes it, as `Kind.read`.
    """
    config = runner.loads(SWEEP, base=folder)
    plan = plan_sweep(config, {})
    whole = start_sweep(config, plan, {}, folder / "sweeps", How())
    _run(whole, How(), _Watch(), plan)
    sound = _content(open_sweep(whole))
    point = open_sweep(whole).run(1).to_arrow()
    stopped = start_sweep(config, plan, {}, folder / "sweeps", How())
    with suppress(KeyboardInterrupt):
        _run(stopped, How(), _Watch(interrupts=True), plan)
    waiting = _content(open_sweep(stopped))
    for how, directory, recorded in (("finished", whole, sound), ("interrupted", stopped, waiting)):
        case = folder / how
        shutil.copytree(directory, case / "sweep")
        yield f"sweep {how}", case, _reader(recorded, sound, point)


def _reader(recorded: Content, sound: Content, point: pyarrow.Table) -> Callable[[Path, Path], str]:
    """What reads a sweep directory, and resumes it.

    Args:
        recorded: what the sweep has.
        sound: what it has once it is finished.
        point: the rows of its second point then.
    """

    def read(folder: Path, path: Path) -> str:
        directory = folder / "sweep"
        parts = path.relative_to(directory).parts
        named = str(directory / Path(*parts[:2])) if parts[0] == "runs" else path.name
        unguarded = parts[-1] in ("sweep.json", "run.json") and b'"digest"' not in path.read_bytes()
        try:
            sweep = open_sweep(directory)
            _ = sweep.config
            as_recorded = len(sweep) == len(recorded[1]) and _same(_content(sweep), recorded)
            if not as_recorded and not unguarded:
                return "another content than was recorded"
            plan, how = resume_sweep(directory, How())
            _run(directory, how, _Watch(), plan)
            done = open_sweep(directory)
            goes_on = _same(_content(done), sound)
            run = done.run(1)
            as_run = run.to_arrow().equals(point) and all(
                same_bits(run.weights[name], weight) for name, weight in sound[2][1].items()
            )
        except SteprunError as error:
            found = named in str(error) or (unguarded and str(directory) in str(error))
            return "noticed" if found else f"a fault that names no file: {error}"
        if not (goes_on and as_run):
            return "another reading" if unguarded else "it goes on to another content"
        return "the same" if as_recorded else "another reading"

    return read


def files_of(case: Path) -> Iterator[tuple[str, list[str]]]:
    """The kinds of files of a sweep directory in a folder, each with its files."""
    names = sorted(str(path.relative_to(case)) for path in case.rglob("*") if path.is_file())
    for kind, group in itertools.groupby(sorted(names, key=_kind), key=_kind):
        yield kind, list(group)


def _kind(name: str) -> str:
    parts = Path(name).parts[1:]
    if parts[0] == "runs":
        return f"{parts[0]}, {parts[-1]}"
    return parts[0] if len(parts) == 1 else f"{parts[0]}, {Path(name).suffix}"
