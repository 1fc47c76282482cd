"""State under a source's names, scales and shapes, with torch's optimizers and with the source's equations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from .attempts import attempts_of
from .cases import DTYPES, Case
from .configs import job_of
from .evaluation import evaluated
from .outcomes import missed_by
from .state_sources import ITERATIONS, NEAR, SOURCES, START, ZEROS, optimizer, rule
from .states import RELATIONS, torch_views


def array(value: torch.Tensor) -> dict[str, Any]:
    return {"dtype": "float64", "shape": list(value.shape), "data": value.reshape(-1).tolist()}


def by_hand(spec: Mapping[str, Any], start: Any) -> list[dict[str, Any]]:
    """The state after every iteration of sum(p ** 4 / 4), of which the gradient is p ** 3."""
    p = torch.tensor(start, dtype=torch.float64)
    state = {name: evaluated(text, {"p": p, **spec["hyper"]}) for name, text in spec["rule"]["state"].items()}
    entries = []
    for t in range(1, ITERATIONS + 1):
        scope = {**spec["hyper"], **state, "p": p, "g": p**3, "t": t}
        for name, expression in spec["rule"]["update"]:
            scope[name] = evaluated(expression, scope)
        p, state = scope["p"], {name: torch.as_tensor(scope[name], dtype=torch.float64) for name in state}
        entries.append({"iteration": t, "state": {"x": {name: array(value) for name, value in state.items()}}})
    return entries


def made(spec: Mapping[str, Any], start: Any, **fields: Any) -> Case:
    record = {
        "id": "made",
        "kind": "train",
        "params": {"x": array(torch.tensor(start, dtype=torch.float64))},
        "loss": "torch.sum(x ** 4) / 4",
        "optimizer": spec,
        "iterations": ITERATIONS,
        "expected": by_hand(spec, start),
        "tolerance": {"float64": {"atol": 1e-11, "rtol": 1e-9}, "float32": {"atol": 1e-6, "rtol": 3e-5}},
    }
    return Case("made", Path("made"), record | fields)


@pytest.mark.parametrize("source", SOURCES)
def test_state_under_a_sources_names_is_compared_with_both_ways_of_stepping(source: str) -> None:
    spec, related, start = SOURCES[source]
    case = made(spec, start, **NEAR.get(source, {}))
    attempts = list(attempts_of(case))
    assert [str(attempt) for attempt in attempts] == [
        f"made-{dtype}-{way}" for dtype in DTYPES for way in ("torch", "rule")
    ]
    for attempt in attempts:
        compared = {key.split(":")[3] for key in attempt.expected()}
        assert compared == (set(related) if attempt.optimizer == "torch" else set(spec["rule"]["state"]))
        assert missed_by(attempt) == []


@pytest.mark.parametrize("source", SOURCES)
def test_a_relation_is_found_by_the_equations_and_not_by_the_name(source: str) -> None:
    spec, related, start = SOURCES[source]
    case = made(spec, start, **NEAR.get(source, {}))
    found = torch_views(case, "x", case.record["expected"][0]["state"]["x"])
    assert {name: key for name, (key, _) in found.items()} == related


def test_every_class_of_torch_with_state_has_a_source_under_other_names() -> None:
    covered = {spec["torch"]["class"] for spec, _, _ in SOURCES.values()}
    assert set(RELATIONS) - covered == {"Muon"}


def test_state_off_by_one_per_cent_is_a_difference() -> None:
    spec, related, start = SOURCES["rmsprop, the learning rate inside"]
    case = made(spec, start)
    for name in related:
        wrong = case.record["expected"][-1]["state"]["x"][name]
        case.record["expected"][-1]["state"]["x"][name] = wrong | {"data": [1.01 * value for value in wrong["data"]]}
    for attempt in attempts_of(case):
        missed = missed_by(attempt)
        assert missed is not None
        assert {difference.key for difference in missed} == {f"{ITERATIONS}:state:x:{name}" for name in related}


def test_state_that_torch_does_not_keep_is_left_to_the_equations() -> None:
    """An epsilon inside the root, and the square of the average beside it."""
    spec = optimizer(
        "Adagrad",
        {"lr": 0.1},
        {"lr": 0.1},
        rule({"h": ZEROS, "last": ZEROS}, ["h", "h + g * g"], ["last", "g"], ["p", "p - lr * g / torch.sqrt(h)"]),
    )
    case = made(spec, START)
    expected = {attempt.optimizer: attempt.expected() for attempt in attempts_of(case)}
    assert {key.split(":")[3] for key in expected["torch"]} == {"h"}
    assert {key.split(":")[3] for key in expected["rule"]} == {"h", "last"}


def test_without_equations_the_name_decides() -> None:
    spec, _, start = SOURCES["adam"]
    case = made(spec, start, optimizer=spec | {"rule": None})
    assert [attempt.optimizer for attempt in attempts_of(case)] == ["torch", "torch"]
    assert all(missed_by(attempt) == [] and attempt.expected() for attempt in attempts_of(case))


def test_state_of_lbfgs_is_not_compared() -> None:
    """torch keeps it for all parameters together, and a run records none of it."""
    spec = {"algo": "lbfgs", "hyper": {}, "rule": None, "torch": {"class": "LBFGS", "kwargs": {"max_iter": 2}}}
    case = made(SOURCES["adam"][0], START, optimizer=spec)
    assert [attempt.expected() for attempt in attempts_of(case)] == [{}, {}]


@pytest.mark.parametrize("name", ["lambda", "not", "param", "grad", "step", "state", "iteration", "sum", "type", "t2"])
def test_state_and_hyperparameters_take_any_name(name: str) -> None:
    equations = rule({name: ZEROS}, [name, f"0.9 * {name} + g"], ["param_", "g"], ["p", f"p - 0.1 * {name}"])
    spec = optimizer("SGD", {"lr": 0.1, "momentum": 0.9}, {"in": 0.1}, equations)
    for attempt in attempts_of(made(spec, START)):
        assert missed_by(attempt) == []
        assert attempt.expected()


def test_state_of_another_shape_starts_from_given_values() -> None:
    spec, _, start = SOURCES["adafactor of a matrix"]
    given = {"x": {"r": array(torch.tensor([0.0, 0.0])), "c": array(torch.tensor([0.0, 0.0, 0.0]))}}
    case = made(spec | {"initial_state": given}, start)
    assert "start_state" not in job_of(case, "float64", "rule").text
    assert [missed_by(attempt) for attempt in attempts_of(case)] == [[], [], [], []]
