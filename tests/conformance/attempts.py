"""Which runs the cases come to: each in both dtypes, with torch's optimizer, its own equations, or both."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import runner

from .cases import DTYPES, Case, load_cases

NEEDS_RULES = "needs rules (not built yet)"

A_RULE = "parameters: {x: 1}\nexpression: x * x\noptimizer: {rule: {update: param = param - grad}}\nsteps: 1\n"


@dataclass(frozen=True, slots=True, eq=False)
class Attempt:
    """One case in one dtype with one way of stepping."""

    case: Case
    dtype: str
    optimizer: str  # "torch", "rule", or "" where nothing steps

    def __str__(self) -> str:
        return "-".join(part for part in (self.case.id, self.dtype, self.optimizer) if part)

    @property
    def slow(self) -> bool:
        return bool(self.case.record.get("slow"))

    def compares(self, key: str) -> bool:
        """Whether a result is to be compared: a source names its state as torch's optimizers do not."""
        return key not in self.case.skipped_keys(self.dtype) and (self.optimizer == "rule" or ":state:" not in key)


@functools.lru_cache(maxsize=1)
def attempts_in(folder: Path) -> list[Attempt]:
    """The runs of every case below `folder`."""
    return [attempt for case in load_cases(folder) for attempt in attempts_of(case)]


def attempts_of(case: Case) -> Iterator[Attempt]:
    """The runs of one case. Its equations are run too where rules are built, else only where nothing else is."""
    spec = case.record.get("optimizer")
    known = (spec or {}).get("torch") or {}
    ways = []
    if spec is None:
        ways.append("")
    elif known.get("reproduces"):
        ways.append("torch")
    if spec is not None and spec.get("rule") and (rules_are_built() or not ways):
        ways.append("rule")
    for dtype in DTYPES:
        for way in ways:
            yield Attempt(case, dtype, way)


@functools.lru_cache(maxsize=1)
def rules_are_built() -> bool:
    """Whether the language takes an optimizer written as equations yet."""
    try:
        runner.loads(A_RULE)
    except runner.ConfigError as refusal:
        if "not built yet" in str(refusal):
            return False
        raise
    return True
