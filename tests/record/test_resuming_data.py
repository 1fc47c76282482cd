"""A run that draws batches, stopped and resumed: the cursors of its sources go on where they were."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy
import pytest

import runner
import runner.errors
from runner.engine.rows import Row
from runner.record import data_files
from runner.record.checkpoints.fitted import load_fitted
from runner.record.directory import create_run_directory
from runner.record.reading import open_run
from runner.record.resuming import resume
from runner.record.running import run_recorded
from tests.manifests import manifest_fields

CONFIG = """\
parameters: {w: {shape: [3], init: 1}}
data:
  train: {file: points.npz, columns: {x: x, y: y}, batch_size: 4, shuffle: true}
  test: {file: points.npz, columns: {x: x, y: y}, batch_size: 6}
expression: |
  loss = mse_loss(dropout(x, 0.2, training) @ w, y)
optimizer: {sgd: {lr: 0.05, momentum: 0.9}}
steps:
  - for_each:
      data: train
      epochs: 4
      steps:
        - train
        - {next: test, every: 2}
        - forward: {data: test}
        - {evaluate: test, every: 3}
        - {stop: , when: iteration == 14}
  - train
  - train: {data: null}
"""


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [1, 2, 9, 17, 30])
def test_an_interrupted_run_resumes_to_the_same_bits(tmp_path: Path, stop_after: int) -> None:
    directory = interrupted(tmp_path, stop_after)
    assert open_run(directory).status == "interrupted"
    whole = runner.run(tmp_path / "run.yaml", runs_dir=tmp_path)
    resumed = resume(directory, allowed_folders=[tmp_path])
    assert resumed.to_arrow().equals(whole.to_arrow())


def interrupted(tmp_path: Path, stop_after: int = 9) -> Path:
    random = numpy.random.default_rng(0)
    numpy.savez(tmp_path / "points.npz", x=random.normal(size=(18, 3)), y=random.normal(size=18))
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    plan = runner.compile(runner.load(path))
    directory = create_run_directory(tmp_path, "run", datetime.now())

    def see(row: Row) -> None:
        if row.number == stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_recorded(plan, directory, see=see)
    return directory


def change(tmp_path: Path) -> Path:
    """Negate the targets of the data file."""
    file = tmp_path / "points.npz"
    held = dict(numpy.load(file))
    numpy.savez(file, x=held["x"], y=-held["y"])
    return file.resolve()


def test_a_run_is_not_resumed_on_other_data(tmp_path: Path) -> None:
    directory = interrupted(tmp_path)
    file = change(tmp_path)
    with pytest.raises(runner.RunError, match=r"has changed since the run began") as caught:
        resume(directory, allowed_folders=[tmp_path])
    (problem,) = caught.value.problems
    assert problem.message == f"{file} has changed since the run began"
    assert (
        problem.hint
        == "restore the data to resume; --allow-changed-data resumes with the changed data, and records that"
    )
    assert open_run(directory).status == "interrupted"


def test_other_data_that_are_allowed_are_recorded(tmp_path: Path) -> None:
    directory = interrupted(tmp_path)
    file = change(tmp_path)
    run = resume(directory, allowed_folders=[tmp_path], allow_changed_data=True)
    assert run.status == "finished"
    assert run.manifest["resumed"][-1]["changed_data"] == [str(file)]
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert run.manifest["data_files"] == {str(file): {"bytes": file.stat().st_size, "sha256": digest}}


def test_a_file_that_was_touched_is_the_same_file(tmp_path: Path) -> None:
    directory = interrupted(tmp_path)
    os.utime(tmp_path / "points.npz", (0, 0))
    run = resume(directory, allowed_folders=[tmp_path])
    assert run.status == "finished"
    assert "changed_data" not in run.manifest["resumed"][-1]


def test_a_large_file_is_told_by_its_size_its_time_and_its_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_files, "WHOLE_BYTES", 10)
    monkeypatch.setattr(data_files, "END_BYTES", 4)
    path = tmp_path / "d.npy"
    path.write_bytes(b"0123456789abcdef")
    before = data_files.data_files([path])
    assert before[str(path)]["ends_sha256"] == hashlib.sha256(b"0123cdef").hexdigest()
    path.write_bytes(b"0123456789abcdeg")
    os.utime(path, ns=(0, before[str(path)]["modified"]))
    assert data_files.changed(before, data_files.data_files([path])) == [str(path)]


def test_warnings_about_data_are_kept_with_the_run(tmp_path: Path) -> None:
    numpy.savez(tmp_path / "points.npz", x=numpy.array([[1.0], [numpy.nan]]))
    path = tmp_path / "run.yaml"
    path.write_text(
        "parameters: {w: 1.0}\ndata: {train: {file: points.npz, columns: {x: x}}}\n"
        "expression: loss = w * nan_to_num(x).sum()\n",
        encoding="utf-8",
    )
    with pytest.warns(runner.errors.DataWarning, match=r"nan-in-data"):
        run = runner.run(path, runs_dir=tmp_path)
    (warning,) = run.manifest["warnings"]
    assert "nan-in-data: sample 1 of `x` in `train` is NaN" in warning


FITTED = """\
parameters: {w: {shape: [3], init: 1}}
data: {train: {file: points.npz, columns: {x: x, y: y}, batch_size: 4}}
constants:
  mean: {init: {expression: train.x.mean(0)}}
  twist: {init: {expression: "train.y.mean() * complex(tensor(0.0), tensor(1.0))"}}
expression: loss = mse_loss((x - mean) @ w, y + twist.imag)
optimizer: {sgd: {lr: 0.05}}
steps: {epochs: 3}
"""


def test_a_resumed_run_keeps_what_was_fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.record.test_resuming_data.CONFIG", FITTED)
    directory = interrupted(tmp_path, stop_after=3)
    recorded = load_fitted(directory, open_run(directory).manifest)
    points = numpy.load(tmp_path / "points.npz")
    numpy.testing.assert_allclose(recorded["mean"], points["x"].mean(0), rtol=1e-6)
    assert recorded["twist"].item() == pytest.approx(1j * points["y"].mean(), rel=1e-6)
    numpy.savez(tmp_path / "points.npz", x=points["x"] + 1, y=points["y"])
    with pytest.raises(runner.RunError, match=r"points.npz has changed since the run began"):
        resume(directory, allowed_folders=[tmp_path])
    resume(directory, allowed_folders=[tmp_path], allow_changed_data=True)
    kept = load_fitted(directory, open_run(directory).manifest)
    assert {name: value.tolist() for name, value in kept.items()} == {
        name: value.tolist() for name, value in recorded.items()
    }


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), r"cannot read .*fitted.safetensors: No such file or directory"),
        (lambda path: path.write_bytes(b"x" * 200), r"fitted.safetensors is damaged: its digest does not match"),
    ],
)
def test_a_damaged_file_of_fitted_tensors_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None], message: str
) -> None:
    monkeypatch.setattr("tests.record.test_resuming_data.CONFIG", FITTED)
    directory = interrupted(tmp_path, stop_after=3)
    damage(directory / "fitted.safetensors")
    with pytest.raises(runner.RunError, match=message):
        resume(directory, allowed_folders=[tmp_path])


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config whose data file counts as a large one; it is digested in pieces of three bytes."""
    monkeypatch.setattr(data_files, "WHOLE_BYTES", 10)
    monkeypatch.setattr(data_files, "END_BYTES", 4)
    monkeypatch.setattr(data_files, "PIECE_BYTES", 3)
    numpy.savez(tmp_path / "points.npz", x=numpy.ones((18, 3)), y=numpy.ones(18))
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


def test_a_large_file_is_digested_whole_while_the_run_goes_on(large: Path) -> None:
    run = runner.run(large, runs_dir=large.parent)
    data = large.parent / "points.npz"
    found = run.manifest["data_files"][str(data)]
    assert found["bytes"] == data.stat().st_size
    assert found["modified"] == data.stat().st_mtime_ns
    assert found["sha256"] == hashlib.sha256(data.read_bytes()).hexdigest()


def test_a_digest_that_takes_too_long_is_left_out(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_files, "_digest_unless", lambda stop, file: stop.wait(60) and None)
    monkeypatch.setattr(data_files, "PATIENCE", 0.01)
    run = runner.run(large, runs_dir=large.parent)
    assert "sha256" not in run.manifest["data_files"][str(large.parent / "points.npz")]
    assert run.status == "finished"


def test_a_run_that_fails_does_not_wait_for_digests(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[bool] = []
    monkeypatch.setattr(data_files, "_digest_unless", lambda stop, file: waited.append(stop.wait(60)))
    large.write_text(CONFIG + "  - expect: {w: [0, 0, 0]}\n", encoding="utf-8")
    with pytest.raises(runner.ExpectationError, match=r"expect"):
        runner.run(large, runs_dir=large.parent)
    for thread in threading.enumerate():
        if thread.name == "steprun-digests":
            thread.join()
    assert waited == [True]  # the end of the run stopped it


def stopped_then_changed(large: Path, change: Callable[[Path], None]) -> Path:
    """The directory of a run that went to its end, is told as killed, and whose data file then changed."""
    run = runner.run(large, runs_dir=large.parent)
    manifest = manifest_fields(run.path / "run.json")
    (run.path / "run.json").write_text(json.dumps(manifest | {"status": "killed"}))
    change(large.parent / "points.npz")
    return run.path


def test_a_copy_of_a_large_file_is_the_same_file(large: Path) -> None:
    directory = stopped_then_changed(large, lambda path: os.utime(path, ns=(0, 0)))
    assert resume(directory, allowed_folders=[large.parent]).status == "finished"


def test_a_large_file_with_other_values_and_the_same_size_is_refused(large: Path) -> None:
    def change(path: Path) -> None:
        size = path.stat().st_size
        numpy.savez(path, x=numpy.ones((18, 3)), y=numpy.full(18, 2.0))  # its first and last four bytes stay
        os.utime(path, ns=(0, 0))
        assert path.stat().st_size == size

    directory = stopped_then_changed(large, change)
    with pytest.raises(runner.RunError, match=r"points.npz has changed since the run began"):
        resume(directory, allowed_folders=[large.parent])
