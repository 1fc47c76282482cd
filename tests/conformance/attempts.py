"""Which runs the cases come to: each in both dtypes, with torch's optimizer, its own equations, or both."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .cases import DTYPES, Case, load_cases

NOTHING_STEPS = "no class of torch.optim meets the case, and it states no equations"


@dataclass(frozen=True, slots=True, eq=False)
class Attempt:
    """One case in one dtype with one way of stepping."""

    case: Case
    dtype: str
    optimizer: str  # "torch", "rule", "nothing" that could be said, or "" where nothing steps

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
    """The runs of one case: with torch's class where that meets it, and with its own equations."""
    for dtype in DTYPES:
        for way in _ways(case.record.get("optimizer")):
            yield Attempt(case, dtype, way)


def _ways(spec: Mapping[str, Any] | None) -> list[str]:
    if spec is None:
        return [""]
    known, equations = spec.get("torch") or {}, spec.get("rule") is not None
    ways = ["torch"] if known.get("reproduces", known and not equations) else []
    if equations:
        ways.append("rule")
    return ways or ["nothing"]
