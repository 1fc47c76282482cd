"""The examples of the documentation run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import runner

DOCS = Path(__file__).parents[1] / "docs"
EXAMPLES = [
    pytest.param(match[1], id=f"{path.name}:{text[: match.start()].count(chr(10)) + 2}")
    for path in sorted(DOCS.glob("*.md"))
    for text in [path.read_text(encoding="utf-8")]
    for match in re.finditer(r"^```yaml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
]


@pytest.mark.parametrize("text", EXAMPLES)
def test_an_example_of_the_documentation_runs(text: str) -> None:
    plan = runner.compile(runner.loads(text, base=str(DOCS)))
    assert plan.warnings == ()
    assert len(list(runner.execute(plan))) == plan.estimates.rows
