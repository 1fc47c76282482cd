"""Other people's published numbers, recomputed by configs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from .attempts import Attempt
from .comparison import same_bits
from .expressions import UnsayableError
from .outcomes import found_by, missed_by
from .reference import reference_results
from .table import UNSAID
from .uncertainty import beyond_uncertainty


@pytest.mark.usefixtures("counted")
def test_a_config_finds_the_numbers_that_the_source_states(attempt: Attempt) -> None:
    with _skipped_where_unsaid():
        missed = missed_by(attempt)
    if missed is None:
        pytest.skip(f"the source states nothing in {attempt.dtype}")
    assert [str(miss) for miss in missed and beyond_uncertainty(attempt, missed)] == []


def test_a_config_gives_the_bits_of_torch_written_by_hand(attempt: Attempt) -> None:
    if attempt.optimizer == "rule":
        pytest.skip("a rule agrees with torch to rounding, not bit for bit")
    if attempt.slow:
        pytest.skip("takes over ten seconds by hand")
    with _skipped_where_unsaid():
        found = found_by(attempt)
    by_hand = reference_results(attempt.case, attempt.dtype)
    assert [key for key, value in found.items() if not same_bits(value, by_hand[key])] == []


@contextmanager
def _skipped_where_unsaid() -> Iterator[None]:
    try:
        yield
    except UnsayableError as reason:
        pytest.skip(f"{UNSAID}{reason}")
