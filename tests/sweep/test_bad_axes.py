"""Axes that cannot be: each is refused before a point runs, with this text at this place."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest

from runner.config import load, loads
from runner.errors import Problem, SteprunError, UsageError
from runner.sweep.planning import plan_sweep
from runner.sweep.points.axis import COLUMNS
from runner.sweep.record.table import points_table
from tests.tables import over

TEXTS = Path(__file__).parent / "bad_axes.txt"
"""Blocks of `### SWEEP` and the whole text of its error."""

HEAD = """\
parameters: {w: {shape: [3], init: {normal: {std: 1}}}}
constants: {rate: 0.1, momentum: 0.5, n: 3}
expression: loss = (w ** 2).sum()
optimizer: {sgd: {lr: rate, momentum: momentum}}
steps: 5
"""


def blocks() -> Iterator[tuple[str, str]]:
    for block in re.split(r"^### ", TEXTS.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        sweep, _, text = block.partition("\n")
        yield sweep, text


def refused(sweep: str) -> str:
    with pytest.raises(SteprunError, match=r".") as caught:
        plan_sweep(loads(f"{HEAD}sweep: {sweep}\n", name="bad.yaml"), {})
    return str(caught.value)


@pytest.mark.slow
@over(("sweep", "text"), blocks)
def test_an_axis_that_cannot_be_is_refused_with_this_text(sweep: str, text: str) -> None:
    assert refused(sweep) + "\n" == text


@over("name", [*COLUMNS])
def test_a_column_of_the_points_is_no_axis_of_a_command_line_either(name: str) -> None:
    with pytest.raises(UsageError, match=r".") as caught:
        plan_sweep(loads(HEAD), {"rate": [1, 2], name: [1, 2]})
    message = f"an axis cannot be called `{name}`: the table of points has another column of that name"
    assert caught.value.problems == (Problem(message, f"write `constants.{name}`, if the constant is meant"),)


def test_the_constants_of_these_names_are_axes_by_their_whole_path() -> None:
    text = (
        HEAD.replace("n: 3", "rows: 3").replace(".sum()", ".sum() * rows")
        + "sweep: {grid: {constants.rows: [1, 2]}, objective: {minimize: loss}}\n"
    )
    plan = plan_sweep(loads(text), {})
    table = points_table(plan.tasks, plan.points, {}, plan.objective)
    assert table.column("constants.rows").to_pylist() == [1, 2]
    assert set(table.column_names) == {"constants.rows", *COLUMNS}


MEASURING = """\
parameters: {w: 2.0}
constants: {rate: 0.1}
data: {valid: {columns: {x: x.npy}}}
expression: loss = (w * x).sum()
optimizer: {sgd: {lr: rate}}
steps:
  - repeat: {times: 10, steps: [{train: {data: valid}}, {evaluate: valid, every: 20}]}
sweep: {grid: {AXIS}, objective: {minimize: valid.loss}}
"""


def test_an_objective_that_no_point_measures_is_refused_unless_an_axis_changes_the_steps(tmp_path: Path) -> None:
    numpy.save(tmp_path / "x.npy", numpy.ones(3, "float32"))
    path = tmp_path / "bad.yaml"
    path.write_text(MEASURING.replace("AXIS", "rate: [0.1, 0.2]"), encoding="utf-8")
    with pytest.raises(SteprunError, match="no point measures") as caught:
        plan_sweep(load(path), {})
    assert str(caught.value).replace(str(tmp_path), ".") == (
        "./bad.yaml:8:57  sweep.objective.minimize\n"
        "    8 | sweep: {grid: {rate: [0.1, 0.2]}, objective: {minimize: valid.loss}}\n"
        "      |                                                         ^^^^^^^^^^ no point measures `valid.loss`: "
        "its step runs every 20 iterations, and its loop has 10\n"
        "      = write `every: 10` or less in `evaluate: valid`"
    )
    path.write_text(MEASURING.replace("AXIS", "steps.0.repeat.times: [10, 20]"), encoding="utf-8")
    assert len(plan_sweep(load(path), {}).points) == 2
    named = MEASURING.replace("every: 20", "every: often").replace("rate: 0.1", "rate: 0.1, often: 20")
    path.write_text(named.replace("AXIS", "often: [20, 10]"), encoding="utf-8")
    assert len(plan_sweep(load(path), {}).points) == 2
    never = MEASURING.replace("every: 20", "when: iteration > 10").replace("AXIS", "rate: [0.1, 0.2]")
    path.write_text(never, encoding="utf-8")
    with pytest.raises(SteprunError, match=r"no point measures `valid\.loss`: the condition of its step is never true"):
        plan_sweep(load(path), {})


def test_the_largest_spaces_take_little_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "1,000,000,000 points" in refused("{grid: {rate: range(1000), momentum: range(1000), seed: range(1000)}}")
    assert "the sweep has 1,000,000 points" in refused("{random: {samples: 1000000, draw: {rate: {uniform: [0, 1]}}}}")
    block = "{sgd: {lr: {grid: range(10000)}, momentum: {grid: range(10000)}, dampening: {grid: range(10000)}}}"
    assert "1,000,000,000,000 values" in refused(f"{{grid: {{optimizer: [{block}]}}}}")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 512 << 10  # KiB
