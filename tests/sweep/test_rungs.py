"""A run cut at an iteration of its last loop."""

from __future__ import annotations

import pytest

import runner
from runner.sweep.rungs import cut

TEXT = """\
parameters: {w: 8.0}
expression: loss = w ** 2
optimizer: {sgd: {lr: 0.25}}
steps:
  - repeat: {times: 2, steps: [forward]}
  - repeat: {times: 5, steps: [train]}
  - assign: {w: w + 1}
  - forward
"""


@pytest.mark.parametrize("until", [1, 4])
def test_a_cut_run_has_the_first_iterations_of_its_last_loop_and_no_step_after_it(until: int) -> None:
    shorter = cut(runner.compile(runner.loads(TEXT)), until)
    assert shorter is not None
    rows = list(runner.execute(shorter))
    assert len(rows) == 1 + 2 + until  # the start, and each iteration of both loops
    assert rows[-1]["w"].item() == 8 * 0.5**until  # a step is w - 0.25 * 2 * w


@pytest.mark.parametrize("until", [5, 6])
def test_a_loop_that_is_not_longer_is_not_cut(until: int) -> None:
    assert cut(runner.compile(runner.loads(TEXT)), until) is None


def test_a_program_without_a_loop_is_not_cut() -> None:
    assert cut(runner.compile(runner.loads(TEXT.partition("steps:")[0] + "steps: [train, train]\n")), 1) is None
