"""The snapshots of the examples: each config holds to its own, on this machine and on another kind of processor."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import runner
from runner.compare.snapshots.checking import Request, check
from runner.compare.snapshots.reading import read
from runner.compare.snapshots.targets import collect

FOLDER = Path(__file__).parents[2] / "configs"
CONFIGS = sorted(FOLDER.glob("*.yaml"))
MOST_BYTES = 1 << 20

SLOW = ("convolution", "digits", "fine-tuning", "gan", "rosenbrock", "transformer", "variational-autoencoder")
ELSEWHERE = {
    "no vector instructions": {"ATEN_CPU_CAPABILITY": "default"},
    "no vector instructions in any library": {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_CBWR": "COMPATIBLE",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
    },
    "another matrix library": {"MKL_CBWR": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
}
"""Settings that stand in for another machine."""


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
@pytest.mark.parametrize("settings", ELSEWHERE.values(), ids=list(ELSEWHERE))
def test_the_snapshots_hold_on_what_stands_for_another_machine(settings: dict[str, str]) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **settings}
    done = subprocess.run(
        [sys.executable, "-m", "runner", "check", "--quiet", str(FOLDER)],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_example_has_a_tolerance_written_by_hand() -> None:
    for path in CONFIGS:
        section = runner.load(path).snapshot
        by_hand = (section.rtol, section.atol, section.ulp, section.tolerance, section.tolerances or None)
        assert by_hand == (None,) * 5, path.name
