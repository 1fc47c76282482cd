"""The config of a sweep directory."""

from __future__ import annotations

from pathlib import Path

from runner.config import Config, Limits, loads

SWEEP_FILE = "sweep.yaml"


def load_sweep(directory: Path, allowed: tuple[Path, ...]) -> Config:
    """The resolved config of a sweep directory."""
    path = directory / SWEEP_FILE
    return loads(path.read_bytes(), directory, name=str(path), limits=Limits(), allowed_folders=allowed)
