"""Foreign cases as tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from .attempts import Attempt, attempts_in, attempts_of
from .cases import FOLDER, cases_folder


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "attempt" not in metafunc.fixturenames:
        return
    folder = cases_folder()
    if folder is None:
        reason = f"{FOLDER} names no folder of cases"
        metafunc.parametrize("attempt", [pytest.param(None, marks=pytest.mark.skip(reason), id="no-cases")])
        return
    attempts = [attempt for attempt in attempts_in(folder) if not attempt.slow or _of_a_pair(attempt)]
    if not attempts:
        raise pytest.UsageError(f"{FOLDER}={folder} holds no cases")
    marks = {True: [pytest.mark.slow], False: []}
    metafunc.parametrize(
        "attempt", [pytest.param(attempt, id=str(attempt), marks=marks[attempt.slow]) for attempt in attempts]
    )


def _of_a_pair(attempt: Attempt) -> bool:
    """Whether a slow attempt is tried: each dtype once, and each way of stepping once; `page.py` tries all four."""
    if len({each.optimizer for each in attempts_of(attempt.case)}) == 1:
        return True
    return (attempt.dtype == "float64") == (attempt.optimizer == "rule")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def counted(attempt: Attempt, record_property: Any) -> None:
    """Counts the test in the table of sources."""
    record_property("conformance", attempt.case.source)
