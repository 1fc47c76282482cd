"""NIST's nonlinear problems, driven to the certified parameters by L-BFGS."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from .cases import FOLDER, Case, cases_folder, load_cases
from .fitting import digits_reached, fitted
from .page import CASES_SAID, FITS_SAID, PAGE, WRITTEN, problem_name, promised_digits
from .promises import PROMISES


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "problem" not in metafunc.fixturenames:
        return
    folder = cases_folder()
    found = [case for case in load_cases(folder) if case.source == "nist_nonlinear"] if folder else []
    skipped = pytest.param(None, marks=pytest.mark.skip(f"{FOLDER} names no folder with nist_nonlinear"), id="no-cases")
    metafunc.parametrize("problem", [pytest.param(case, id=problem_name(case)) for case in found] or [skipped])


@pytest.mark.slow
def test_lbfgs_reaches_the_certified_parameters_from_start_2(problem: Case, record_property: Any) -> None:
    promise = PROMISES[problem_name(problem)]
    certified = problem.record["certified"]["params"]
    start = problem.record["starts"]["start2"]
    begun = digits_reached(start, certified)
    reached = digits_reached(fitted(problem, start, promise.directions), certified)
    record_property("digits", (problem_name(problem), begun, reached, promise.directions, promise.remark))
    assert begun < 3
    assert reached >= promise.digits


def test_the_hessians_directions_lead_where_single_parameters_do_not() -> None:
    """A valley a thousand times longer than wide, turned away from the axes."""
    record = {
        "params": {"a": [1.0], "c": [1.0]},
        "constants": {},
        "lets": [["along", "a + c - 3"], ["across", "1000 * (a - c + 1)"]],
        "loss": "along ** 2 + across ** 2 + 1",
    }
    found = fitted(Case("made", Path("made"), record), [0.5, 4.0])
    assert digits_reached(found, [1.0, 2.0]) > 6


def test_digits_are_those_of_the_worst_parameter() -> None:
    assert digits_reached([2.0, 300.03], [2.0, 300.0]) == pytest.approx(4)
    assert digits_reached([2.0, 300.0], [2.0, 300.0]) == 11
    assert digits_reached([-2.0], [2.0]) < 0
    assert digits_reached([2.0, math.nan], [2.0, 300.0]) == -math.inf


def test_the_page_claims_what_is_held() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text.startswith(WRITTEN)
    assert all(said in text for said in (CASES_SAID, FITS_SAID))
    assert promised_digits(text) == {name: promise.digits for name, promise in PROMISES.items()}
