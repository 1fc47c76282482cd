"""The comparison notices a fault of one per cent: in a learning rate, a coefficient, or an expected value."""

from __future__ import annotations

import ast
import copy
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from .attempts import Attempt, attempts_in
from .cases import FOLDER, Case, cases_folder
from .comparison import differences
from .configs import job_of
from .reference import reference_results
from .running import run_job

OFF = 1.01
ITERATIONS = 120
"""Longer cases are left out: their faults are found by the same comparison and take minutes."""


def _faulty_learning_rate(record: dict[str, Any]) -> bool:
    spec = record.get("optimizer") or {}
    if spec.get("lr_schedule"):
        spec["lr_schedule"] = [rate * OFF for rate in spec["lr_schedule"]]
        return True
    if "lr" in ((spec.get("torch") or {}).get("kwargs") or {}):
        spec["torch"]["kwargs"]["lr"] *= OFF
        return True
    return False


def _faulty_coefficient(record: dict[str, Any]) -> bool:
    """Scales the first written coefficient; without one, the last expression, whose coefficient is an unwritten 1."""
    places: list[tuple[Any, Any]] = [(let, 1) for let in record.get("lets") or ()]
    places += [(output, "expr") for output in record.get("outputs") or ()]
    places += [(record, "loss")] if record.get("loss") else []
    for owner, key in places:
        scaled = _Scaling()
        tree = scaled.visit(ast.parse(owner[key].strip(), mode="eval"))
        if scaled.done:
            owner[key] = ast.unparse(tree)
            return True
    owner, key = places[-1]
    owner[key] = f"{OFF} * ({owner[key]})"
    return True


class _Scaling(ast.NodeTransformer):
    """Multiplies the first number that a product or quotient holds."""

    def __init__(self) -> None:
        self.done = False

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        for side in ("left", "right"):
            number = getattr(node, side)
            factor = isinstance(node.op, ast.Mult | ast.Div) and isinstance(number, ast.Constant)
            if factor and not self.done and isinstance(number.value, int | float) and number.value != 0:
                setattr(node, side, ast.Constant(number.value * OFF))
                self.done = True
        return self.generic_visit(node)


MUTATIONS: Mapping[str, Callable[[dict[str, Any]], bool]] = {
    "learning rate": _faulty_learning_rate,
    "coefficient": _faulty_coefficient,
}


def _sample() -> list[Attempt]:
    folder = cases_folder()
    if folder is None:
        pytest.skip(f"{FOLDER} names no folder of cases")
    return [
        attempt
        for attempt in attempts_in(folder)
        if attempt.dtype == "float32"
        and attempt.optimizer in {"torch", ""}
        and attempt.case.tolerances("float32") is not None
        and attempt.case.record.get("iterations", 0) <= ITERATIONS
    ]


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_config_with_a_fault_of_one_per_cent_fails_the_comparison(mutation: str, record_property: Any) -> None:
    """A fault that hand-written torch shows beyond the tolerance, steprun shows too, and no other."""
    noticed, hidden, disagreed = 0, [], []
    for attempt in _sample():
        record = copy.deepcopy(dict(attempt.case.record))
        if not MUTATIONS[mutation](record):
            continue
        faulty = Case(attempt.case.source, attempt.case.folder, record)
        shown = _misses(_run(faulty), attempt)
        visible = _misses(reference_results(faulty, attempt.dtype), attempt)
        if shown != visible:
            disagreed.append(attempt.case.id)
        elif shown:
            noticed += 1
        else:
            hidden.append(attempt.case.id)
    record_property("mutations", _told(mutation, noticed, hidden))
    assert disagreed == []
    assert noticed >= 0.9 * (noticed + len(hidden)), f"within the sources' tolerances: {hidden}"


def test_an_expected_value_off_by_one_per_cent_fails_the_comparison(record_property: Any) -> None:
    noticed, hidden = 0, []
    for attempt in _sample():
        found = _run(attempt.case)
        for key, value in attempt.expected().items():
            if value.dtype.is_floating_point and value.abs().max() > 0:
                limits = attempt.tolerances()
                assert limits is not None
                if differences(found, {key: value * OFF}, limits):
                    noticed += 1
                else:
                    hidden.append(f"{attempt.case.id} {key}")
    record_property("mutations", _told("expected value", noticed, hidden))
    assert noticed >= 0.9 * (noticed + len(hidden)), f"within the sources' tolerances: {hidden}"


def _told(mutation: str, noticed: int, hidden: list[str]) -> str:
    rest = f", {len(hidden)} within the sources' own tolerances" if hidden else ""
    return f"{mutation} off by 1%: {noticed} of {noticed + len(hidden)} noticed{rest}"


def _run(case: Case) -> dict[str, Tensor]:
    with tempfile.TemporaryDirectory() as folder:
        return run_job(job_of(case, "float32"), Path(folder))


def _misses(found: dict[str, Tensor], attempt: Attempt) -> bool:
    tolerance = attempt.tolerances()
    assert tolerance is not None
    return bool(differences(found, attempt.expected(), tolerance))
