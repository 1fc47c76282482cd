"""Other people's published numbers, recomputed by configs."""

from __future__ import annotations

import functools
import re
import tempfile
from pathlib import Path

import pytest
from torch import Tensor

import runner

from .attempts import NOTHING_STEPS, Attempt
from .cases import expected_results
from .comparison import differences, same_bits
from .configs import job_of
from .expressions import UnsayableError
from .reference import reference_results
from .running import run_job
from .table import UNSAID

CLOSED = re.compile("there is no operation|is not available|cannot be called")
"""What the language says of a word it does not have; any other refusal of a case is a fault."""


@pytest.mark.usefixtures("counted")
def test_a_config_finds_the_numbers_that_the_source_states(attempt: Attempt) -> None:
    tolerance = attempt.case.tolerances(attempt.dtype)
    if tolerance is None:
        pytest.skip(f"the source states nothing in {attempt.dtype}")
    expected = {key: value for key, value in expected_results(attempt.case).items() if attempt.compares(key)}
    assert [str(missed) for missed in differences(_found(attempt), expected, tolerance)] == []


def test_a_config_gives_the_bits_of_torch_written_by_hand(attempt: Attempt) -> None:
    if attempt.optimizer == "rule":
        pytest.skip("a rule agrees with torch to rounding, not bit for bit")
    if attempt.slow:
        pytest.skip("takes over ten seconds by hand")
    found = _found(attempt)
    by_hand = reference_results(attempt.case, attempt.dtype)
    assert [key for key, value in found.items() if not same_bits(value, by_hand[key])] == []


def _found(attempt: Attempt) -> dict[str, Tensor]:
    """The results of an attempt; skips the test where the language cannot say the case."""
    if attempt.optimizer == "nothing":
        pytest.skip(UNSAID + NOTHING_STEPS)
    try:
        return _run(attempt)
    except UnsayableError as reason:
        pytest.skip(f"{UNSAID}{reason}")
    except runner.ConfigError as refusal:
        if not all(CLOSED.search(problem.message) for problem in refusal.problems):
            raise
        pytest.skip(UNSAID + "; ".join(problem.message for problem in refusal.problems))


@functools.cache
def _run(attempt: Attempt) -> dict[str, Tensor]:
    with tempfile.TemporaryDirectory() as folder:
        return run_job(job_of(attempt.case, attempt.dtype, attempt.optimizer), Path(folder))
