"""How large the effect of a change is in units of what rounding does, and whether `check` finds it elsewhere.

The effect is measured in the environment of the snapshot, so that nothing but the change is in it. Whether it is found
is asked in another one, where every number is also off by what that environment rounds otherwise.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from runner.compare.numbers.bounds import FACTOR, Uncertainty, floored
from runner.compare.numbers.tolerances import Measured, largest_magnitude, root_mean_square
from runner.compare.rows.results import AnyRow
from runner.compare.rows.verdict import align_edited
from runner.compare.snapshots.capture import measured, plan_of, snapshot_of
from runner.compare.snapshots.checking import Request, Target, check, judge
from runner.compare.snapshots.model import FOLDER, snapshot_path
from runner.compare.snapshots.reading import read
from runner.compare.snapshots.writing import write
from runner.compare.uncertainty.measuring import Measurement, difference_of
from runner.engine import Row, execute
from runner.plan import Plan
from runner.plan.snapshots import TolerancePlan
from tests.matrix.environments import HARSHEST, PLAIN, Environment, python
from tests.matrix.faults import Change

_WITHOUT_ONEDNN = "--without-onednn"


@dataclass(frozen=True, slots=True)
class Effect:
    """What a change does, and who sees it."""

    change: Change
    relative: float  # the largest change of a tensor in a row, relative to its root mean square
    ratio: float  # the same in units of its uncertainty S, or of a single element in units of 2 M
    caught: bool  # by `check` in another environment, which allows `FACTOR` times the uncertainty
    caught_by_dtype: bool  # by the tolerance of the dtype in its place


def effects(changes: Sequence[Change], folder: Path, environment: Environment = HARSHEST) -> list[Effect]:
    """The effect of each change: measured in the plain environment, and looked for in another one.

    Args:
        folder: an empty one, for configs and snapshots.
    """
    bases = sorted({change.config for change in changes})
    for name in bases:
        Change("", name).write(folder / "base" / name)
    for change in changes:
        change.write(folder / change.slug)
    slugs = [change.slug for change in changes]
    module = ["-m", "tests.matrix.effects"]
    sizes = json.loads(python(PLAIN, [*module, "measure", *bases, "--", *slugs], folder).stdout)
    off = [] if environment.onednn else [_WITHOUT_ONEDNN]
    found = json.loads(python(environment, [*module, "check", *off, "--", *slugs], folder).stdout)
    return [Effect(change, *sizes[change.slug], *found[change.slug]) for change in changes]


# --- in the plain environment


def _measure(bases: Sequence[str], slugs: Sequence[str]) -> Iterator[tuple[str, tuple[float, float]]]:
    """Take a snapshot of each base; then the relative change and the ratio of each edited config."""
    for name in bases:
        path = Path("base", name, f"{name}.yaml")
        plan = plan_of(path)
        rows = list(execute(plan))
        measurement = measured(plan, rows)
        assert measurement is not None
        folder = path.parent / FOLDER
        folder.mkdir()
        write(snapshot_of(plan, rows, measurement), snapshot_path(path, name), path.name)
        for slug in (each for each in slugs if Path(each, path.name).exists()):
            shutil.copytree(folder, Path(slug, FOLDER))
            yield slug, _sizes(plan_of(Path(slug, path.name)), plan, rows, measurement)


def _sizes(edited: Plan, plan: Plan, rows: Sequence[Row], measurement: Measurement) -> tuple[float, float]:
    relative = ratio = 0.0
    names = [column.name for column in plan.columns if column.name in {each.name for each in edited.columns}]
    values = [column.name for column in plan.columns if column.role == "value" and column.name in names]
    for found, expected in align_edited(list(execute(edited)), rows, values):
        if found is None or expected is None:
            ratio = math.inf if expected is not None else ratio
            continue
        for name in names:
            uncertainty = measurement.rows[expected.number].get(name)
            if uncertainty is not None:
                size, times = _apart(found, expected, name, uncertainty)
                relative, ratio = max(relative, size), max(ratio, times)
    return relative, ratio


def _apart(found: AnyRow, expected: AnyRow, name: str, uncertainty: Uncertainty) -> tuple[float, float]:
    """How far a tensor of a row is from the expected one, relative to that, and in units of its uncertainty."""
    a, b = found[name], expected[name]
    if not isinstance(a, Tensor) or not isinstance(b, Tensor) or a.shape != b.shape or a.dtype != b.dtype:
        return 0.0, math.inf
    delta = difference_of(a, b)
    if delta is None or not delta.numel():
        return 0.0, 0.0 if delta is not None else math.inf
    rms, largest = float(torch.linalg.vector_norm(delta)) / math.sqrt(delta.numel()), float(delta.max())
    size = root_mean_square(b)
    bound = Measured(*floored(uncertainty, b.dtype, size, largest_magnitude(b)), FACTOR)
    return rms / size if size else 0.0, bound.times(rms, largest)


# --- in another environment


def _check(slugs: Sequence[str]) -> Iterator[tuple[str, tuple[bool, bool]]]:
    for slug in slugs:
        (path,) = Path(slug).glob("*.yaml")
        snapshot_file = Path(slug, FOLDER, path.name)
        outcome = check(Target(str(path), str(snapshot_file)), Request())
        assert not outcome.exact, f"{slug} was compared by bits"
        assert outcome.status in ("holds", "differs"), "\n".join(outcome.lines)
        plan = plan_of(path)
        by_dtype = replace(plan, snapshot=replace(plan.snapshot, default=TolerancePlan("dtype")))
        yield slug, (outcome.status == "differs", not judge(by_dtype, read(snapshot_file)[0]).holds)


def _main(job: str, *arguments: str) -> None:
    place = arguments.index("--")
    given, slugs = arguments[:place], arguments[place + 1 :]
    if _WITHOUT_ONEDNN in given:
        torch.backends.mkldnn.set_flags(False)
    print(json.dumps(dict(_measure(given, slugs) if job == "measure" else _check(slugs))))


if __name__ == "__main__":
    _main(*sys.argv[1:])
