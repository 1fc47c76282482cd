"""What the processes of a sweep need to run its points."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runner.config import Config, Limits, loads, overridden
from runner.plan import PlanLimits
from runner.sweep.work import Work

SWEEP_FILE = "sweep.yaml"


@dataclass(frozen=True, slots=True)
class Settings:
    """How to run the points of a sweep directory."""

    threads: int = 1
    allowed: tuple[Path, ...] = ()
    limits: PlanLimits | None = None
    objective: str | None = None
    recent: int = 0

    def work(self, directory: Path) -> Work:
        """The work of a sweep directory."""
        config = load_sweep(directory, self.allowed)
        return Work(without_sweep(config), directory, self.allowed, self.limits, self.objective, self.recent)


def load_sweep(directory: Path, allowed: tuple[Path, ...]) -> Config:
    """The resolved config of a sweep directory."""
    path = directory / SWEEP_FILE
    return loads(path.read_bytes(), directory, name=str(path), limits=Limits(), allowed_folders=allowed)


def without_sweep(config: Config) -> Config:
    """The config without its sweep, as `run` takes it."""
    return config if config.sweep is None else overridden(config, ["~sweep"])
