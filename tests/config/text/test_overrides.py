"""Overrides: what they change, and that they are checked like the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner.config import loads
from runner.config.text.nodes import plain
from runner.errors import ConfigError
from tests.tables import over

TEXT = """\
parameters:
  x1: {shape: [1], init: 100}
  x2: {init: {normal: {std: 0.1}}}
  x4: 1
constants:
  learning_rate: 0.01
  table: [1, 2]
expression: f = x1 * x2
optimizer: {sgd: {lr: learning_rate, momentum: 0.9}, parameters: [x1]}
steps:
  - backward
  - expect: {x1.grad: 2, x2: {value: 1, atol: 1}}
  - repeat: {times: 3, steps: [train]}
"""


def resolved(*overrides: str, text: str = TEXT) -> Any:
    return plain(loads(text, overrides=overrides).document.root)


@over(
    ("override", "path", "value"),
    [
        ("learning_rate=0.1", ("constants", "learning_rate"), 0.1),
        ("learning_rate=1e-3", ("constants", "learning_rate"), 0.001),
        ("constants.learning_rate = 0.5", ("constants", "learning_rate"), 0.5),
        ("device=cuda", ("device",), "cuda"),
        ("seed=7", ("seed",), 7),
        ("steps=1000", ("steps",), 1000),
        ("parameters.x1.init=5", ("parameters", "x1", "init"), 5),
        ("parameters.x2.init.normal.std=5", ("parameters", "x2", "init"), {"normal": {"std": 5}}),
        ("parameters.x2.init={uniform: {a: 1}}", ("parameters", "x2", "init"), {"uniform": {"a": 1}}),
        ("parameters.x1.dtype=float64", ("parameters", "x1"), {"shape": [1], "init": 100, "dtype": "float64"}),
        ("parameters.x3=4", ("parameters", "x3"), 4),
        ("parameters.x3.init=4", ("parameters", "x3"), {"init": 4}),
        ("constants.table.1=9", ("constants", "table"), [1, 9]),
        ("constants.table.init=9", ("constants", "table"), {"init": 9}),
        ("parameters.x4.init=9", ("parameters", "x4"), {"init": 9}),
        ("parameters.x4.init.normal.std=9", ("parameters", "x4"), {"init": {"normal": {"std": 9}}}),
        ("optimizer={sgd: {lr: 3}}", ("optimizer", "sgd"), {"lr": 3, "momentum": 0.9}),
        ("optimizer={adam: {lr: 3}}", ("optimizer",), {"parameters": ["x1"], "adam": {"lr": 3}}),
        ("optimizer.adam.lr=3", ("optimizer",), {"parameters": ["x1"], "adam": {"lr": 3}}),
        ("optimizers.a.sgd.lr=3", ("optimizers",), {"a": {"sgd": {"lr": 3}}}),
        ("steps.2.repeat.times=5", ("steps", 2, "repeat", "times"), 5),
        ("steps.2.repeat.steps.0=backward", ("steps", 2, "repeat", "steps"), ["backward"]),
        ("steps.1.expect.x1.grad=7", ("steps", 1, "expect", "x1.grad"), 7),
        ("steps.1.expect.x2.value=7", ("steps", 1, "expect", "x2"), {"value": 7, "atol": 1}),
        (
            "steps.1.expect.x2.grad=7",
            ("steps", 1, "expect"),
            {"x1.grad": 2, "x2": {"value": 1, "atol": 1}, "x2.grad": 7},
        ),
        ('steps.1.expect."x2.grad"=7', ("steps", 1, "expect", "x2.grad"), 7),
        ("steps.1.expect.x1.grad=null", ("steps", 1, "expect", "x1.grad"), None),
        (
            "steps.1={every: , expect: {f: 1}}",
            ("steps", 1),
            {"expect": {"x1.grad": 2, "x2": {"value": 1, "atol": 1}, "f": 1}, "every": None},
        ),
        ("steps.2={backward: f}", ("steps", 2), {"backward": "f"}),
        ("expression=f = x1 ** 2", ("expression",), "f = x1 ** 2"),
        ("log={every: 3}", ("log",), {"every": 3}),
        ("description=a: b".replace("a: b", "'a: b'"), ("description",), "a: b"),
    ],
)
def test_an_override_sets(override: str, path: tuple[str | int, ...], value: object) -> None:
    found = resolved(override)
    for part in path:
        found = found[part]
    assert found == value


@over(
    ("override", "path", "left"),
    [
        ("~optimizer", (), ["parameters", "constants", "expression", "steps"]),
        ("optimizer=null", (), ["parameters", "constants", "expression", "steps"]),
        ("optimizer=", (), ["parameters", "constants", "expression", "steps"]),
        ("~optimizer.sgd.momentum", ("optimizer", "sgd"), ["lr"]),
        ("optimizer.sgd.momentum=null", ("optimizer", "sgd"), ["lr"]),
        ("~constants.table", ("constants",), ["learning_rate"]),
        ("~steps.1.expect.x1.grad", ("steps", 1, "expect"), ["x2"]),
    ],
)
def test_an_override_deletes(override: str, path: tuple[str | int, ...], left: list[str]) -> None:
    found = resolved(override)
    for part in path:
        found = found[part]
    assert list(found) == left


def test_an_item_is_deleted_from_a_list() -> None:
    assert resolved("~steps.1")["steps"] == ["backward", {"repeat": {"times": 3, "steps": ["train"]}}]


def test_overrides_apply_in_order() -> None:
    assert resolved("seed=1", "seed=2")["seed"] == 2
    assert resolved("parameters.x3.init=1", "parameters.x3.shape=[2]")["parameters"]["x3"] == {"init": 1, "shape": [2]}


def test_another_key_of_a_kind_pushes_out_the_one_that_stood() -> None:
    text = TEXT.replace("{init: {normal: {std: 0.1}}}", "{file: a.npy}")
    assert resolved("parameters.x2.init=1", text=text)["parameters"]["x2"] == {"init": 1}


def test_an_override_of_several_lines_is_named_on_one() -> None:
    with pytest.raises(ConfigError, match="expected an expression") as caught:
        loads(TEXT, overrides=["expression=\n  - a\n  - " + "b" * 100])
    source = caught.value.problems[0].source
    assert source is not None
    assert source.startswith("override expression= - a - bbb")
    assert source.endswith("…")


def test_a_path_in_an_override_begins_at_the_folder_of_the_config(tmp_path: Path) -> None:
    config = loads(TEXT, base=tmp_path, overrides=["parameters.x2={file: a.npy}"])
    assert config.document.folder(("parameters", "x2", "file")) == tmp_path


@pytest.mark.parametrize("override", ["extends=a.yaml", "extends.0=a.yaml", "~extends"])
def test_what_a_config_extends_is_for_its_file_to_say(override: str) -> None:
    with pytest.raises(ConfigError, match="`extends` cannot be overridden"):
        loads(TEXT, overrides=[override])


def test_a_key_in_quotes_may_hold_dots_and_spaces() -> None:
    text = TEXT.replace("x1.grad: 2", '"x1 + x2": 2, x1.grad: 3')
    assert resolved("steps.1.expect.'x1 + x2'=5", text=text)["steps"][1]["expect"]["x1 + x2"] == 5
    assert resolved("steps.1.expect.x1 + x2 = 5", text=text)["steps"][1]["expect"]["x1 + x2"] == 5


def test_a_long_override_is_read_in_no_time() -> None:
    with pytest.raises(ConfigError, match="no top-level key or scalar constant"):
        loads(TEXT, overrides=["a" + " " * 1_000_000 + "b=1"])


def test_one_text_instead_of_a_list_of_overrides_is_told() -> None:
    with pytest.raises(TypeError, match=r"`overrides` is a list of texts: write overrides=\['learning_rate=1'\]"):
        loads(TEXT, overrides="learning_rate=1")
