"""The gallery under the engine of CUDA graphs, over a recording on the CPU: the eager engine's bits, or the reason."""

from __future__ import annotations

import itertools

import pytest

import runner
from runner.engine import eager, initial_state
from runner.engine.cudagraph import execute
from runner.engine.cudagraph.train import WARM
from runner.faults import Faults
from runner.plan.checks.engines.capturable import check_capturable
from runner.plan.checks.mixed_precision import check_scaled
from tests.engine.compiled import test_gallery as compiled
from tests.engine.cudagraph.tape import Tape
from tests.engine.running import numbers, same

ROWS = 20
PART = "records whole `train` steps, and `{}` is a part of one"
REASONS = {
    compiled.LBFGS: "cannot record this step: `lbfgs` evaluates the objective again within it",
    compiled.BACKWARD: PART.format("backward"),
    compiled.STEP: PART.format("step"),
    compiled.ZERO: PART.format("zero_grad"),
    compiled.OVER: compiled.OVER,
}
"""For each reason of `engine: compile`, that of this engine."""


def refusals(plan: runner.Plan) -> Faults:
    """What keeps a plan for the CPU from being recorded."""
    faults = Faults(plan.config.document)
    check_capturable(plan.program, plan.tensors, faults)
    check_scaled(plan.loss_scaling, plan.program, plan.optimizers, plan.tensors, "cudagraph", faults)
    return faults


@pytest.mark.slow
@pytest.mark.parametrize("name", compiled.COMPILES)
def test_the_rows_have_the_bits_of_the_eager_engine(name: str) -> None:
    plan = compiled.planned(name, "log={every: 1, include: ['*']}")
    assert refusals(plan).problems == []
    tape = Tape()
    found = list(itertools.islice(execute.execute(plan, initial_state(plan), shared=True, capture=tape), ROWS))
    expected = list(itertools.islice(eager.execute(plan, initial_state(plan)), ROWS))
    assert len(found) == len(expected) == ROWS
    assert (tape.warmed >= WARM, tape.replays > 0) == (True, True)
    for row, other in zip(found, expected, strict=True):
        assert (row.number, row.path, row.iteration) == (other.number, other.path, other.iteration)
        mine = numbers(row)
        wrong = [column for column, value in numbers(other).items() if not same(mine[column], value)]
        assert wrong == [], row.path


@pytest.mark.parametrize("name", compiled.KEPT)
def test_this_config_says_which_step_cannot_be_recorded_and_why(name: str) -> None:
    found = [(each.line, each.message) for each in refusals(compiled.planned(name)).problems]
    assert found == [(line, f"`engine: cudagraph` {REASONS[reason]}") for line, reason in compiled.KEPT[name]]
