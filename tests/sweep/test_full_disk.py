"""A disk that is really full in the middle of a sweep: what is finished stays, and the resumed sweep is a whole one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow
import pytest

from runner.config import load
from runner.sweep.planning import plan_sweep
from runner.sweep.record.parts import outcomes_on_disk
from runner.sweep.record.reading import open_sweep
from runner.sweep.running import How, resume_sweep, run_sweep, start_sweep
from tests.sweep.inline import inline
from tests.sweep.test_running import Seen

__all__ = ["inline"]

CONFIG = """\
parameters: {w: {shape: [64], init: {normal: {std: 1}}}}
expression: loss = ((w - dropout(ones(64), 0.5)) ** 2).sum()
optimizer: {adam: {lr: 0.1}}
steps: 30
sweep: {grid: {seed: range(24)}, objective: {minimize: loss}}
"""
"""24 points that take 470 KiB on disk: their numbers cannot be compressed."""

SMALL = "size=260k"
NAMESPACE = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
"""A process with mounts of its own, which end with it."""


def has_mounts(folder: Path) -> bool:
    if shutil.which("unshare") is None:
        return False
    mount = f"mount -t tmpfs -o {SMALL} tmpfs {folder}"
    return subprocess.run([*NAMESPACE, mount], capture_output=True, check=False).returncode == 0


def swept_on_a_small_disk(folder: Path, *options: str) -> tuple[str, Path]:
    """What a sweep says whose disk is full in the middle, and what it leaves."""
    disk, left = folder / "disk", folder / "left"
    disk.mkdir()
    sweep = [sys.executable, "-P", "-m", "runner", "sweep", "config.yaml", "--sweeps-dir", "disk", *options]
    script = f"mount -t tmpfs -o {SMALL} tmpfs disk && {' '.join(sweep)}; code=$?; cp -r disk left; exit $code"
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    done = subprocess.run(
        [*NAMESPACE, script], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 1, done.stdout + done.stderr
    (directory,) = (path for path in (left / "config").iterdir() if not path.is_symlink())
    return done.stderr.replace(directory.name, "STAMP"), directory


def whole_table(folder: Path) -> pyarrow.Table:
    config = load(folder / "config.yaml")
    plan = plan_sweep(config, {})
    directory = start_sweep(config, plan, {}, folder / "whole", How())
    run_sweep(directory, plan, How(), Seen())
    return open_sweep(directory).table().drop_columns(["seconds"])


@pytest.mark.slow
@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("options", [("--lanes", "off", "--jobs", "2"), ("--jobs", "1")], ids=["processes", "lanes"])
def test_a_sweep_on_a_full_disk_goes_on_to_the_table_of_a_whole_one(options: tuple[str, ...], tmp_path: Path) -> None:
    if not has_mounts(tmp_path):
        pytest.skip("this machine mounts no disk of its own for a process")
    (tmp_path / "config.yaml").write_text(CONFIG)
    said, directory = swept_on_a_small_disk(tmp_path, *options)
    assert said == (
        "steprun\n"
        "      cannot write to disk/config/STAMP: No space left on device\n"
        "      = free space, then `steprun resume disk/config/STAMP`\n"
    )
    finished = {rungs[0].index for rungs in outcomes_on_disk(directory).values()}
    assert len(finished) < 24
    assert bool(finished) == ("off" in options)  # a chunk of lanes is written as one
    plan, how = resume_sweep(directory, How())
    seen = Seen()
    run_sweep(directory, plan, how, seen)
    assert set(seen.started) == set(range(24)) - finished
    assert open_sweep(directory).table().drop_columns(["seconds"]).equals(whole_table(tmp_path))
