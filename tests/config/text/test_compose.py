"""Text to marked trees: places, aliases, limits."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.config.limits import Limits
from runner.config.text.compose import compose
from runner.config.text.nodes import ListNode, MapNode, Node, ScalarNode, plain, walk
from runner.config.text.source import text_source
from runner.errors import ConfigError, Problem
from tests.config.strategies import ANY_TEXT

LIMITS = Limits()


def tree(text: str, limits: Limits = LIMITS) -> Node:
    problems: list[Problem] = []
    node = compose(text_source(text, Path(), "a.yaml", limits), limits, problems)
    assert not problems
    return node


def faults(text: str, limits: Limits = LIMITS) -> list[Problem]:
    problems: list[Problem] = []
    try:
        compose(text_source(text, Path(), "a.yaml", limits), limits, problems)
    except ConfigError as error:
        return list(error.problems)
    return problems


def test_every_value_keeps_its_place_in_characters() -> None:
    text = "größe: 'ü'\nb:\n  - 😀 x\n  - {c: 1}\n"
    found = {
        path: (node.source.mark(node.start).line, node.source.mark(node.start).column)
        for path, node in walk(tree(text))
    }
    assert found == {
        (): (1, 1),
        ("größe",): (1, 8),
        ("b",): (3, 3),
        ("b", 0): (3, 5),
        ("b", 1): (4, 5),
        ("b", 1, "c"): (4, 9),
    }


def test_keys_are_text_whatever_they_look_like() -> None:
    assert plain(tree("1: a\nnull: b\ntrue: c\n2.0: d\n'': e\n")) == {
        "1": "a",
        "null": "b",
        "true": "c",
        "2.0": "d",
        "": "e",
    }


def test_quoted_scalars_are_text() -> None:
    assert plain(tree("a: '1'\nb: \"true\"\nc: |\n  2\n")) == {"a": "1", "b": "true", "c": "2\n"}


def test_an_alias_stands_for_what_was_anchored() -> None:
    node = tree("a: &x [1, 2]\nb: *x\n")
    assert isinstance(node, MapNode)
    assert node.entries["b"].value is node.entries["a"].value


def test_an_anchor_does_not_move_the_place_of_its_text() -> None:
    node = tree("a: &name   f = x\n")
    assert isinstance(node, MapNode)
    scalar = node.entries["a"].value
    assert isinstance(scalar, ScalarNode)
    assert scalar.source.text[scalar.start : scalar.end] == "f = x"


def test_aliases_count_each_time_they_stand() -> None:
    text = "a: &a [1, 1, 1]\nb: &b [*a, *a]\nc: [*b]\n"  # 4 + 4 for b, 9 for c
    assert tree(text, Limits(alias_nodes=17))
    (problem,) = faults(text, Limits(alias_nodes=16))
    assert problem.message == "aliases that expand to more than 16 values"
    assert problem.hint is not None
    assert "--max-alias-nodes" in problem.hint


@pytest.mark.parametrize(("opener", "closer"), [("[", "]"), ("{a: ", "}"), ("- ", ""), ("? ", "")])
def test_nesting_up_to_the_limit_is_read(opener: str, closer: str) -> None:
    limits = Limits(nesting=8)
    assert tree("a:\n " + opener * 7 + "1" + closer * 7 + "\n", limits) if opener != "? " else True
    (problem, *_) = faults("a:\n " + opener * 8 + "1" + closer * 8 + "\n", limits)
    assert problem.message == "more than 8 lists and mappings inside one another"
    assert problem.hint == "flatten them, or raise the limit with --max-nesting"


@pytest.mark.parametrize(
    "piece",
    [
        "[",
        "{",
        "- ",
        "? ",
        "[{",
        "{a: [",
        "? - ",
        pytest.param("-\n", marks=pytest.mark.slow),
        "!a ",
        "&a ",
        "*a ",
        "a: ",
        "'",
        '"',
        "|\n",
        ">",
        "\n ",
        ":",
        "%",
        "@",
        "---\n",
        "...\n",
        "a:\n",
    ],
)
def test_a_million_of_anything_is_refused_in_few_words(piece: str) -> None:
    found = faults(piece * (1_000_000 // len(piece)))
    assert 1 <= len(found) <= 101
    assert all(problem.message and problem.hint and problem.mark for problem in found)
    assert all(len(problem.message) + len(problem.hint or "") < 200 for problem in found)
    nests = piece in ("[", "{", "- ", "? ", "[{", "{a: [", "? - ")
    assert nests == (found[0].message == "more than 64 lists and mappings inside one another")


def test_indentation_nests_too() -> None:
    text = "".join(" " * depth + "a:\n" for depth in range(70))
    assert faults(text)[0].message == "more than 64 lists and mappings inside one another"


def test_brackets_in_quotes_comments_and_blocks_do_not_nest() -> None:
    deep = "[" * 100
    assert tree(f"a: '{deep}'\nb: \"{deep}\" # {deep}\nc: |\n  {deep}\n")


@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(0, 9) | st.booleans() | st.none(), min_size=1)
)
def test_trees_hold_what_was_written(values: dict[str, object]) -> None:
    text = "".join(f'"{key}": {"null" if value is None else str(value).lower()}\n' for key, value in values.items())
    assert plain(tree(text)) == values


@given(ANY_TEXT)
def test_every_node_lies_within_its_text(text: str) -> None:
    try:
        node = compose(text_source(text, Path(), "a.yaml", LIMITS), LIMITS, [])
    except ConfigError:
        return
    for _, each in walk(node):
        assert 0 <= each.start <= each.end <= len(each.source.text)
        if isinstance(each, ListNode):
            assert each.weight >= 1 + len(each.items)
