"""What all tests share: one torch thread in each process, and properties that are never timed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.conformance.table import pytest_terminal_summary
from tests.effort import choose_effort

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, so that workers do not fight over the cores

settings.register_profile("steprun", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steprun")


def pytest_configure(config: pytest.Config) -> None:
    choose_effort(config.option.markexpr)


@pytest.fixture(scope="session")
def inductor_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What torch compiles is kept for all tests of a session, in all its processes, and for no other session."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "inductor"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
        yield folder


__all__ = ["pytest_terminal_summary"]  # a hook: the process that reports to the terminal reads no conftest but this
