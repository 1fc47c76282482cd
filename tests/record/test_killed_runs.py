from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas
import polars
import pytest

from runner.record import list_runs, open_run

KILLS = 25


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_run_killed_at_any_moment_opens_with_every_row_it_reported(tmp_path: Path) -> None:
    directories = [tmp_path / "linear" / f"{index:02}" for index in range(KILLS)]
    command = [sys.executable, "-m", "tests.record.killing", *map(str, directories)]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    reported = [int(line) for line in done.stdout.split()]
    assert len(reported) == KILLS
    assert max(reported) > 0

    for directory, least in zip(directories, reported, strict=True):
        run = open_run(directory)
        assert run.status == "killed"
        assert len(run) >= least
        assert [row.number for row in run.rows()] == list(range(len(run)))
        if len(run):
            assert run.tensor("x").flatten().tolist() == list(range(len(run)))
            assert pandas.read_parquet(directory / "rows")["row"].tolist() == list(range(len(run)))
            assert polars.read_parquet(directory / "rows")["row"].to_list() == list(range(len(run)))
    assert {run.rows for run in list_runs(tmp_path)} == {len(open_run(directory)) for directory in directories}
    assert len({len(open_run(directory)) for directory in directories}) > 5  # kills at different moments
