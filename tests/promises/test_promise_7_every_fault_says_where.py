"""Promise 7: every fault has its place, the offending text, and one thing to do; all faults of a file at once."""

from __future__ import annotations

from pathlib import Path

import pytest

import runner
from tests.bad_config_files import BAD_CONFIGS, refused
from tests.tables import over


@pytest.mark.slow
@over("path", BAD_CONFIGS)
def test_every_fault_has_a_place_an_excerpt_and_a_hint(path: Path) -> None:
    for problem in refused(path).problems:
        assert problem.source, problem
        assert problem.hint, problem
        assert problem.line is not None, problem
        assert problem.line >= 1, problem
        assert problem.column is not None, problem
        assert problem.column >= 1, problem
        source = path.parent / problem.source
        if problem.excerpt is not None and source.is_file():
            written = source.read_text(encoding="utf-8").splitlines()
            assert written[problem.line - 1].rstrip() == problem.excerpt.rstrip()
            assert problem.column <= len(problem.excerpt) + 1


@over("path", BAD_CONFIGS)
def test_faults_come_in_the_order_of_the_file(path: Path) -> None:
    places = [(problem.line, problem.column) for problem in refused(path).problems if problem.source == path.name]
    assert places == sorted(places)


SEVERAL = """\
parameters:
  x: [1.0, 2.0]
  y: {shape: [1.5], init: zeros}
constants:
  c: {file: nowhere.npy}
expression: |
  loss = sofmax([v for v in x])
optimizer: {sgd: {lr: 0.1}}
steps: [train]
"""


def test_faults_of_tensors_and_of_the_expression_are_told_together(tmp_path: Path) -> None:
    with pytest.raises(runner.ConfigError, match="comprehension") as caught:
        runner.compile(runner.loads(SEVERAL, base=str(tmp_path)))
    assert [(problem.line, problem.path) for problem in caught.value.problems] == [
        (3, "parameters.y.shape.0"),
        (5, "constants.c.file"),
        (7, "expression"),
    ]


def test_faults_of_the_optimizer_and_of_the_expression_are_told_together() -> None:
    text = "parameters: {x: 1}\nexpression: sofmax(x)\noptimizer: {adam: {lr: -1}}\nsteps: 1\n"
    with pytest.raises(runner.ConfigError, match="sofmax") as caught:
        runner.compile(runner.loads(text))
    assert [problem.line for problem in caught.value.problems] == [2, 3]


def test_faults_of_all_steps_are_told_together() -> None:
    text = """\
parameters: {x: [1.0, 2.0]}
expression: |
  h = x * 2
  loss = h.sum()
steps:
  - backward: hh
  - assign: {x: 'ones(3)'}
  - expect: {lss: 1}
  - step
  - {forward: loss, when: x > 0}
  - repeat:
      times: 0.5
      steps:
        - clip_grad_norm: -1
        - {backward: h, every: 0}
"""
    with pytest.raises(runner.ConfigError, match="hh") as caught:
        runner.compile(runner.loads(text))
    assert [problem.line for problem in caught.value.problems] == [3, 6, 7, 8, 9, 10, 12, 14, 15]


def test_a_fault_of_a_base_names_the_base(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("parameters: {x: 1}\nexpression: |\n  h = x * 2\n  loss = sofmax(h)\n")
    (tmp_path / "run.yaml").write_text("extends: base.yaml\nsteps: [backward]\n")
    with pytest.raises(runner.ConfigError, match="sofmax") as caught:
        runner.compile(runner.load(str(tmp_path / "run.yaml")))
    (problem,) = caught.value.problems
    assert (Path(str(problem.source)).name, problem.line, problem.column) == ("base.yaml", 4, 10)


def test_a_fault_of_an_override_names_the_override(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        "parameters: {x: 1}\nexpression: loss = x * 2\noptimizer: {sgd: {lr: 0.1}}\nsteps: 2\n"
    )
    for override, column in (("expression=loss = sofmax(x)", 8), ("steps=0.5", 1), ("optimizer.sgd.lr=-1", 1)):
        with pytest.raises(runner.ConfigError, match=override[:5]) as caught:
            runner.compile(runner.load(str(tmp_path / "run.yaml"), [override]))
        (problem,) = caught.value.problems
        assert override in str(problem.source)
        assert problem.line == 1
        assert problem.column is not None
        assert problem.column >= column


def test_a_clash_names_both_places() -> None:
    text = "parameters:\n  x: 1\nconstants:\n  c: 2\nexpression: |\n  c = x * 2\n  x = c + 1\n"
    with pytest.raises(runner.ConfigError, match="already") as caught:
        runner.compile(runner.loads(text))
    assert [(problem.line, problem.column, problem.message) for problem in caught.value.problems] == [
        (6, 3, "`c` is a constant already"),
        (7, 3, "`x` is a parameter already"),
    ]
    hints = [str(problem.hint) for problem in caught.value.problems]
    assert "4:3" in hints[0]
    assert "2:3" in hints[1]


@over(
    ("body", "line", "column"),
    [
        ("expression: loss = (x + ones(3)).sum()", 2, 21),
        ("expression: 'loss = (x + ones(3)).sum()'", 2, 22),
        ('expression: "loss = (x + ones(3)).sum()"', 2, 22),
        ("expression: |\n  y = x\n  loss = (y + ones(3)).sum()", 4, 11),
        ("expression: |2\n  y = x\n  loss = (y + ones(3)).sum()", 4, 11),
        ("expression: >\n  loss = (x +\n  ones(3)).sum()", 3, 11),
        ("expression: |\n\n  ü = x\n", 4, 3),
    ],
)
def test_a_place_in_an_expression_is_right_however_it_is_written(body: str, line: int, column: int) -> None:
    with pytest.raises(runner.ConfigError, match=r".") as caught:
        runner.compile(runner.loads(f"parameters: {{x: [1.0, 2.0]}}\n{body}\n"))
    (problem,) = caught.value.problems
    assert (problem.line, problem.column) == (line, column)
