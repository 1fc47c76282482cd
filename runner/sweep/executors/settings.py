"""What the processes of a sweep need to run its points."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runner.plan import PlanLimits
from runner.sweep.points.space import without_sweep
from runner.sweep.record.config import load_sweep
from runner.sweep.single import Work


@dataclass(frozen=True, slots=True)
class Settings:
    """How to run the points of a sweep directory."""

    threads: int = 1
    allowed: tuple[Path, ...] = ()
    limits: PlanLimits | None = None
    objective: str | None = None
    recent: int = 0
    exact: bool = True  # whether lanes must have the bits of runs alone

    def work(self, directory: Path) -> Work:
        """The work of a sweep directory."""
        config = load_sweep(directory, self.allowed)
        base = without_sweep(config)
        return Work(base, directory, self.allowed, self.limits, self.objective, self.recent, self.exact)
