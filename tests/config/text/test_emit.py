"""The resolved config as text: it loads back to the same, and reads like what was written."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runner.config import load, loads
from runner.config.limits import Limits
from runner.config.text.compose import compose
from runner.config.text.emit import emit
from runner.config.text.nodes import MapNode, plain
from runner.config.text.source import text_source
from runner.errors import ConfigError
from tests.config.strategies import LINEAR, VALUES, mutated
from tests.effort import tried
from tests.tables import over

LIMITS = Limits()


def tree(text: str) -> MapNode:
    node = compose(text_source(text, Path(), "a.yaml", LIMITS), LIMITS, [])
    assert isinstance(node, MapNode)
    return node


def same(left: Any, right: Any) -> bool:
    """Equal, a NaN being equal to a NaN and 1 not to 1.0 or True."""
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and (
        left == right or (isinstance(left, float) and math.isnan(left) and math.isnan(right))
    )


@pytest.mark.slow
@settings(max_examples=tried(400))
@given(st.dictionaries(st.text(max_size=6), VALUES, max_size=5), st.booleans())
@example({"k" * 1100: ["k" * 1100, {"k" * 1100: 1}]}, True)
@example({"a": "one\n  two\n\nthree\n", "b": [["x\ny", "- a"], [{"c": "\n"}]]}, True)
@example({"a": "x ", "b": "...", "c": "---", "d": "- ", "-": "?", "e": "a: b", "f": "a #b", "g": "x\n \ny"}, True)
def test_any_tree_reads_back_to_the_same_values(values: dict[str, Any], ascii_only: bool) -> None:
    try:
        node = tree(json.dumps(values, ensure_ascii=ascii_only))
    except ConfigError:
        return
    text = emit(node, "n", Path(), False)
    expected, found = plain(node), plain(tree(text))
    assert found.pop("name")
    expected.pop("name", None)
    assert same(found, expected)


@settings(max_examples=tried(150), deadline=None)
@given(mutated())
@example(LINEAR)
def test_a_config_loads_back_to_an_equal_one(text: str) -> None:
    try:
        config = loads(text, name="a.yaml")
    except ConfigError:
        return
    written = config.document.to_yaml()
    again = loads(written, name="b.yaml")
    assert again == config or "nan" in repr(config)
    assert again.document.to_yaml() == written


def test_what_was_written_stays_recognisable() -> None:
    assert loads(LINEAR, name="a.yaml").document.to_yaml().splitlines()[1:] == [
        line.replace("{stop: , when", "{stop: null, when").replace('["x*"]', "[x*]").replace("f.mean()", "f.mean()")
        for line in LINEAR.splitlines()
    ]


def test_numbers_stay_as_they_were_written() -> None:
    text = loads(
        "parameters: {x: 1e-3}\nconstants: {a: 0x1F, b: 1_000, c: .inf, d: 0.10}\nexpression: f = x\n"
    ).document.to_yaml()
    assert "x: 1e-3" in text
    assert "{a: 0x1F, b: 1_000, c: .inf, d: 0.10}" in text


def test_overrides_and_bases_are_written_in(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("parameters: {x: 1}\nconstants: {a: 1}\nexpression: f = x\n")
    (tmp_path / "run.yaml").write_text("extends: base.yaml\nconstants: {a: 2}\n")
    config = load(tmp_path / "run.yaml", ["parameters.x=7", "seed=4"])
    text = config.document.to_yaml()
    assert "extends" not in text
    assert loads(text) == config
    assert loads(text).seed == 4
    assert loads(text).parameters["x"].init == 7


def test_data_files_can_be_written_with_their_whole_path(tmp_path: Path) -> None:
    (tmp_path / "bases").mkdir()
    (tmp_path / "bases" / "base.yaml").write_text("parameters: {x: {file: data/x.npy}}\nexpression: f = x\n")
    (tmp_path / "run.yaml").write_text("extends: bases/base.yaml\nconstants: {c: {file: c.npz#key}}\n")
    document = load(tmp_path / "run.yaml").document
    assert loads(document.to_yaml()).parameters["x"].file == os.path.join("bases", "data", "x.npy")
    absolute = loads(document.to_yaml(absolute_files=True))
    assert absolute.parameters["x"].file == str(tmp_path / "bases" / "data" / "x.npy")
    assert getattr(absolute.constants["c"], "file", None) == str(tmp_path / "c.npz#key")


@over(
    "value",
    ["yes", "null", "1e3", "~", "0x1f", "true", "", " ", "a\tb", "'", '"', "\\", "é", "\x85", "\u2028", "😀", "\ufeff"],
)
def test_text_that_yaml_would_read_otherwise_stays_text(value: str) -> None:
    node = tree(json.dumps({"a": value, "b": [value], value: 1}, ensure_ascii=value < "\U00010000"))
    assert plain(tree(emit(node, "n", Path(), False)))["a"] == value
    assert plain(tree(emit(node, "n", Path(), False)))["b"] == [value]
