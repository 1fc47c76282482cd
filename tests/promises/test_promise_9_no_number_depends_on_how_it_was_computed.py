"""Promise 9: a point of a sweep is the run alone whatever runs it, and `evaluate` gives the same at any batch size.

Points run in this process here, one by one and as lanes. `tests/sweep/test_running.py` has them in one process and two.
"""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest

import runner
from runner.config import load
from runner.engine.rows import Row
from runner.sweep import running
from runner.sweep.planning import plan_sweep
from runner.sweep.running import How, run_sweep, start_sweep
from tests.engine.compiled.plain import without_compiler
from tests.promises.engines import CONFIG, ENGINES, ROWS, points, rows, shorten_regions, written
from tests.promises.test_promise_3_same_file_same_numbers import digest
from tests.sweep.inline import Inline
from tests.sweep.test_running import Seen

SIZES = {"ones": 1, "sevens": 7, "whole": 18}
"""Sources of the same 18 samples, by the size of their batches."""

SOURCES = "".join(
    f", {name}: {{file: points.npz, columns: {{x: x, y: y}}, batch_size: {size}}}" for name, size in SIZES.items()
)
EVALUATIONS = ", ".join(f"evaluate: {name}" for name in SIZES)
TEXT = CONFIG.replace("drop_last: true}}", f"drop_last: true}}{SOURCES}}}").replace(
    "steps: [train]}}]", f"steps: [{{train: {{data: points}}}}]}}}}, {EVALUATIONS}]"
)


def swept(path: Path, folder: Path, axis: str, how: How) -> tuple[list[str], list[str]]:
    """The digests of the rows of all points, and why each was no lane."""
    sweep = path.with_name("swept.yaml")
    sweep.write_text(path.read_text() + f"sweep: {{grid: {{seed: {axis}}}}}\n")
    config = load(sweep)
    plan = plan_sweep(config, {})
    directory = start_sweep(config, plan, {}, folder, how)
    outcomes = run_sweep(directory, plan, how, Seen())
    found = runner.open_sweep(directory)
    return [digest(list(found.run(index).rows())) for index in range(len(found))], [
        outcomes[index].alone for index in range(len(found))
    ]


def loss_by_numpy(row: Row) -> float:
    """The loss over all samples at the weights of a row, in float64."""
    x, y = (values.astype("float64") for values in points())
    w, b, v = (row[name].double().numpy() for name in "wbv")
    return float((((numpy.tanh(x @ w + b)) @ v - y) ** 2).mean())


@pytest.mark.parametrize("engine", ENGINES)
def test_a_point_of_a_sweep_is_the_run_alone_and_evaluate_gives_the_same_at_any_batch_size(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regions of `engine: compile` are called as they are: machine code of each point would take a minute."""
    without_compiler(monkeypatch)
    shorten_regions(monkeypatch, engine)
    monkeypatch.setattr(running, "Processes", Inline)
    path = written(tmp_path, engine, TEXT)
    alone = rows(path)
    assert [row.step for row in alone[ROWS:]] == ["evaluate"] * 3
    for name, row in zip(SIZES, alone[ROWS:], strict=True):
        assert float(row[f"{name}.loss"]) == pytest.approx(loss_by_numpy(row), rel=1e-5)
    exact = engine == "eager"  # other engines have no exact lanes; four points are the fewest that become lanes
    for how in [How(lanes="off"), How(lanes="exact")][: 1 + exact]:
        found, reasons = swept(path, tmp_path / how.lanes, "[6, 5, 4, 3]" if exact else "[4, 3]", how)
        assert found[-1] == digest(alone)
        assert len(set(found)) == len(found)
        assert any(reasons) is (how.lanes == "off")
