"""How far apart the runs of one config lie, measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from runner.compare.differences import difference
from runner.compare.snapshots import Calibration, Snapshot
from runner.compare.taking import plan_of
from runner.compare.tolerances import Tolerance
from runner.compare.verdict import align
from runner.engine import execute
from runner.errors import ComparisonError, Problem

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
    config: Path, snapshot: Snapshot, runs: int, tried: Sequence[Variant], allowed: Sequence[str] = ()
) -> Calibration:
    """Run a config `runs` times, the variants by turns, and measure how far each tensor was from the snapshot.

    Raises:
        ComparisonError: a run took other steps, or a tensor had no finite difference.
        RunError: a run failed.
    """
    spread: dict[str, float] = {}
    for number in range(runs):
        variant = tried[number % len(tried)]
        with _threads(variant.threads):
            for name, apart in _distances(config, snapshot, variant, allowed).items():
                spread[name] = max(spread.get(name, 0.0), apart)
    return Calibration(runs, _told(tried[:runs]), str(torch.__version__), spread)


def _distances(config: Path, snapshot: Snapshot, variant: Variant, allowed: Sequence[str]) -> Mapping[str, float]:
    """The largest absolute difference of each tensor in one run; those that were kept without elements are left out."""
    plan = plan_of(config, variant.overrides, allowed)
    largest: dict[str, float] = {}
    for found, expected in align(execute(plan), snapshot.rows):
        if found is None or expected is None:
            raise ComparisonError(Problem(f"a run of {config} {_named(variant)} took other steps than the snapshot"))
        for column in snapshot.columns:
            a, b = found[column.name], expected[column.name]
            if isinstance(b, Tensor):
                largest[column.name] = max(largest.get(column.name, 0.0), _distance(a, b, column.name, variant))
    return largest


def _distance(found: object, expected: Tensor, name: str, variant: Variant) -> float:
    assert found is None or isinstance(found, Tensor)
    told = difference(found, expected, _ANY_DIFFERENCE)
    if told is None:
        return 0.0
    apart = None if told.values is None else told.values.passing.atol
    if apart is None:
        message = f"in a run {_named(variant)} `{name}` was missing, not finite, or of another shape"
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
