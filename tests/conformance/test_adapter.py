"""The adapter itself: every field of a case becomes a config that computes the same, down to the bits."""

from __future__ import annotations

import json
import keyword
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tables import over

from .cases import DTYPES, Case, expected_results
from .comparison import differences, same_bits
from .configs import job_of, missing_keys
from .drafting import flow
from .expressions import Names, Scope, UnsayableError, names_in
from .reference import reference_results
from .running import run_job


def array(values: Any, dtype: str = "float64") -> dict[str, Any]:
    tensor = torch.tensor(values, dtype=getattr(torch, dtype))
    return {"dtype": dtype, "shape": list(tensor.shape), "data": tensor.reshape(-1).tolist()}


def outputs(**expressions: str) -> list[dict[str, Any]]:
    return [{"name": name, "expr": expression, "expected": array(0.0)} for name, expression in expressions.items()]


def sgd(rate: float = 0.1, **more: Any) -> dict[str, Any]:
    return {"algo": "sgd", "hyper": {"lr": rate}, "torch": {"class": "SGD", "kwargs": {"lr": rate}}} | more


X = array([[0.5, -1.5, 2.0], [3.0, 0.25, -0.75]])
V = array([0.3, -0.7, 1.1])
S = array(0.4)
LARGE = array(torch.linspace(-1, 1, 900).reshape(30, 30).tolist())
NOT_FINITE = {"dtype": "float64", "shape": [3], "data": ["nan", "-inf", 0.5]}
EXPRESSIONS: Mapping[str, dict[str, Any]] = {
    "names that the config reserves": {
        "inputs": {
            "row": X,
            "step": V,
            "iteration": array(2.0),
            "value": array(3.0),
            "training": V,
            "path": array(0.5),
        },
        "lets": [["grad", "row * step + iteration"], ["param", "torch.tanh(grad) * value"]],
        "outputs": outputs(y="torch.sum(param * training) * path"),
        "loss": "y",
        "grads": {"row": X, "step": V, "value": S},
    },
    "names that are functions as well": {
        "inputs": {"sum": X, "t": V, "exp": array(0.2), "norm": array(2.0)},
        "lets": [["real", "torch.sum(sum * t)"]],
        "outputs": outputs(mean="torch.mean(torch.exp(sum)) + exp * norm + real"),
        "loss": "mean",
        "grads": {"sum": X, "t": V},
    },
    "names that are keywords": {
        "inputs": {"not": X, "lambda": V, "in": array(2.0), "match": array(0.5), "class": array([1, 0], "int64")},
        "lets": [["and", "torch.tanh(not * lambda) + in"], ["if", "and.sum(len([1])) * match"], ["or", "(not)[class]"]],
        "outputs": outputs(y="torch.sum(if) + not.sum() - torch.sum(or * and)", **{"is": "y * 2.0", "None_": "-in"}),
        "loss": "is + torch.mean(lambda)",
        "grads": {"not": X, "lambda": V, "in": S, "match": S},
    },
    "outputs that are keywords": {
        "inputs": {"a": array([True, False, True], "bool"), "b": array([True, True, False], "bool")},
        "outputs": outputs(
            **{
                "and": "torch.logical_and(a, b)",
                "or": "torch.logical_or(a, b)",
                "not": "torch.logical_not(a)",
                "lambda": "a ^ b",
                "for": "torch.logical_not(and)",
            }
        ),
    },
    "names bound again": {
        "inputs": {"x": X},
        "lets": [["h", "x * 2.0"], ["h", "torch.sin(h)"], ["h", "h + x"]],
        "outputs": outputs(h="torch.sum(h)", y="h * 2.0"),
        "loss": "y",
        "grads": {"x": X},
    },
    "indices": {
        "inputs": {"x": X, "i": array([2, 0], "int64"), "mask": array([True, False], "bool")},
        "outputs": outputs(
            a="x[:, 1]", b="x[slice(0, 1), slice(None, None, 2)]", c="x[..., i]", d="x[None, -1, slice(2)]", e="x[mask]"
        ),
    },
    "sizes": {
        "inputs": {"x": X, "v": V},
        "outputs": outputs(a="torch.sum(x) / len(x)", b="v * x.shape[1] + len(v.shape)", c="x.sum(len([1]))"),
        "loss": "torch.sum(a * b) * len(x)",
        "grads": {"x": X},
    },
    "python's numbers": {
        "inputs": {"x": X, "s": array(0.4), "u": array([0.9])},
        "outputs": outputs(
            a="x * math.sqrt(2.0) + math.pi * pi",
            b="x * float(s) + math.floor(u)",
            c="max(s, u[0]) * min(3, 2, 4) + min(s, s * 2.0)",
            d="abs(x - max(0.5, 1.5)).clamp(max=float('inf'))",
            e="x * s.item()",
        ),
        "loss": "torch.sum(a) + torch.sum(b) + c + torch.sum(d)",
        "grads": {"x": X, "s": array(0.4), "u": array([0.9])},
    },
    "choices": {
        "inputs": {"x": X, "s": array(0.4)},
        "outputs": outputs(a="x if s > 0 else -x", b="x * 2.0 if 3 > 2 else x", c="x if s > 0 and s > 1 else x * 3.0"),
    },
    "comprehensions": {
        "inputs": {"x": X},
        "outputs": outputs(
            a="torch.stack([x[0, i] * i for i in range(3)])", b="torch.cat([x * k for k in (0.5, 2.0)], dim=0)"
        ),
        "loss": "torch.sum(a) + torch.sum(b)",
        "grads": {"x": X},
    },
    "tensors written out": {
        "inputs": {"x": X},
        "outputs": outputs(a="x * torch.tensor([1.5, 2.0, 0.1])", b="x[torch.tensor([1, 0])]"),
    },
    "integers only": {
        "inputs": {"i": array([[3, 1], [2, 5]], "int64")},
        "outputs": outputs(a="i * i", b="i.sum() % 4"),
    },
    "numbers as outputs": {"inputs": {"x": X}, "outputs": outputs(a="float(len(x)) / 4", b="torch.sum(x) * a")},
    "non-finite and empty": {
        "inputs": {
            "x": {"dtype": "float64", "shape": [4], "data": ["inf", "-inf", "nan", -0.0]},
            "none": {"dtype": "float64", "shape": [0, 3], "data": []},
        },
        "outputs": outputs(a="x * 2.0", b="torch.sum(none, dim=0)", c="torch.isnan(x)", d="1.0 / x"),
    },
    "results that are not finite": {
        "inputs": {"x": array([-1.0, 0.0, 2.0])},
        "outputs": [{"name": "y", "expr": "torch.log(x)", "expected": NOT_FINITE}, *outputs(z="torch.sum(y)")],
        "loss": "z",
        "grads": {"x": NOT_FINITE},
    },
    "large arrays": {
        "inputs": {
            "x": array(torch.linspace(-1, 1, 900).reshape(30, 30).tolist()),
            "i": array(list(range(500)), "int64"),
        },
        "outputs": outputs(a="torch.tanh(x @ x)", b="i.flip(0)"),
        "loss": "torch.sum(a)",
        "grads": {"x": LARGE},
    },
    "an input that the loss does not use": {
        "inputs": {"x": X, "z": V, "unused": V},
        "outputs": outputs(y="torch.sum(x * torch.arange(len(z), dtype=z.dtype))"),
        "loss": "y",
        "grads": {"x": X, "z": V},
    },
}

P = array([1.0, -2.0, 0.5])


def train(iterations: int, *expected: dict[str, Any], **fields: Any) -> dict[str, Any]:
    base = {"params": {"x": P}, "lets": [["h", "x * 2.0"]], "loss": "torch.sum(h * h)", "optimizer": sgd()}
    return base | {"iterations": iterations, "expected": list(expected)} | fields


def at(iteration: int, **fields: Any) -> dict[str, Any]:
    return {"iteration": iteration, "params": {"x": P}} | fields


TRAINING: Mapping[str, dict[str, Any]] = {
    "every field": train(4, at(0), at(1, loss=array(0.0), values={"h": P}, grads={"x": P}), at(4, loss=array(0.0))),
    "constants that change": train(
        3,
        *(at(i, loss=array(0.0), grads={"x": P}) for i in (1, 2, 3)),
        loss="torch.sum(h * g) * torch.exp(s) + torch.sum(k * h)",
        scheduled={
            "g": [P, V, P],
            "s": [array(0.1), array(-0.2), array(0.3)],
            "k": [array([1, 2, 3], "int64"), array([0, 1, 0], "int64"), array([3, 3, 3], "int64")],
        },
    ),
    "constants that change their shape": train(
        3,
        *(at(i, loss=array(0.0), values={"h": P, "aside": P}) for i in (1, 2, 3)),
        lets=[["h", "x * 2.0"], ["aside", "h * torch.mean(g)"]],
        loss="torch.sum((h - torch.mean(g)) ** 2)",
        scheduled={"g": [P, array([[1.0, 2.0]]), array(0.25)]},
    ),
    "a value that the loss does not use": train(
        2,
        at(1, values={"aside": P, "h": P}),
        at(2, values={"aside": P}),
        lets=[["h", "x * 2.0"], ["aside", "torch.sin(x)"]],
    ),
    "a schedule of learning rates": train(4, at(2), at(4), optimizer=sgd(9.0, lr_schedule=[0.1, 0.05, 0.025, 0.0125])),
    "state to start from": train(
        3,
        at(1),
        at(3),
        optimizer=sgd(
            torch={
                "class": "RMSprop",
                "kwargs": {"lr": 0.01, "alpha": 0.9, "momentum": 0.5, "centered": False},
                "init_state": {"x": {"step": 0.0, "square_avg": array([1.0] * 3), "momentum_buffer": array([0.1] * 3)}},
            }
        ),
    ),
    "none, booleans and pairs as hyperparameters": train(
        3,
        at(3),
        optimizer=sgd(
            torch={"class": "Adam", "kwargs": {"lr": 0.1, "betas": [0.8, 0.99], "amsgrad": True, "foreach": None}}
        ),
    ),
    "parameters that are keywords": train(
        3,
        *({"iteration": i, "params": {"not": P}, "grads": {"not": P}, "values": {"or": P}} for i in (1, 3)),
        params={"not": P, "with": V},
        constants={"from": array(0.25)},
        lets=[["or", "not * 2.0 + with"]],
        loss="torch.sum(or * or * pass) * from",
        scheduled={"pass": [P, V, P]},
    ),
    "weights that leave the finite numbers": train(
        4,
        *(at(i, params={"x": NOT_FINITE}, loss={"dtype": "float64", "shape": [], "data": ["nan"]}) for i in (3, 4)),
        loss="torch.sum(torch.exp(torch.exp(h)))",
        optimizer=sgd(-10.0, torch={"class": "SGD", "kwargs": {"lr": 10.0, "maximize": True}}),
    ),
    "a closure": train(
        2,
        at(1, loss=array(0.0)),
        at(2, loss=array(0.0)),
        optimizer=sgd(torch={"class": "LBFGS", "kwargs": {"lr": 0.5, "line_search_fn": None, "max_iter": 5}}),
    ),
    "a parameter that the loss does not use": train(
        2,
        {"iteration": 2, "params": {"x": P, "idle": V}, "grads": {"x": P, "idle": V}},
        params={"x": P, "idle": V},
    ),
}

AVERAGE = {
    "params": {"x": P, "average": V, "idle": V},
    "constants": {"c": V, "unread": P},
    "lets": [["h", "x * c"], ["unused", "torch.sum(unread)"]],
    "loss": "torch.sum(h * h)",
    "optimizer": sgd(),
    "program": ["backward", "step", {"assign": {"average": "0.5 * average + 0.5 * x"}}],
    "expected": [{"after": 3, "params": {"x": P, "average": P, "idle": V}, "grads": {"average": P, "idle": V}}],
}

PROGRAM = {
    "params": {"x": P, "y": V},
    "constants": {"step": array(2.0), "c": V},
    "lets": [["path", "x * step"]],
    "loss": "torch.sum(path * c) + torch.sum(y * y)",
    "optimizer": sgd(),
    "program": [
        "zero_grad",
        "backward",
        "backward",
        "step",
        {"assign": {"x": "y * 0.5", "y": "x + c"}},  # the second reads what the first wrote
        {"set": {"c": array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), "step": array(-1.0)}},
        "zero_grad",
        "backward",
        "step",
    ],
    "expected": [
        {"after": after, "params": {"x": P, "y": P}, "grads": {"x": P, "y": P}, "loss": array(0.0)}
        for after in range(2, 10)
    ],
}

MINIMIZE = {
    "params": {"b": V, "value": array(0.5)},
    "constants": {"y": P},
    "lets": [["pred", "b * torch.exp(value)"]],
    "loss": "torch.sum((y - pred) ** 2)",
    "probes": [
        {"params": {"b": V, "value": array(0.5)}, "loss": array(0.0), "grads": {"b": V, "value": array(0.0)}},
        {"params": {"b": P, "value": array(-1.5)}, "loss": array(0.0)},
        {"params": {"b": X["data"][:3], "value": -2.25}, "loss": array(0.0), "grads": {"b": V}},
    ],
}


OVERFLOWS = {
    "params": {"b": V},
    "constants": {},
    "lets": [],
    "loss": "torch.sum(torch.exp(b))",
    "probes": [
        {"params": {"b": array([1.0, 2.0, 1e4])}, "loss": {"dtype": "float64", "shape": [], "data": ["inf"]}},
        {"params": {"b": NOT_FINITE}, "loss": array(0.0), "grads": {"b": NOT_FINITE}},
    ],
}

KEYWORD_PROGRAM = {
    "params": {"not": P, "global": V},
    "loss": "torch.sum(not * not) + torch.sum(global)",
    "optimizer": sgd(),
    "program": ["backward", "step", {"assign": {"not": "0.5 * not", "global": "global + not"}}],
    "expected": [{"after": at, "params": {"not": P, "global": V}, "grads": {"not": P}} for at in (2, 3)],
}


def made(kind: str, record: dict[str, Any]) -> Case:
    return Case("made", Path("made"), {"id": "made", "kind": kind} | record)


MADE = [
    *(pytest.param(made("expr", record), id=name) for name, record in EXPRESSIONS.items()),
    *(pytest.param(made("train", record), id=name) for name, record in TRAINING.items()),
    pytest.param(made("program", PROGRAM), id="a program"),
    pytest.param(made("program", AVERAGE), id="parameters beside the loss"),
    pytest.param(made("program", KEYWORD_PROGRAM), id="a program of keywords"),
    pytest.param(made("minimize", MINIMIZE), id="probes"),
    pytest.param(made("minimize", OVERFLOWS), id="probes that are not finite"),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", MADE)
def test_a_case_becomes_a_config_with_the_bits_of_torch_written_by_hand(case: Case, dtype: str, tmp_path: Path) -> None:
    job = job_of(case, dtype)
    assert missing_keys(job, case) == set()
    found, by_hand = run_job(job, tmp_path), reference_results(case, dtype)
    assert set(expected_results(case)) <= set(found)
    assert [key for key, value in found.items() if not same_bits(value, by_hand[key])] == []


@pytest.mark.parametrize("word", [*keyword.kwlist, *keyword.softkwlist])
def test_a_name_that_is_a_keyword_comes_back_as_it_was(word: str) -> None:
    case = made("expr", {"inputs": {word: X}, "outputs": [{"name": "y", "expr": "pi * 2", "expected": array(0.0)}]})
    record = {"inputs": {"x": X}, "outputs": outputs(**{word: "x * 2.0"})}
    assert missing_keys(job_of(case, "float64"), case) == set()
    assert missing_keys(job_of(made("expr", record), "float64"), made("expr", record)) == set()
    assert set(expected_results(made("expr", record))) == {f"out:{word}"}


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("torch.sum(not) + x", {"torch", "not", "x"}),
        ("x * not - and / or", {"x", "not", "and", "or"}),
        ("lambda + in[0] * is.sum()", {"lambda", "in", "is"}),
        ("x * lambda * -not", {"x", "lambda", "not"}),
        ("not and not", {"not"}),
        ("if if x else else", {"if", "x", "else"}),
        ("not x and y", {"x", "y"}),
        ("x if y not in z else None", {"x", "y", "z"}),
        ("torch.where(y > 0, while, x)", {"torch", "y", "while", "x"}),
    ],
)
def test_a_keyword_where_a_value_stands_is_a_name(expression: str, names: set[str]) -> None:
    assert names_in(expression) == names


def test_a_case_that_expects_or_gives_what_is_not_finite_ignores_it() -> None:
    for case in (case.values[0] for case in MADE):
        assert isinstance(case, Case)
        words = json.dumps(case.record)
        ignores = "on_nonfinite: ignore" in job_of(case, "float64").text
        assert ignores == any(f'"{word}"' in words for word in ("nan", "inf", "-inf"))


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("(lambda a: a)(x)", "Lambda"),
        ("x * int(x[0])", "an integer that a tensor's value decides"),
        ("torch.stack([a for a in x])", "a sequence that is not written out"),
        ("open(x)", "a call of `open`"),
        ("x + y", "the name `y`, which the case does not bind"),
    ],
)
def test_what_the_language_cannot_say_is_named(expression: str, reason: str) -> None:
    scope = Scope({"x": "x"}, {"x"}, lambda values, dtype: "literal")
    with pytest.raises(UnsayableError, match=reason):
        scope.translate(expression)


def test_no_name_is_given_twice() -> None:
    names = Names()
    assert [names.give(wanted) for wanted in ("x", "x", "row", "_h", "x_2")] == ["x", "x_2", "v_row", "v__h", "x_2_2"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-07, "1e-07"),
        (float("-inf"), "-inf"),
        (None, "null"),
        ((0.9, True), "[0.9, true]"),
        ({"n": "t"}, '{"n": "t"}'),
    ],
)
def test_values_are_written_in_flow_style(value: Any, text: str) -> None:
    assert flow(value) == text


@over(
    ("found", "expected", "near"),
    [
        (1.0, 1.05, True),
        (1.0, 1.2, False),
        (float("nan"), float("nan"), True),
        (float("nan"), 1.0, False),
        (float("inf"), float("inf"), True),
        (float("inf"), float("-inf"), False),
        (1e300, float("inf"), False),
    ],
)
def test_near_is_within_the_absolute_and_the_relative_tolerance(found: float, expected: float, near: bool) -> None:
    one, other = (torch.tensor([value], dtype=torch.float64) for value in (found, expected))
    missed = differences({"y": one}, {"y": other}, {"atol": 0.01, "rtol": 0.05})
    assert (missed == []) is near


def test_a_result_that_is_absent_or_of_another_shape_is_a_difference() -> None:
    limits = {"atol": 1.0, "rtol": 1.0}
    assert "not found" in str(differences({}, {"y": torch.ones(2)}, limits)[0])
    assert "shape (2, 1)" in str(differences({"y": torch.ones(2, 1)}, {"y": torch.ones(2)}, limits)[0])


def test_a_key_may_have_its_own_tolerance() -> None:
    limits = {"atol": 0.0, "rtol": 0.0, "items": {"near": {"atol": 0.5, "rtol": 0.0}}}
    one, other = torch.tensor(1.0), torch.tensor(1.25)
    missed = differences({"near": one, "far": one}, {"near": other, "far": other}, limits)
    assert [difference.key for difference in missed] == ["far"]
