from __future__ import annotations

import json
import math

import pytest
import torch

from runner.plan.rows.columns import Column
from runner.record.rows.row_json import row_json
from tests.record.building import linear_rows, rows_of
from tests.tables import over


def refuse(text: str) -> None:
    raise AssertionError(f"{text} is not JSON")


def parsed(column: Column, value: torch.Tensor | None) -> object:
    (row,) = rows_of([column], [[value]])
    text = row_json(row)
    assert "\n" not in text
    return json.loads(text, parse_constant=refuse)[column.name]


def test_a_row_is_one_object() -> None:
    start, row = linear_rows(2)
    assert json.loads(row_json(start)) == {
        "row": 0,
        "step": "start",
        "path": "start",
        "iteration": 1,
        "f": None,
        "x": [0.0],
        "x.grad": None,
    }
    assert json.loads(row_json(row)) == {
        "row": 1,
        "step": "train",
        "path": "repeat[1].1.train",
        "iteration": 1,
        "f": [10.0],
        "x": [1.0],
        "x.grad": [10.0],
    }


@over(
    ("value", "expected"),
    [
        (torch.tensor(1.5), 1.5),
        (torch.tensor([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (torch.tensor([True, False]), [True, False]),
        (torch.tensor([math.nan, math.inf, -math.inf, 1.0]), ["nan", "inf", "-inf", 1.0]),
        (torch.tensor([1 + 2j]), [[1.0, 2.0]]),
        (torch.tensor([1 + 2j]).conj(), [[1.0, -2.0]]),
        (torch.tensor([0.5]).bfloat16(), [0.5]),
        (torch.tensor([0.5]).to(torch.float8_e4m3fn), [0.5]),
        (torch.tensor([1.5], requires_grad=True), [1.5]),
        (torch.zeros(0, 2), []),
        (None, None),
    ],
)
def test_a_tensor_is_nested_lists(value: torch.Tensor | None, expected: object) -> None:
    assert parsed(Column("v", "value", torch.float32, None), value) == expected


def test_a_float_reads_back_as_the_same_float() -> None:
    value = torch.tensor(0.1)
    assert torch.tensor(parsed(Column("v", "value", torch.float32, ()), value)) == value


def test_a_large_tensor_is_its_shape_and_statistics() -> None:
    value = torch.ones(5000)
    value[0] = math.inf
    assert parsed(Column("v", "value", torch.float32, (5000,)), value) == {
        "shape": [5000],
        "dtype": "float32",
        "mean": 1.0,
        "std": 0.0,
        "min": 1.0,
        "max": 1.0,
        "norm": pytest.approx(math.sqrt(4999)),
        "zeros": 0,
        "nan": 0,
        "inf": 1,
    }
