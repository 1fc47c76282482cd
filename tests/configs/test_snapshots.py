"""The snapshots of the examples: each config holds to its own, on this machine and on another kind of processor."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runner.compare.checking import Request, check
from runner.compare.collecting import collect
from runner.compare.snapshot_reading import read

FOLDER = Path(__file__).parents[2] / "configs"
CONFIGS = sorted(FOLDER.glob("*.yaml"))
MOST_BYTES = 1 << 20

SLOW = ("convolution", "digits", "fine-tuning", "gan", "rosenbrock", "transformer", "variational-autoencoder")
QUICK = ("damped-oscillator", "linear-regression", "physics", "polynomial-lbfgs", "polynomial-sgd", "two-optimizers")


def test_every_example_has_a_snapshot_and_every_snapshot_an_example() -> None:
    assert sorted(read(path)[1] for path in (FOLDER / "snapshots").glob("*.yaml")) == [path.name for path in CONFIGS]


def test_the_snapshots_are_small() -> None:
    assert sum(path.stat().st_size for path in (FOLDER / "snapshots").iterdir()) < MOST_BYTES


@pytest.mark.parametrize(
    "name",
    [pytest.param(path.stem, marks=pytest.mark.slow) if path.stem in SLOW else path.stem for path in CONFIGS],
)
def test_an_example_holds_to_its_snapshot(name: str) -> None:
    (target,) = collect([str(FOLDER / f"{name}.yaml")])
    outcome = check(target, Request())
    assert outcome.status == "holds", "\n".join(outcome.lines)


@pytest.mark.slow
def test_the_snapshots_hold_where_torch_uses_no_vector_instructions() -> None:
    paths = [str(FOLDER / f"{name}.yaml") for name in QUICK]
    done = subprocess.run(
        [sys.executable, "-m", "runner", "check", "--quiet", *paths],
        capture_output=True, text=True, env={**os.environ, "ATEN_CPU_CAPABILITY": "default"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
