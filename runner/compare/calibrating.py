"""How far apart the runs of one config lie, measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from runner.compare.condensed import Condensed
from runner.compare.differences import difference
from runner.compare.snapshots import Calibration, Value
from runner.compare.taking import plan_of
from runner.compare.tolerances import Tolerance
from runner.compare.verdict import AnyRow, align
from runner.engine import execute
from runner.errors import ComparisonError, Problem
from runner.plan.columns import Column
from runner.plan.plan import Plan

_ANY_DIFFERENCE = Tolerance("explicit")


@dataclass(frozen=True, slots=True)
class Variant:
    """What one run does otherwise."""

    threads: int
    overrides: tuple[str, ...] = ()


def variants(threads: Sequence[int], over: Sequence[str]) -> list[Variant]:
    """Every thread count, then every override that is asked for with each."""
    return [Variant(count, each) for each in ((), *((text,) for text in over)) for count in threads]


def calibrate(
    config: Path,
    rows: Sequence[AnyRow],
    columns: Sequence[Column],
    runs: int,
    tried: Sequence[Variant],
    overrides: Sequence[str] = (),
    allowed: Sequence[str] = (),
) -> Calibration:
    """Run a config `runs` times, the variants by turns, and measure how far each tensor was from that of `rows`.

    Args:
        rows: of the run that the snapshot keeps, each tensor whole, whatever the snapshot keeps of it.
        overrides: those of the snapshot; a variant has its own beside them.
    Raises:
        ComparisonError: a run took other steps, or a tensor had no finite difference.
        RunError: a run failed.
    """
    spread: dict[str, float] = {}
    for number in range(runs):
        variant = tried[number % len(tried)]
        with _threads(variant.threads):
            plan = plan_of(config, (*overrides, *variant.overrides), allowed)
            for name, apart in _distances(plan, rows, columns, variant).items():
                spread[name] = max(spread.get(name, 0.0), apart)
    return Calibration(runs, _told(tried[:runs]), str(torch.__version__), spread)


def _distances(plan: Plan, rows: Sequence[AnyRow], columns: Sequence[Column], variant: Variant) -> Mapping[str, float]:
    """The largest absolute difference of each tensor in one run."""
    largest: dict[str, float] = {}
    for found, expected in align(execute(plan), rows):
        if found is None or expected is None:
            message = f"a run of {plan.name} {_named(variant)} took other steps than the snapshot"
            raise ComparisonError(Problem(message))
        for column in columns:
            apart = _distance(found[column.name], expected[column.name], column.name, variant)
            if apart is not None:
                largest[column.name] = max(largest.get(column.name, 0.0), apart)
    return largest


def _distance(found: Value, expected: Value, name: str, variant: Variant) -> float | None:
    assert not isinstance(found, Condensed)
    assert not isinstance(expected, Condensed)
    if found is None and expected is None:
        return None
    told = difference(found, expected, _ANY_DIFFERENCE)
    if told is None:
        return 0.0
    apart = None if told.values is None else told.values.passing.atol
    if apart is None:
        message = f"in a run {_named(variant)} `{name}` was missing, new, not finite, or of another shape"
        raise ComparisonError(Problem(message))
    return apart


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _named(variant: Variant) -> str:
    threads = f"on {variant.threads} thread{'' if variant.threads == 1 else 's'}"
    return " ".join([threads, *(f"with {override}" for override in variant.overrides)])


def _told(tried: Sequence[Variant]) -> str:
    threads = sorted({variant.threads for variant in tried})
    over = dict.fromkeys(override for variant in tried for override in variant.overrides)
    return "; ".join([f"threads {', '.join(map(str, threads))}", *over])
