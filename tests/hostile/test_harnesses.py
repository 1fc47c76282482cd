"""A few cases of each harness that a person may run for hours: hostile snapshots, flipped bits and kills."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch

import runner
from runner.errors import ConfigError
from tests.hostile import bit_flips, snapshots
from tests.hostile.children import tried
from tests.hostile.test_fuzzers import SEED

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads memory from /proc"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental:UserWarning"),
]


@pytest.fixture(autouse=True)
def _one_thread() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # a fork has no thread but one
    yield
    torch.set_num_threads(before)


def _wait_for_a_writer(case: int) -> str | None:
    os.open(os.environ["PIPE"], os.O_RDONLY)
    return None


def test_a_case_that_waits_without_computing_is_a_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setenv("PIPE", str(tmp_path / "pipe"))
    found = list(tried(_wait_for_a_writer, 0, 1, idle=0.1))
    assert [(finding.case, finding.what) for finding in found] == [(0, "hang: waits")]


def test_a_mutated_folder_of_snapshots_ends_in_faults_of_ours_alone() -> None:
    *found, last = snapshots.findings(SEED, 3600, most=30)
    assert (found, last.case) == ([], 30)


def test_a_flipped_bit_is_noticed_or_changes_no_number_that_has_a_digest() -> None:
    *found, (_, last, tally) = bit_flips.findings(SEED, 3600, most=94)
    assert (found, last.case) == ([], 94)
    assert sum(map(sum, tally.values())) == 94
    noticed = {kind for kind, counts in tally.items() if counts[bit_flips.WORDS.index(bit_flips.NOTICED)]}
    assert {"interrupted: 00000.parquet", "snapshot: state", "sweep finished: points.parquet"} <= noticed


def test_a_flipped_bit_in_the_footer_of_a_parquet_file_never_ends_the_process(tmp_path: Path) -> None:
    """pyarrow does so where a program asks for statistics that contradict the schema: 30 bits of this footer."""
    pyarrow.parquet.write_table(pyarrow.table({"a": [0.5, 1.5], "b": [1.0, 2.0]}), tmp_path / "sound.parquet")
    content = (tmp_path / "sound.parquet").read_bytes()
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    bits = range(8 * start, 8 * len(content), 5)
    constants = "constants: {x: {file: damaged.parquet, columns: [a, b]}}"
    text = f"parameters: {{w: 1.0}}\n{constants}\nexpression: f = w * x.sum()\n"

    def attempt(case: int) -> str | None:
        flipped = bytearray(content)
        flipped[bits[case] // 8] ^= 1 << bits[case] % 8
        (tmp_path / "damaged.parquet").write_bytes(flipped)
        with suppress(ConfigError):
            runner.compile(runner.loads(text, base=tmp_path))
        return None

    (tmp_path / "damaged.parquet").write_bytes(content)
    runner.compile(runner.loads(text, base=tmp_path))
    assert list(tried(attempt, 0, len(bits))) == []


def test_a_killed_command_leaves_what_can_be_read_and_gone_on_with() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile.kills", "--times", "6"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^6 kills, 0 findings$", done.stdout, re.MULTILINE)


def test_a_killed_sweep_resumes_to_the_table_of_one_never_killed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile.sweep_kills", "--times", "3", "--executors", "inline"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TMPDIR": "/dev/shm"},  # each part is synced to its disk
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^inline driver 3\n0 findings$", done.stdout, re.MULTILINE)
