"""How configs lie over one another: mappings merge, anything else replaces, `null` deletes, one of a kind stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from runner.config.limits import Limits
from runner.config.text.compose import compose
from runner.config.text.merge import merge
from runner.config.text.nodes import Node, plain
from runner.config.text.source import text_source
from tests.tables import over

LIMITS = Limits()


def tree(text: str) -> Node:
    return compose(text_source(text, Path(), "a.yaml", LIMITS), LIMITS, [], value=True)


def merged(under: str, over: str) -> Any:
    return plain(merge(tree(under), tree(over)))


@over(
    ("under", "over", "expected"),
    [
        ("{a: 1}", "{b: 2}", {"a": 1, "b": 2}),
        ("{a: {b: 1, c: 2}}", "{a: {c: 3}}", {"a": {"b": 1, "c": 3}}),
        ("{a: [1, 2]}", "{a: [3]}", {"a": [3]}),
        ("{a: {b: 1}}", "{a: 3}", {"a": 3}),
        ("{a: 3}", "{a: {b: 1}}", {"a": {"b": 1}}),
        ("{a: 1, b: 2}", "{a: null}", {"b": 2}),
        ("{a: {b: 1}}", "{a: {b: null}}", {"a": {}}),
        ("{}", "{a: null}", {"a": None}),
        (
            "{optimizer: {sgd: {lr: 1, momentum: 2}}}",
            "{optimizer: {sgd: {lr: 3}}}",
            {"optimizer": {"sgd": {"lr": 3, "momentum": 2}}},
        ),
        (
            "{optimizer: {sgd: {lr: 1}, parameters: a}}",
            "{optimizer: {adam: {lr: 3}}}",
            {"optimizer": {"parameters": "a", "adam": {"lr": 3}}},
        ),
        ("{optimizer: {sgd: {lr: 1}}}", "{optimizer: {groups: []}}", {"optimizer": {"sgd": {"lr": 1}, "groups": []}}),
        (
            "{optimizers: {a: {sgd: {}}}}",
            "{optimizers: {a: {adam: {}}, b: {sgd: {}}}}",
            {"optimizers": {"a": {"adam": {}}, "b": {"sgd": {}}}},
        ),
        ("{optimizer: {sgd: {}}}", "{optimizers: {a: {sgd: {}}}}", {"optimizers": {"a": {"sgd": {}}}}),
        (
            "{parameters: {x: {init: 1, shape: [2]}}}",
            "{parameters: {x: {file: a.npy}}}",
            {"parameters": {"x": {"shape": [2], "file": "a.npy"}}},
        ),
        (
            "{constants: {x: {file: a.csv, columns: a}}}",
            "{constants: {x: {init: 1}}}",
            {"constants": {"x": {"init": 1}}},
        ),
        (
            "{parameters: {x: {init: {normal: {mean: 1, std: 2}}}}}",
            "{parameters: {x: {init: {normal: {std: 3}}}}}",
            {"parameters": {"x": {"init": {"normal": {"mean": 1, "std": 3}}}}},
        ),
        (
            "{parameters: {x: {init: {normal: {std: 2}}}}}",
            "{parameters: {x: {init: {uniform: {a: 0}}}}}",
            {"parameters": {"x": {"init": {"uniform": {"a": 0}}}}},
        ),
        ("{steps: [{expect: {x.grad: null}}]}", "{seed: 1}", {"steps": [{"expect": {"x.grad": None}}], "seed": 1}),
    ],
)
def test_one_config_over_another(under: str, over: str, expected: Any) -> None:
    assert merged(under, over) == expected


MAPPINGS = st.recursive(
    st.integers(0, 9), lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=3), max_leaves=10
).filter(lambda value: isinstance(value, dict))


def leaves(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    if not isinstance(value, dict) or not value:
        return {path: value}
    return {at: leaf for key, inner in value.items() for at, leaf in leaves(inner, (*path, key)).items()}


@given(MAPPINGS, MAPPINGS)
def test_what_lies_over_stands_and_what_it_does_not_touch_stays(under: Any, over: Any) -> None:
    found = leaves(merged(repr(under), repr(over)))
    top = leaves(over)
    assert all(found[path] == value for path, value in top.items() if value != {})
    for path, value in leaves(under).items():
        if not any(path[: len(other)] == other or other[: len(path)] == path for other in top):
            assert found[path] == value


@given(MAPPINGS)
def test_merging_a_config_over_itself_or_nothing_changes_nothing(value: Any) -> None:
    assert merged(repr(value), repr(value)) == value
    assert merged("{}", repr(value)) == value
    assert merged(repr(value), "{}") == value
