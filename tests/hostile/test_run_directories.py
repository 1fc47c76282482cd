"""Hostile run directories; `python -m tests.hostile.run_directories` tries as many as there is time for."""

from __future__ import annotations

import warnings
from collections import Counter

import pytest

from tests.hostile.run_directories import MUTATIONS, tried


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_mutated_run_directory_ends_in_faults_of_ours_alone(mutation: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        count, found = tried(mutation, 0, lambda count: count < 30)
    assert (count, found) == (30, Counter())
