"""Promise 6: kill a run at any moment: what is on disk opens, and it resumes to the bits of one never killed."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas
import polars
import pytest

from runner.record import list_runs, open_run
from runner.record.reading import Run
from runner.record.resuming import resume
from tests.record.stopping import OPTIMIZERS, check_same, stopped, whole_runs

KILLS = 25


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
@pytest.mark.slow
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


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    return whole_runs(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(
    "optimizer", [OPTIMIZERS[0], *(pytest.param(each, marks=pytest.mark.slow) for each in OPTIMIZERS[1:])]
)
def test_a_run_killed_at_any_moment_resumes_to_the_same_bits(
    optimizer: str, tmp_path: Path, whole: Callable[[str], Run]
) -> None:
    drawn = random.Random(optimizer)
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        directory = stopped(folder, optimizer, drawn.randrange(1, len(whole(optimizer))), signal.SIGKILL, every=11)
        assert open_run(directory).status == "killed"
        check_same(resume(directory), whole(optimizer))
