"""Which runs the cases come to: each in both dtypes, with torch's optimizer, its own equations, or both."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from .cases import DTYPES, Case, expected_results, load_cases
from .states import COARSE, COARSE_RTOL, kept_keys

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

    def expected(self) -> dict[str, Tensor]:
        """What is to be compared, by result key: with torch's optimizer only that state which it keeps too."""
        results, skipped = expected_results(self.case), self.case.skipped_keys(self.dtype)
        kept = kept_keys(self.case) if self.optimizer == "torch" else results
        return {
            key: value for key, value in results.items() if key not in skipped and (key in kept or ":state:" not in key)
        }

    def tolerances(self) -> Mapping[str, Any] | None:
        """The case's tolerances, wider for scalars that torch keeps in float32; None where it does not hold."""
        stated = self.case.tolerances(self.dtype)
        if stated is None or self.optimizer != "torch":
            return stated
        items = dict(stated.get("items") or {})
        for key, name in kept_keys(self.case).items():
            if name in COARSE:
                limits = items.get(key, stated)
                items[key] = {"atol": limits["atol"], "rtol": max(limits["rtol"], COARSE_RTOL)}
        return {**stated, "items": items}


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
