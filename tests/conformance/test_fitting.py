"""NIST's nonlinear problems, driven to the certified parameters by L-BFGS."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .cases import FOLDER, Case, cases_folder, load_cases
from .fitting import HESSIAN, SCALE, digits_reached, fitted


@dataclass(frozen=True, slots=True)
class Promise:
    """The digits that a problem reaches at least, along which directions, and what stands in the way of more."""

    digits: float
    directions: str = HESSIAN
    remark: str = ""


CLOSE_RATES = "three decays of close rates: many parameters fit almost as well"
PROMISES: Mapping[str, Promise] = {
    "Bennett5": Promise(
        5, SCALE, "a line search along the Hessian's directions leaves the model's domain and ends in NaN"
    ),
    "BoxBOD": Promise(7),
    "Chwirut1": Promise(7),
    "Chwirut2": Promise(7),
    "DanWood": Promise(7),
    "ENSO": Promise(6),
    "Eckerle4": Promise(7),
    "Gauss1": Promise(7),
    "Gauss2": Promise(7),
    "Gauss3": Promise(7),
    "Hahn1": Promise(6),
    "Kirby2": Promise(6),
    "Lanczos1": Promise(6, remark=CLOSE_RATES),
    "Lanczos2": Promise(6, remark=CLOSE_RATES),
    "Lanczos3": Promise(5, remark=CLOSE_RATES),
    "MGH09": Promise(6),
    "MGH10": Promise(6),
    "MGH17": Promise(6),
    "Misra1a": Promise(6),
    "Misra1b": Promise(7),
    "Misra1c": Promise(6),
    "Misra1d": Promise(7),
    "Nelson": Promise(6),
    "Rat42": Promise(7),
    "Rat43": Promise(6),
    "Roszman1": Promise(7),
    "Thurber": Promise(6),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "problem" not in metafunc.fixturenames:
        return
    folder = cases_folder()
    found = [case for case in load_cases(folder) if case.source == "nist_nonlinear"] if folder else []
    skipped = pytest.param(None, marks=pytest.mark.skip(f"{FOLDER} names no folder with nist_nonlinear"), id="no-cases")
    metafunc.parametrize("problem", [pytest.param(case, id=_name(case)) for case in found] or [skipped])


@pytest.mark.slow
def test_lbfgs_reaches_the_certified_parameters_from_start_2(problem: Case, record_property: Any) -> None:
    promise = PROMISES[_name(problem)]
    certified = problem.record["certified"]["params"]
    start = problem.record["starts"]["start2"]
    begun = digits_reached(start, certified)
    reached = digits_reached(fitted(problem, start, promise.directions), certified)
    record_property("digits", (_name(problem), begun, reached, promise.directions, promise.remark))
    assert begun < 3
    assert reached >= promise.digits


def test_the_table_of_the_documentation_claims_what_is_held() -> None:
    text = (Path(__file__).parents[2] / "docs" / "conformance.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| (-?[\d.]+) \| ([\d.]+) \| (\d+) \|$", text, re.MULTILINE)
    assert {name: float(held) for name, _, _, held in rows} == {name: each.digits for name, each in PROMISES.items()}
    assert all(float(begun) < 3 and float(reached) >= float(held) for _, begun, reached, held in rows)


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


def _name(case: Case) -> str:
    return case.id.rpartition("/")[2]
