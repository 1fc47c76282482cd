"""What all tests share: one torch thread in each process, and properties that are never timed."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

from tests.conformance.table import pytest_terminal_summary

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, so that workers do not fight over the cores

settings.register_profile("steprun", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steprun")

__all__ = ["pytest_terminal_summary"]  # a hook: the process that reports to the terminal reads no conftest but this
