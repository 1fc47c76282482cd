"""What all tests share: one torch thread in each process, and properties that are never timed."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.conformance.table import pytest_terminal_summary
from tests.effort import choose_effort

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, so that workers do not fight over the cores
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # a test with two threads would keep both cores busy with waiting
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # each process that a test starts would compile the package anew
sys.dont_write_bytecode = False
_OF_THE_CALLER = """COLUMNS LINES NO_COLOR FORCE_COLOR PY_COLORS CLICOLOR CLICOLOR_FORCE TTY_COMPATIBLE TTY_INTERACTIVE
    GITHUB_ACTIONS STEPRUN_DEBUG STEPRUN_RUNS_DIR STEPRUN_SWEEPS_DIR"""
"""Variables of a terminal, of CI or of a user that change what steprun prints or where it writes."""

for name in _OF_THE_CALLER.split():
    os.environ.pop(name, None)

settings.register_profile("steprun", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steprun")


def pytest_configure(config: pytest.Config) -> None:
    choose_effort(config.option.markexpr)
    gc.set_threshold(50_000, 20, 20)  # a tenth of the time otherwise: torch alone is a million objects


def pytest_collection_finish() -> None:
    for name in ("common_utils", "opinfo.core"):
        module: Any = sys.modules.get(f"torch.testing._internal.{name}")
        if module is not None:  # for each sample, torch looks through the stack for a test of unittest: 5/6 of the time
            module.extract_test_fn = lambda: None
    gc.freeze()  # modules and tests live to the end, and no collection need visit them


@pytest.fixture(scope="session", autouse=True)
def inductor_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What torch compiles is kept for all tests of a session, in all its processes, and for no other session."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "inductor"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
        yield folder


__all__ = ["pytest_terminal_summary"]  # a hook: the process that reports to the terminal reads no conftest but this
