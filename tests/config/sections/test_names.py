"""What may be called what."""

from __future__ import annotations

import keyword

import pytest

from runner.config import loads
from runner.config.sections.names import RESERVED
from runner.errors import ConfigError
from tests.tables import over


@over("name", ["t", "real", "positive", "x1", "_", "größe", "重み", "sum", "__x"])
def test_a_value_may_be_called_like_an_operation(name: str) -> None:
    config = loads(f"parameters: {{{name}: 1}}\nexpression: f = 2\nmetrics: {{{name}: 1}}\n")
    assert list(config.parameters) == [name]


@over("name", sorted(RESERVED))
@over("section", ["parameters", "constants", "metrics"])
def test_reserved_words_name_nothing(name: str, section: str) -> None:
    text = "parameters: {x: 1}\nexpression: f = x\n"
    text = (
        text.replace("{x: 1}", f"{{x: 1, '{name}': 1}}")
        if section == "parameters"
        else text + f"{section}: {{'{name}': 1}}\n"
    )
    with pytest.raises(ConfigError, match=f"`{name}` is reserved"):
        loads(text)


def test_every_keyword_of_python_is_reserved() -> None:
    assert set(keyword.kwlist) < RESERVED


@over("name", ["a b", "1x", "x-y", "x.y", "", "ﬁ", "x,"])
def test_what_python_reads_otherwise_names_nothing(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name a parameter"):
        loads(f"parameters: {{'{name}': 1}}\nexpression: f = 1\n")


def test_a_clash_names_both_places() -> None:
    with pytest.raises(ConfigError, match="`x` is already a parameter") as caught:
        loads("parameters:\n  x: 1\nconstants:\n  x: 1\nexpression: f = x\n", name="a.yaml")
    (problem,) = caught.value.problems
    assert (problem.line, problem.column) == (4, 3)
    assert problem.hint == "the parameter is at a.yaml:2:3; rename one"


def test_optimizers_metrics_and_parameters_have_names_of_their_own() -> None:
    text = "parameters: {a: 1}\nmetrics: {a: a}\noptimizers: {a: {sgd: , parameters: a}}\nexpression: f = a\n"
    assert list(loads(text).optimizers) == ["a"]
