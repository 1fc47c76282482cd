"""Configs executed and recorded, and what may not be loaded for that."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import runner

LINEAR = Path(__file__).parents[2] / "configs" / "linear.yaml"


def test_a_config_is_executed_and_recorded(tmp_path: Path) -> None:
    run = runner.run(LINEAR, overrides=["learning_rate=0.1", "steps=3"], runs_dir=tmp_path)
    assert run.path.parent == tmp_path / "linear"
    assert run.status == "finished"
    assert run.manifest["rows"] == len(run) == 4
    assert run.tensor("x1").flatten().tolist() == torch.tensor([100.0, 99.0, 98.0, 97.0]).tolist()
    assert "learning_rate: 0.1" in (run.path / "config.yaml").read_text()


def test_the_recorded_config_gives_the_same_rows(tmp_path: Path) -> None:
    first = runner.run(LINEAR, overrides=["steps=20"], runs_dir=tmp_path)
    second = runner.run(first.path / "config.yaml", runs_dir=tmp_path)
    assert first.columns == second.columns
    for column in first.columns:
        left, right = first.tensor(column.name), second.tensor(column.name)
        assert torch.equal(left.view(torch.int32), right.view(torch.int32))


def test_a_failed_run_opens(tmp_path: Path) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text("parameters: {x: 1}\nexpression: x * x\nsteps: [backward, {expect: {x.grad: 3}}]\n")
    with pytest.raises(runner.ExpectationError, match=r"bad\.yaml:3"):
        runner.run(config, runs_dir=tmp_path / "runs")
    (summary,) = runner.list_runs(tmp_path / "runs")
    run = runner.open_run(summary.path)
    assert run.status == "failed"
    assert run.manifest["failure"]["problems"][0]["line"] == 3
    assert [row.step for row in run.rows()] == ["start", "backward"]


def test_recording_changes_no_weight(tmp_path: Path) -> None:
    run = runner.run(LINEAR, overrides=["steps=50"], runs_dir=tmp_path)
    *_, last = runner.execute(runner.compile(runner.load(LINEAR, ["steps=50"])))
    *_, recorded = run.rows()
    for name in ("x1", "x2", "x3"):
        weight, back = last[name], recorded[name]
        assert weight is not None
        assert back is not None
        assert torch.equal(weight.detach().view(torch.int32), back.view(torch.int32))
