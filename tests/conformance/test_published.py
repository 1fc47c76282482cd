"""Numbers of textbooks, tables, documentation and other suites, which `published` states with their sources."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from torch import Tensor

from .attempts import attempts_of
from .cases import DTYPES, Case, expected_results, load_cases
from .comparison import differences
from .engines import outcome_under
from .running import run_job
from .trained import joined_job

CASES = load_cases(Path(__file__).parent / "published")
SOURCES = sorted({case.source for case in CASES})

COMPILED = (
    "mathematics/complex_gradient",
    "mathematics/eigenvalues",
    "libraries/numpy_cov",
    "libraries/numpy_windows",
    "libraries/numpy_fft",
    "operators/conv_transpose",
    "operators/scatter",
    "operators/cross_entropy",
    "operators/margin_losses",
    "operators/ctc_impossible",
)
"""Cases of different rules of XLA, that compile in seconds together; `test_database.py` has most other rules."""


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("source", SOURCES)
def test_expressions_have_the_published_values_and_gradients(source: str, dtype: str) -> None:
    chosen = [case for case in CASES if case.source == source and case.kind == "expr" and case.tolerances(dtype)]
    assert missed(chosen, found(chosen, dtype, "eager"), dtype) == []


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_steps_and_minima_are_the_published_ones(dtype: str) -> None:
    attempts = [attempt for case in CASES if case.kind != "expr" for attempt in attempts_of(case)]
    outcomes = {str(each): outcome_under("eager", each) for each in attempts if each.dtype == dtype}
    assert {name: why for name, (kind, why) in outcomes.items() if kind not in ("pass", "not stated")} == {}
    assert sum(kind == "pass" for kind, _ in outcomes.values()) > 30


@pytest.mark.slow
def test_the_numbers_of_xla_are_the_published_ones() -> None:
    pytest.importorskip("jax")
    chosen = [case for case in CASES if case.id in COMPILED]
    assert len(chosen) == len(COMPILED)
    assert missed(chosen, found(chosen, "float64", "xla"), "float64") == []


def test_each_number_has_a_source() -> None:
    assert len({case.id for case in CASES}) == len(CASES)
    assert [case.id for case in CASES if len(case.record["source"]) < 10 or not expected_results(case)] == []


def found(cases: Iterable[Case], dtype: str, engine: str) -> Mapping[str, Tensor]:
    """The results of one config of all cases, by the case's identity and the key."""
    cases = list(cases)
    if not cases:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        return run_job(joined_job(cases, dtype, engine), Path(folder))


def missed(cases: Iterable[Case], results: Mapping[str, Tensor], dtype: str) -> list[str]:
    """Every number that the results miss."""
    faults: list[str] = []
    for case in cases:
        expected = {f"{case.id} {key}": value for key, value in expected_results(case).items()}
        tolerance = case.tolerances(dtype)
        assert tolerance is not None
        faults += map(str, differences(results, expected, tolerance))
    return faults
