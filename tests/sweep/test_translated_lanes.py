"""A sweep under `engine: xla` with `--lanes close`: its points are lanes, and end as those of the eager engine."""

from __future__ import annotations

from pathlib import Path

import pandas
import pytest

import runner
from runner.config import loads
from runner.sweep.planning import plan_sweep
from runner.sweep.running import How, run_sweep, start_sweep
from tests.sweep.inline import inline
from tests.sweep.test_running import Seen

pytest.importorskip("jax")

__all__ = ["inline"]

TEXT = """\
parameters: {w: {shape: [4], init: {normal: {std: 0.5}}}}
constants: {x: {shape: [7, 4], init: normal}, decay: 0.01, rate: 0.05}
expression: loss = ((x @ w) ** 2).mean() + decay * (w ** 2).sum()
optimizer: {adam: {lr: rate}}
steps: 30
sweep:
  grid: {decay: [0.0, 0.1, 0.2], rate: [0.1, 0.03, 0.01], seed: [0, 1]}
  objective: {minimize: loss}
  halving: {at: [10, 20], keep: 1/2}
"""


def swept(engine: str, folder: Path) -> pandas.DataFrame:
    config = loads(f"engine: {engine}\n{TEXT}", name="lanes.yaml")
    plan, how = plan_sweep(config, {}), How(lanes="close")
    directory = start_sweep(config, plan, {}, folder / engine, how)
    outcomes = run_sweep(directory, plan, how, Seen())
    assert {outcome.alone for outcome in outcomes.values()} == {""}
    table: pandas.DataFrame = runner.open_sweep(directory).to_pandas()
    return table.sort_values("point").reset_index(drop=True)


@pytest.mark.slow
@pytest.mark.usefixtures("inline")
def test_points_go_on_and_end_as_in_the_eager_engine(tmp_path: Path) -> None:
    found, expected = swept("xla", tmp_path), swept("eager", tmp_path)
    left = ["point", "decay", "rate", "seed", "status", "objective", "rows"]
    assert set(found["status"]) == {"finished", "stopped"}
    pandas.testing.assert_frame_equal(found[left], expected[left], rtol=1e-5)
