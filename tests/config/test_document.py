"""Which place a config path, and a place within a text, is."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.config import Document, load, loads
from runner.errors import Mark

TEXT = """\
parameters:
  x: {shape: [1], init: 1}
expression: |
  h = 2 * x
  f = h + bad
functions:
  twice(y): 2 * y
steps:
  - backward
  - expect: {x.grad: 2}
"""


@pytest.fixture
def document() -> Document:
    return loads(TEXT, name="a.yaml").document


def place(
    document: Document, *path: str | int, at: tuple[int, int, int] | None = None, key: bool = False
) -> tuple[int | None, int | None, int]:
    problem = document.problem(path, "message", at=at, key=key)
    return problem.line, problem.column, problem.width


def test_a_value_and_its_key_are_marked(document: Document) -> None:
    assert place(document, "parameters", "x", "shape") == (2, 14, 3)
    assert place(document, "parameters", "x", "shape", key=True) == (2, 7, 5)
    assert place(document, "steps", 1, "expect", "x.grad") == (10, 22, 1)
    assert place(document, "steps", 0) == (9, 5, 8)


def test_the_deepest_part_that_exists_is_marked(document: Document) -> None:
    assert place(document, "parameters", "x", "init", "normal", "std") == (2, 25, 1)
    assert place(document, "steps", 7, "train") == (9, 3, 10)
    problem = document.problem(("optimizer", "adam"), "message", "hint")
    assert (problem.mark, problem.excerpt, problem.path) == (Mark("a.yaml", 1, 1), None, "optimizer.adam")


def test_a_place_within_an_expression_is_marked(document: Document) -> None:
    problem = document.problem(("expression",), "no name `bad`", "did you mean `x`?", at=(2, 8, 3))
    assert str(problem.render()) == (
        "a.yaml:5:11  expression\n    5 |   f = h + bad\n      |           ^^^ no name `bad`\n      = did you mean `x`?"
    )


def test_a_place_within_a_key_is_marked(document: Document) -> None:
    assert place(document, "functions", "twice(y)", at=(1, 6, 1), key=True) == (7, 9, 1)


def test_an_override_is_named() -> None:
    document = loads(TEXT, name="a.yaml", overrides=["expression=f = x + bad"]).document
    problem = document.problem(("expression",), "no name `bad`", at=(1, 8, 3))
    assert (problem.source, problem.column) == ("override expression=f = x + bad", 20)


def test_a_base_is_named_and_its_folder_kept(tmp_path: Path) -> None:
    (tmp_path / "bases").mkdir()
    (tmp_path / "bases" / "base.yaml").write_text("# base\nparameters: {x: {file: x.npy}}\n")
    (tmp_path / "run.yaml").write_text("extends: bases/base.yaml\nexpression: f = x\n")
    document = load(tmp_path / "run.yaml").document
    problem = document.problem(("parameters", "x", "file"), "message")
    assert problem.mark == Mark(str(tmp_path / "bases" / "base.yaml"), 2, 24)
    assert document.folder(("parameters", "x", "file")) == tmp_path / "bases"
    assert document.folder(("expression",)) == tmp_path


def test_the_folder_of_a_text_is_its_base(tmp_path: Path) -> None:
    assert loads(TEXT, base=tmp_path).document.folder() == tmp_path


def test_marks_and_nodes_are_found(document: Document) -> None:
    assert document.mark(("parameters", "x"), key=True) == Mark("a.yaml", 2, 3)
    assert document.mark(("parameters", "x")) == Mark("a.yaml", 2, 6)
    assert document.node(("parameters", "y")) is None
    assert document.node(("steps", 0)) is not None
