"""A flipped bit, a cut or a missing part of a run's rows is told with its file, and never read as other numbers."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest

import runner
from runner.engine.rows import Row
from runner.record.reading import open_run
from runner.record.rows.parts import PartWriter

CONFIG = """\
parameters: {w: {shape: [40], init: {normal: {}}}}
expression: loss = (w ** 2).mean()
optimizer: {sgd: {lr: 0.1}}
steps: 30
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "c.yaml").write_text(CONFIG)
    return runner.run(tmp_path / "c.yaml", runs_dir=tmp_path / "runs").path


def part_of(run: Path) -> Path:
    (part,) = (run / "rows").glob("*.parquet")
    return part


def read(run: Path) -> list[Row]:
    return list(open_run(run))


def test_the_digest_of_each_finished_part_is_that_of_its_bytes(run: Path) -> None:
    told = json.loads((run / "rows.json").read_text())
    assert told == {"sha256": {"00000.parquet": hashlib.sha256(part_of(run).read_bytes()).hexdigest()}}


def test_every_flipped_bit_is_told_with_its_file(run: Path) -> None:
    part = part_of(run)
    whole, draw = part.read_bytes(), random.Random(0)
    for _ in range(60):
        place, bit = draw.randrange(len(whole)), draw.randrange(8)
        part.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        with pytest.raises(runner.RunError, match=r"00000\.parquet is damaged: its digest does not match"):
            open_run(run)


def test_a_flipped_bit_of_a_part_without_a_digest_never_ends_in_a_raw_error(run: Path) -> None:
    """As of a run that was killed: pages have checksums, and the rest is found by what it makes of the file."""
    (run / "rows.json").unlink()
    part = part_of(run)
    whole, draw, found = part.read_bytes(), random.Random(1), 0
    for _ in range(60):
        place, bit = draw.randrange(len(whole)), draw.randrange(8)
        part.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        try:
            read(run)
        except runner.RunError as error:
            assert "00000.parquet is damaged" in str(error)  # noqa: PT017
            found += 1
    assert found > 40


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_part_that_was_cut_is_told(run: Path, kept: int) -> None:
    part = part_of(run)
    part.write_bytes(part.read_bytes()[:kept])
    with pytest.raises(runner.RunError, match=r"00000\.parquet is damaged"):
        open_run(run)
    (run / "rows.json").unlink()
    with pytest.raises(runner.RunError, match=r"00000\.parquet is damaged"):
        open_run(run)


def test_a_missing_part_is_told(run: Path) -> None:
    part_of(run).unlink()
    with pytest.raises(runner.RunError, match=r"00000\.parquet is damaged: it cannot be read: No such file") as caught:
        open_run(run)
    assert caught.value.problems[0].hint == "restore it from a backup, or run the config again"


@pytest.mark.parametrize(("text", "reason"), [("{", "it is not JSON"), ("[]", "it contains no digests")])
def test_damaged_digests_are_told(run: Path, text: str, reason: str) -> None:
    (run / "rows.json").write_text(text)
    with pytest.raises(runner.RunError, match=f"rows.json is damaged: {reason}"):
        open_run(run)


def test_a_run_without_digests_opens(run: Path) -> None:
    (run / "rows.json").unlink()
    assert len(read(run)) == 31


def test_a_part_that_a_kill_left_without_a_digest_gets_one_when_the_run_goes_on(run: Path) -> None:
    (run / "rows.json").unlink()
    writer = PartWriter(run / "rows", [], 1 << 20, 1.0, parts=1)
    assert writer._digests == {"00000.parquet": hashlib.sha256(part_of(run).read_bytes()).hexdigest()}
