"""A run that was stopped ends, once resumed, in the bits of a run that never was."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import random
import re
import shutil
import signal
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
import torch

import runner
from runner.engine.rows import Row
from runner.errors import Problem
from runner.plan.tensors.run_files import CHECKPOINTS_FOLDER
from runner.record.checkpoints import store as checkpoints_module
from runner.record.checkpoints.store import latest_checkpoint, read_checkpoint
from runner.record.directory import create_run_directory
from runner.record.reading import Run, open_run
from runner.record.resuming import resume
from runner.record.running import run_recorded
from tests.manifests import manifest_fields
from tests.record.stopping import CONFIG, OPTIMIZERS, check_same, stopped, stopped_after, whole_runs


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    return whole_runs(tmp_path_factory.mktemp("whole"))


def test_an_interrupted_run_saves_its_state_and_resumes_to_the_same_bits(
    tmp_path: Path, whole: Callable[[str], Run]
) -> None:
    directory = stopped(tmp_path, OPTIMIZERS[0], 50, None)
    assert open_run(directory).status == "interrupted"
    assert latest_checkpoint(directory, 50) is not None
    run = resume(directory)
    check_same(run, whole(OPTIMIZERS[0]))
    (again,) = run.manifest["resumed"]
    assert (again["row"], again["after"]) == (50, "interrupted")


def test_the_seconds_of_a_resumed_run_are_those_of_all_its_parts(interrupted: Path) -> None:
    path = interrupted / "run.json"
    path.write_text(json.dumps(manifest_fields(path) | {"seconds": 1000.0}))
    assert 1000.0 < resume(interrupted).manifest["seconds"] < 2000.0


def test_a_run_without_a_checkpoint_resumes_from_its_start(tmp_path: Path, whole: Callable[[str], Run]) -> None:
    directory = stopped(tmp_path, OPTIMIZERS[0], 30, signal.SIGKILL)
    shutil.rmtree(directory / CHECKPOINTS_FOLDER)
    check_same(resume(directory), whole(OPTIMIZERS[0]))


def test_only_the_newest_two_untagged_checkpoints_are_kept(tmp_path: Path) -> None:
    directory = stopped(tmp_path, OPTIMIZERS[0], 100, None, every=10)
    names = sorted(path.name for path in (directory / CHECKPOINTS_FOLDER).iterdir())
    assert len(names) == 4
    assert len({name.split(".")[0] for name in names}) == 2


def test_a_finished_run_is_not_resumed(whole: Callable[[str], Run]) -> None:
    run = whole(OPTIMIZERS[0])
    with pytest.raises(runner.UsageError, match=r"is finished\n *= run its config again for a new run"):
        resume(run.path)


@pytest.fixture(scope="module")
def interrupted_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stopped(tmp_path_factory.mktemp("interrupted"), OPTIMIZERS[0], 60, None)


@pytest.fixture
def interrupted(interrupted_once: Path, tmp_path: Path) -> Path:
    """The directory of a run that saved its state after 60 rows, for this test alone."""
    return Path(shutil.copytree(interrupted_once, tmp_path / "interrupted"))


def damage(directory: Path, suffix: str, change: Callable[[bytes], bytes]) -> None:
    path = directory / CHECKPOINTS_FOLDER / f"00000060{suffix}"
    path.write_bytes(change(path.read_bytes()))


def flipped(data: bytes) -> bytes:
    """One bit in the middle is another."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def retold(data: bytes, **changed: object) -> bytes:
    """A checkpoint's JSON that tells something else, sealed as a sound one is."""
    told = json.loads(data) | changed
    del told["digest"]
    return json.dumps(told | {"digest": hashlib.sha256(json.dumps(told).encode()).hexdigest()}).encode()


REMOVE = "remove checkpoints/00000060.json to resume from an earlier checkpoint, or from the start"
DAMAGES: dict[str, tuple[str, Callable[[bytes], bytes], str, str]] = {
    "a bit of the tensors is flipped": (
        ".safetensors",
        flipped,
        "the checkpoint's tensors 00000060.safetensors are damaged: their digest does not match",
        REMOVE,
    ),
    "the tensors are truncated": (
        ".safetensors",
        lambda data: data[:100],
        "the checkpoint's tensors 00000060.safetensors are damaged: their digest does not match",
        REMOVE,
    ),
    "the JSON is truncated": (
        ".json",
        lambda data: data[:100],
        "the checkpoint 00000060.json is truncated or damaged: it is not JSON",
        REMOVE,
    ),
    "a bit of a number is flipped": (
        ".json",
        lambda data: data.replace(b'"row": 60', b'"row": 61'),
        "the checkpoint 00000060.json is damaged: its digest does not match",
        REMOVE,
    ),
    "a bit of the digest is flipped": (
        ".json",
        lambda data: data[:-3] + bytes([data[-3] ^ 1]) + data[-2:],
        "the checkpoint 00000060.json is damaged: its digest does not match",
        REMOVE,
    ),
    "another format": (
        ".json",
        lambda data: retold(data, format=9),
        "the checkpoint 00000060.json has format 9, and this version reads 3",
        "resume with the version that wrote it",
    ),
    "another torch": (
        ".json",
        lambda data: retold(data, torch="2.0.0"),
        f"the checkpoint 00000060.json was written with torch 2.0.0, and this is torch {torch.__version__}",
        "later bits may differ: resume with torch 2.0.0",
    ),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_checkpoint_is_told_and_nothing_is_overwritten(what: str, interrupted: Path) -> None:
    suffix, change, message, hint = DAMAGES[what]
    damage(interrupted, suffix, change)
    rows = open_run(interrupted).to_arrow()
    with pytest.raises(runner.RunError, match=re.escape(message)) as caught:
        resume(interrupted)
    assert caught.value.problems == (Problem(message, hint),)
    assert open_run(interrupted).to_arrow().equals(rows)


def test_tensors_that_are_gone_are_told(interrupted: Path) -> None:
    (interrupted / CHECKPOINTS_FOLDER / "00000060.safetensors").unlink()
    message = "the checkpoint's tensors 00000060.safetensors cannot be read: No such file or directory"
    with pytest.raises(runner.RunError, match=message) as caught:
        resume(interrupted)
    assert caught.value.problems == (Problem(message, REMOVE),)


def test_any_flipped_bit_of_the_json_is_noticed_or_means_the_same(interrupted: Path) -> None:
    path = interrupted / CHECKPOINTS_FOLDER / "00000060.json"
    sound = path.read_bytes()
    told = read_checkpoint(path)
    drawn = random.Random(0)
    for _ in range(400):
        position = drawn.randrange(len(sound))
        path.write_bytes(sound[:position] + bytes([sound[position] ^ 1 << drawn.randrange(8)]) + sound[position + 1 :])
        with contextlib.suppress(runner.RunError):
            assert read_checkpoint(path) == told


def test_once_the_damaged_checkpoint_is_removed_an_earlier_one_is_gone_on_from(
    interrupted: Path, whole: Callable[[str], Run]
) -> None:
    (interrupted / CHECKPOINTS_FOLDER / "00000060.json").unlink()
    earlier = latest_checkpoint(interrupted, 60)
    assert earlier is not None
    assert earlier.name < "00000060.json"
    check_same(resume(interrupted), whole(OPTIMIZERS[0]))


EDITS = [
    ("0.01 / t", "0.02 / t", "`optimizer.adam.lr` was `0.01 / t` and is `0.02 / t`"),
    (
        "shape: [8, 8], init: {normal: {std: 0.5}}",
        "shape: [8, 8], init: ones",
        "`parameters.w.init.normal.std` was removed, `parameters.w.init` was added",
    ),
    ("n: 40", "n: 41", "`constants.n` was `40` and is `41`"),
    ("tanh", "sigmoid", "`expression` changed"),
    ("every: 7", "every: 6", "`steps.0.repeat.steps.1.every` was `7` and is `6`"),
    (
        "times: 2, steps: [train]",
        "times: 2, steps: [backward]",
        '`steps.1.repeat.steps.0.repeat.steps` was `["train"]` and is `["backward"]`',
    ),
    ("constants:", "seed: 1\nconstants:", "`seed` was added"),
    (", requires_grad: false", "", "`parameters.average.requires_grad` was removed"),
    ("state: true", "state: false", "`log.state` was `true` and is `false`"),
]
PUT_BACK = "undo the change to resume, or run the changed config as a new run"


@pytest.mark.parametrize("checkpoints", [True, False])
@pytest.mark.parametrize(("old", "new", "told"), EDITS)
def test_an_edited_config_of_a_run_is_refused_and_says_which_field_differs(
    old: str, new: str, told: str, checkpoints: bool, interrupted: Path
) -> None:
    if not checkpoints:
        shutil.rmtree(interrupted / CHECKPOINTS_FOLDER)
    config = interrupted / "config.yaml"
    text = config.read_text()
    assert text.count(old) == 1
    config.write_text(text.replace(old, new))
    message = f"{config} has changed since the run began: {told}"
    with pytest.raises(runner.RunError, match=re.escape(message)) as caught:
        resume(interrupted)
    assert caught.value.problems == (Problem(message, PUT_BACK),)


def test_what_no_row_depends_on_may_be_edited(interrupted: Path, whole: Callable[[str], Run]) -> None:
    config = interrupted / "config.yaml"
    config.write_text(f"description: resumed\non_nonfinite: warn\n{config.read_text()}")
    check_same(resume(interrupted), whole(OPTIMIZERS[0]))


def test_a_checkpoint_of_another_config_says_which_field_differs(interrupted: Path, tmp_path: Path) -> None:
    other = stopped(tmp_path, OPTIMIZERS[0].replace("0.01", "0.02"), 60, None)
    for path in (other / CHECKPOINTS_FOLDER).iterdir():
        shutil.copy(path, interrupted / CHECKPOINTS_FOLDER)
    told = "`optimizer.adam.lr` was `0.02 / t` and is `0.01 / t`"
    message = f"the checkpoint 00000060.json belongs to another config: {told}"
    with pytest.raises(runner.RunError, match=re.escape(message)) as caught:
        resume(interrupted)
    assert caught.value.problems == (Problem(message, PUT_BACK),)


WITHHELD = """\
parameters: {x: [1.0, 2.0], w: {init: 3}}
expression: f = (x * w).sum() ** 2
optimizer: {sgd: {lr: 0.001}}
steps:
  - repeat:
      times: 2
      steps:
        - repeat:
            times: 9
            steps:
              - train
              - {checkpoint: , when: iteration == 5}
              - {forward: , when: iteration == 5}
              - {stop: , when: iteration == 5}
  - forward
log: {every: 4}
"""


def test_a_disk_that_is_full_again_after_resuming_tells_every_row_that_is_there(
    tmp_path: Path, whole: Callable[[str], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    directory = stopped(tmp_path, OPTIMIZERS[0], 50, None)
    with monkeypatch.context() as patch:
        patch.setattr("runner.record.rows.parts.write_atomically", full)
        with pytest.raises(runner.RunError, match="No space left on device") as caught:
            resume(directory)
    (problem,) = caught.value.problems
    assert problem.message == f"cannot write rows to {directory / 'rows'}: No space left on device"
    resumes = f"free space, and `steprun resume {directory}` goes on, or log less"
    assert problem.hint == f"50 rows are on disk and readable; {resumes}"
    assert open_run(directory).status == "failed"
    check_same(resume(directory), whole(OPTIMIZERS[0]))


@pytest.mark.slow
@pytest.mark.parametrize("row", range(1, 8))
def test_rows_that_the_log_withholds_are_kept_by_a_checkpoint(row: int, tmp_path: Path) -> None:
    """The fifth iteration is the last one only because of the `stop` that comes after the checkpoint."""
    path = tmp_path / "run.yaml"
    path.write_text(WITHHELD)
    whole = runner.run(path, runs_dir=tmp_path)
    assert [line.iteration for line in whole.rows()] == [1, 4, 5, 5, 4, 5, 5, 1]
    check_same(resume(stopped_after(row, path, tmp_path)), whole)


def test_rows_that_the_log_withholds_outlive_a_kill_after_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(WITHHELD)
    whole = runner.run(path, runs_dir=tmp_path)
    directory = create_run_directory(tmp_path, "run", datetime.now())

    def see(line: Row) -> None:
        if line.iteration == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_recorded(runner.compile(runner.load(path)), directory, see=see)
    assert len(list((directory / CHECKPOINTS_FOLDER).glob("*.json"))) == 1
    check_same(resume(directory), whole)


def test_a_checkpoint_that_finds_the_disk_full_ends_the_run_and_loses_no_row(
    tmp_path: Path, whole: Callable[[str], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG % OPTIMIZERS[0])
    seen: list[int] = []

    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def see(row: Row) -> None:
        seen.append(row.number)
        if row.number == 45:
            monkeypatch.setattr(checkpoints_module, "write_atomically", full)

    directory = create_run_directory(tmp_path, "run", datetime.now())
    message = f"cannot write a checkpoint to {directory / CHECKPOINTS_FOLDER}: No space left on device"
    with pytest.raises(runner.RunError, match=re.escape(message)) as caught:
        run_recorded(runner.compile(runner.load(path)), directory, see=see)
    hint = f"free space, and `steprun resume {directory}` goes on"
    assert caught.value.problems == (Problem(message, hint),)
    failed = open_run(directory)
    assert (failed.status, len(failed)) == ("failed", len(seen))
    assert failed.manifest["failure"]["problems"][0]["message"] == message
    monkeypatch.undo()
    check_same(resume(directory), whole(OPTIMIZERS[0]))


def test_a_checkpoint_holds_no_pickle(tmp_path: Path) -> None:
    directory = stopped(tmp_path, OPTIMIZERS[3], 20, None)
    for path in (directory / CHECKPOINTS_FOLDER).iterdir():
        assert path.suffix in (".json", ".safetensors")
        if path.suffix == ".json":
            json.loads(path.read_text())
