"""Other people's published numbers, recomputed by configs."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import pytest
from torch import Tensor

from .attempts import NEEDS_RULES, Attempt, rules_are_built
from .cases import expected_results
from .comparison import differences, same_bits
from .configs import job_of
from .conftest import UNSAID
from .expressions import UnsayableError
from .reference import reference_results
from .running import run_job


@pytest.mark.usefixtures("counted")
def test_a_config_finds_the_numbers_that_the_source_states(attempt: Attempt) -> None:
    tolerance = attempt.case.tolerances(attempt.dtype)
    if tolerance is None:
        pytest.skip(f"the source states nothing in {attempt.dtype}")
    expected = {key: value for key, value in expected_results(attempt.case).items() if attempt.compares(key)}
    assert not differences(_found(attempt), expected, tolerance)


def test_a_config_gives_the_bits_of_torch_written_by_hand(attempt: Attempt) -> None:
    if attempt.optimizer == "rule":
        pytest.skip("a rule agrees with torch to rounding, not bit for bit")
    if attempt.slow:
        pytest.skip("takes over ten seconds by hand")
    by_hand = reference_results(attempt.case, attempt.dtype)
    found = _found(attempt)
    assert [key for key, value in found.items() if not same_bits(value, by_hand[key])] == []


def _found(attempt: Attempt) -> dict[str, Tensor]:
    """The results of an attempt; skips the test where the language cannot say the case."""
    if attempt.optimizer == "rule" and not rules_are_built():
        pytest.skip(UNSAID + NEEDS_RULES)
    try:
        return _run(attempt)
    except UnsayableError as reason:
        pytest.skip(f"{UNSAID}{reason}")


@functools.cache
def _run(attempt: Attempt) -> dict[str, Tensor]:
    with tempfile.TemporaryDirectory() as folder:
        return run_job(job_of(attempt.case, attempt.dtype, attempt.optimizer), Path(folder))
