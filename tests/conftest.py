"""What all tests share: one torch thread in each process, so that workers do not fight over the cores."""

from __future__ import annotations

import os

from tests.conformance.table import pytest_terminal_summary

os.environ.setdefault("OMP_NUM_THREADS", "1")

__all__ = ["pytest_terminal_summary"]  # a hook: the process that reports to the terminal reads no conftest but this
