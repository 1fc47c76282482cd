"""Runs sweeps in this process: no test waits for another one to import torch."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from runner.sweep import running
from runner.sweep.executors.here import Here
from runner.sweep.executors.settings import Settings


class Inline(Here):
    """In place of the pool of processes."""

    def __init__(self, directory: Path, settings: Settings, *, first: int, **_: Any) -> None:
        super().__init__(directory, settings, itertools.count(first).__next__)


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Points that are no lanes run in this process."""
    monkeypatch.setattr(running, "Processes", Inline)
