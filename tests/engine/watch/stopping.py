"""Runs that end at a value that is not finite, and what they report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

import runner
from runner.engine.state import initial_state
from runner.engine.watch.watch import Watch
from runner.errors import Problem
from tests.engine.running import compiled


@dataclass(frozen=True, slots=True)
class Stopped:
    """A run that ended for what it found."""

    rows: list[runner.Row]
    problem: Problem

    @property
    def marked(self) -> str:
        """The text under the caret."""
        assert self.problem.excerpt is not None
        assert self.problem.column is not None
        return self.problem.excerpt[self.problem.column - 1 :][: self.problem.width]

    @property
    def last(self) -> runner.Row:
        return self.rows[-1]


def stopped(text: str, base: Path | str = ".", *, defers: bool | None = None) -> Stopped:
    plan = compiled(text, base)
    state = initial_state(plan)
    rows: list[runner.Row] = []
    with pytest.raises(runner.RunError, match=r"nan|inf|not finite") as caught:
        rows.extend(runner.execute(plan, state, watch=Watch(plan, state, defers=defers)))
    assert caught.value.exit_code == 1
    (problem,) = caught.value.problems
    return Stopped(rows, problem)
