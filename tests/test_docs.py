"""The examples of the documentation run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from _pytest.mark import ParameterSet

import runner
from runner.config.keys import RESERVED, TOP_LEVEL_KEYS
from tests.cli.commands import steprun

DOCS = Path(__file__).parents[1] / "docs"


def examples(language: str) -> list[ParameterSet]:
    """The blocks of the documentation in a language, each named after its first line."""
    return [
        pytest.param(match[1], id=f"{path.name}:{text[: match.start()].count(chr(10)) + 2}")
        for path in sorted(DOCS.glob("*.md"))
        for text in [path.read_text(encoding="utf-8")]
        for match in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    ]


@pytest.mark.parametrize("text", examples("yaml"))
def test_an_example_of_the_documentation_runs(text: str) -> None:
    plan = runner.compile(runner.loads(text, base=str(DOCS)))
    assert plan.warnings == ()
    rows = len(list(runner.execute(plan)))
    assert rows <= plan.estimates.rows if "when:" in text or "patience:" in text else rows == plan.estimates.rows


@pytest.mark.parametrize("text", examples("python"))
def test_python_of_the_documentation_runs(text: str) -> None:
    state = torch.get_rng_state()
    exec(compile(text, "docs", "exec"), {})
    torch.set_rng_state(state)


@pytest.mark.parametrize("text", examples("console"))
def test_a_command_of_the_documentation_prints_what_it_shows(text: str) -> None:
    command, _, shown = text.partition("\n")
    words = command.removeprefix("$ steprun ").split()
    printed = steprun(*words, cwd=DOCS.parent, environment={"COLUMNS": "100", "LINES": "24"})
    assert (printed.out, printed.err) == (shown, "")


def test_the_documentation_lists_every_key_of_a_config_and_those_that_are_reserved() -> None:
    text = (DOCS / "language.md").read_text(encoding="utf-8")
    table = text.partition("## Top-level keys\n")[2].partition("\n## ")[0]
    listed = [
        name for row in re.findall(r"^\| ([^|]*`[^|]*) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    ]
    assert sorted(listed) == sorted(TOP_LEVEL_KEYS)
    reserved = re.findall(r"^.*reserved for later versions.*$", table, re.MULTILINE)
    assert [re.findall(r"`(\w+)`", line) for line in reserved] == [list(RESERVED)]
