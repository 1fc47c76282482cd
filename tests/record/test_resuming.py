"""A run that was stopped ends, once resumed, in the bits of a run that never was."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
import torch

import runner
from runner.engine.state import State
from runner.plan import Plan
from runner.record.checkpoints import CHECKPOINTS_FOLDER, latest_checkpoint, save_checkpoint
from runner.record.directory import create_run_directory
from runner.record.reading import Run, open_run
from runner.record.resuming import resume
from runner.record.running import run_recorded
from tests.record.stopping import OPTIMIZERS, check_same, stopped, whole_runs


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
    with pytest.raises(runner.UsageError, match=r"is finished\n *= run its config again for another one"):
        resume(run.path)


def damaged(directory: Path, pattern: str, change: Callable[[bytes], bytes]) -> None:
    for path in (directory / CHECKPOINTS_FOLDER).glob(pattern):
        path.write_bytes(change(path.read_bytes()))


def flipped(data: bytes) -> bytes:
    """One bit in the middle is another."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize(
    ("pattern", "change", "message"),
    [
        (
            "*.safetensors",
            flipped,
            r"tensors \d+\.safetensors are damaged: their digest is another; use an earlier one",
        ),
        ("*.safetensors", lambda data: data[:100], r"tensors \d+\.safetensors are damaged: their digest is another"),
        ("*.json", lambda data: data[:100], r"checkpoint \d+\.json cannot be read: it is truncated or damaged"),
        (
            "*.json",
            lambda data: data.replace(b'"format": 3', b'"format": 9'),
            r"has format 9, and this version reads 3",
        ),
        (
            "*.json",
            lambda data: data.replace(b'"row": 60', b'"row": 61'),  # one bit
            r"checkpoint \d+\.json is damaged: its digest is another; use an earlier one",
        ),
        (
            "*.json",
            lambda data: data.replace(torch.__version__.encode(), b"2.0.0"),
            rf"was written under torch 2\.0\.0, and this is {torch.__version__.replace('+', '.')}",
        ),
    ],
)
def test_a_damaged_checkpoint_is_told_and_nothing_is_overwritten(
    pattern: str, change: Callable[[bytes], bytes], message: str, tmp_path: Path
) -> None:
    directory = stopped(tmp_path, OPTIMIZERS[0], 60, None)
    damaged(directory, pattern, change)
    rows = open_run(directory).to_arrow()
    with pytest.raises(runner.RunError, match=message):
        resume(directory)
    assert open_run(directory).to_arrow().equals(rows)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("0.01 / t", "0.02 / t", "`optimizer.adam.lr` was `0.01 / t` and is `0.02 / t`"),
        ("shape: [8, 8], init: {normal: {std: 0.5}}", "shape: [8, 8], init: ones", None),
        ("n: 40", "n: 41", "`constants.n` was `40` and is `41`"),
        ("tanh", "sigmoid", "`expression` is another"),
        ("every: 7", "every: 6", "`steps.0.repeat.steps.1.every` was `7` and is `6`"),
        ("times: 2, steps: [train]", "times: 2, steps: [backward]", None),
        ("constants:", "seed: 1\nconstants:", "`seed` is new"),
        (", requires_grad: false", "", "`parameters.average.requires_grad` is gone"),
    ],
)
def test_a_checkpoint_of_another_config_says_which_field_differs(
    old: str, new: str, told: str | None, tmp_path: Path
) -> None:
    directory = stopped(tmp_path, OPTIMIZERS[0], 60, None)
    config = directory / "config.yaml"
    text = config.read_text()
    assert text.count(old) == 1
    config.write_text(text.replace(old, new))
    expected = {
        "init: ones": "`parameters.w.init.normal.std` is gone, `parameters.w.init` is new",
        "[backward]": '`steps.1.repeat.steps.0.repeat.steps` was `["train"]` and is `["backward"]`',
    }
    told = told or next(said for key, said in expected.items() if key in new)
    message = f"the checkpoint 00000060.json is of another config: {told}"
    with pytest.raises(runner.RunError, match=re.escape(message)) as caught:
        resume(directory)
    (problem,) = caught.value.problems
    assert problem.hint == "put that back to go on, or run the changed config as a run of its own"


@pytest.mark.parametrize("kept", [True, False])
def test_a_run_whose_config_was_edited_does_not_go_on(kept: bool, tmp_path: Path) -> None:
    directory = stopped(tmp_path, OPTIMIZERS[0], 20, None)
    if not kept:
        shutil.rmtree(directory / CHECKPOINTS_FOLDER)
    config = directory / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("state: true", "state: false"))
    with pytest.raises(runner.UsageError) as caught:
        resume(directory)
    (problem,) = caught.value.problems
    assert problem.message == f"{config} has been edited since the run began"
    assert problem.hint == f"put it back to go on, or run it as a run of its own: `steprun run {config}`"
    config.write_text(text)
    assert resume(directory).status == "finished"


WITHHELD = """\
parameters: {w: 3.0}
expression: f = w ** 2
optimizer: {sgd: {lr: 0.1}}
steps:
  - repeat:
      times: 3
      steps:
        - repeat:
            times: 20
            steps: [train, {assign: {w: w * 0.9}}, checkpoint, {stop: , when: iteration == 7}]
log: {every: 5}
"""


class Killed(Exception):
    pass


@pytest.mark.parametrize("saves", [3, 7, 14, 21])
def test_rows_that_turn_out_to_be_the_last_of_a_loop_are_not_lost(
    saves: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of iteration 7 are withheld until `stop` ends the loop: a checkpoint between the two holds them."""
    path = tmp_path / "run.yaml"
    path.write_text(WITHHELD, encoding="utf-8")
    whole = runner.run(path, runs_dir=tmp_path)
    assert [row.iteration for row in whole.rows()] == [1, 5, 5, 7, 7, 5, 5, 7, 7, 5, 5, 7, 7]
    written: list[Path] = []

    def save(plan: Plan, state: State, directory: Path, tag: str | None) -> None:
        written.append(save_checkpoint(plan, state, directory, tag))
        if len(written) == saves:
            raise Killed

    directory = create_run_directory(tmp_path, "run", datetime.now())
    monkeypatch.setattr("runner.record.running.save_checkpoint", save)
    with pytest.raises(Killed):
        run_recorded(runner.compile(runner.load(path)), directory)
    monkeypatch.undo()
    assert resume(directory).to_arrow().equals(whole.to_arrow())


def test_a_checkpoint_holds_no_pickle(tmp_path: Path) -> None:
    directory = stopped(tmp_path, OPTIMIZERS[3], 20, None)
    for path in (directory / CHECKPOINTS_FOLDER).iterdir():
        assert path.suffix in (".json", ".safetensors")
        if path.suffix == ".json":
            json.loads(path.read_text())
