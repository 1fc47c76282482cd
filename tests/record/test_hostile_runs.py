"""A run directory from a stranger: nothing outside it is read, written or removed, and nothing in it is waited for."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save

import runner
from runner.plan.tensors.run_files import CHECKPOINTS_FOLDER
from runner.record import create_run_directory, list_runs
from runner.record.directory import locked
from runner.record.reading import Run, open_run
from runner.record.resuming import resume
from runner.record.running import run_recorded
from tests.config.test_safe_files import HOSTILE
from tests.config.test_safe_files import victim as victim  # a fixture
from tests.manifests import manifest_fields
from tests.record.stopping import OPTIMIZERS, check_same, stopped, whole_runs

GIB = 1 << 30


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    return whole_runs(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def interrupted_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stopped(tmp_path_factory.mktemp("interrupted"), OPTIMIZERS[0], 60, None)


@pytest.fixture
def hostile(interrupted_once: Path, tmp_path: Path) -> Path:
    """A run directory that a test may spoil."""
    return Path(shutil.copytree(interrupted_once, tmp_path / "runs" / "run" / "hostile"))


def test_links_at_the_names_of_temporary_files_are_not_followed(hostile: Path, victim: Path, whole: Any) -> None:
    for name in ("run.json", "config.yaml", "00000.parquet", "00001.parquet", "00000060.json"):
        (hostile / f".{name}.writing").symlink_to(victim / "precious")
        (hostile / CHECKPOINTS_FOLDER / f".{name}.writing").symlink_to(victim / "precious")
    check_same(resume(hostile), whole(OPTIMIZERS[0]))


def test_checkpoints_elsewhere_are_not_read_nor_tidied(hostile: Path, victim: Path) -> None:
    shutil.rmtree(hostile / CHECKPOINTS_FOLDER)
    (hostile / CHECKPOINTS_FOLDER).symlink_to(victim)
    message = f"checkpoints cannot be read from {hostile / CHECKPOINTS_FOLDER}: it is a link"
    with pytest.raises(runner.RunError, match=re.escape(message)):
        resume(hostile)


def test_rows_elsewhere_are_not_written(hostile: Path, victim: Path) -> None:
    shutil.rmtree(hostile / "rows")
    (hostile / "rows").symlink_to(victim)
    with pytest.raises(runner.RunError, match=r"00000.parquet is damaged: it cannot be read: it is a link"):
        resume(hostile)


def test_what_lies_beside_checkpoints_is_not_removed(hostile: Path, whole: Any) -> None:
    kept = ["model.safetensors", "notes.json.txt", "best.safetensors"]
    for name in kept:
        (hostile / CHECKPOINTS_FOLDER / name).write_text("precious")
    check_same(resume(hostile), whole(OPTIMIZERS[0]))
    assert {*kept} <= set(os.listdir(hostile / CHECKPOINTS_FOLDER))


def test_runs_of_a_name_that_is_a_link_are_not_made_elsewhere(tmp_path: Path, victim: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "linear").symlink_to(victim)
    with pytest.raises(runner.RunError, match=r"cannot make a run directory in .*runs/linear: it is a link"):
        create_run_directory(tmp_path / "runs", "linear", datetime.now())


# --- what is no ordinary file


FILES = {
    "run.json": "is not a run directory: cannot read run.json: {told}",
    "config.yaml": "cannot read {path}: {told}",
    "rows/00000.parquet": "",
    "checkpoints/00000060.json": "the checkpoint 00000060.json cannot be read: {told}",
    "checkpoints/00000060.safetensors": "the checkpoint's tensors 00000060.safetensors cannot be read: {told}",
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("file", FILES)
def test_only_ordinary_files_of_a_run_are_read(file: str, what: str, hostile: Path, victim: Path) -> None:
    make, told = HOSTILE[what]
    path = hostile / file
    path.unlink()
    make(path)
    if file.startswith("rows") and what == "sparse":
        os.truncate(path, 2**26)  # a part may be as large as this one was: its digest just takes longer
    told = re.sub(", and at most.*", "", told)
    ended: BaseException | None = None
    for act in (open_run, resume):
        try:
            act(hostile)
        except runner.SteprunError as error:
            ended = error
    if file.startswith("rows") and what != "sparse":
        return  # what is no ordinary file is no part: the rows are computed again
    if file == "checkpoints/00000060.json" and what not in ("sparse",):
        return  # what is no ordinary file is no checkpoint: an earlier one is taken
    assert ended is not None
    expected = FILES[file].format(told=told, path=path) or f"{path} is damaged: its digest does not match"
    assert expected in str(ended)


@pytest.mark.parametrize("what", HOSTILE)
def test_one_bad_directory_does_not_stop_a_listing(what: str, hostile: Path, interrupted_once: Path) -> None:
    sound = Path(shutil.copytree(interrupted_once, hostile.parent / "sound"))
    make, told = HOSTILE[what]
    (hostile / "run.json").unlink()
    make(hostile / "run.json")
    listed = {run.path: run for run in list_runs(hostile.parent.parent)}
    assert listed[sound].status == "interrupted"
    assert listed[hostile].status == "unreadable"
    assert re.sub(", and at most.*", "", told) in str(listed[hostile].failure)


def test_links_in_a_circle_do_not_stop_a_listing(hostile: Path) -> None:
    (hostile.parent / "a").symlink_to("b")
    (hostile.parent / "b").symlink_to("a")
    (hostile.parent.parent / "c").symlink_to("c")
    (hostile.parent.parent / "d").symlink_to(".")
    assert hostile in [run.path for run in list_runs(hostile.parent.parent)]


@pytest.mark.parametrize("what", ["sparse", "text"])
def test_a_part_that_cannot_be_read_does_not_stop_a_listing(what: str, hostile: Path) -> None:
    change(hostile, rows=None)
    with (hostile / "rows" / "00000.parquet").open("wb") as file:
        file.truncate(3 * GIB if what == "sparse" else 7)
    (listed,) = list_runs(hostile.parent.parent)
    assert (listed.status, listed.rows) == ("interrupted", None)


def test_a_part_of_another_run_is_refused(hostile: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text("parameters: {x: 1.0}\nexpression: x ** 2\noptimizer: {sgd: {lr: 0.1}}\nsteps: 2\n")
    other = runner.run(path, runs_dir=tmp_path / "others")
    shutil.copy(other.path / "rows" / "00000.parquet", hostile / "rows" / "00007.parquet")
    with pytest.raises(runner.RunError, match=r"00007.parquet is damaged: its columns are not those of the run"):
        open_run(hostile)


# --- run.json


def change(directory: Path, **fields: object) -> None:
    path = directory / "run.json"
    path.write_text(json.dumps(manifest_fields(path) | fields))


VALUES = [None, True, -1, 1.5, float("inf"), 1 << 70, "text", "\0", [], [1], [[]], {}, {"a": 1}, {"problems": [1]}]


def names_of_manifest(directory: Path) -> list[str]:
    return [*manifest_fields(directory / "run.json"), "resumed"]


def test_fields_of_other_types_end_in_no_other_exception(hostile: Path) -> None:
    sound = (hostile / "run.json").read_bytes()
    for name in names_of_manifest(hostile):
        for value in VALUES:
            (hostile / "run.json").write_bytes(sound)
            change(hostile, **{name: value})
            assert len(list_runs(hostile.parent.parent)) == 1
            try:
                run = open_run(hostile)
            except (runner.UsageError, runner.RunError) as error:
                told = ("is not the manifest of a run", "its columns are not those of the run")
                assert any(text in str(error) for text in told)  # noqa: PT017
            else:
                run._repr_html_()


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("rows", "3", "`rows` is not a whole number, 0 or more, or null"),
        ("rows", True, "`rows` is not a whole number, 0 or more, or null"),
        ("seconds", float("inf"), "`seconds` is not a number of seconds, or null"),
        ("failure", {"problems": [{}]}, "`failure` is not a failure with its problems, or null"),
        ("data_folders", ["a\0b"], "`data_folders` is not a list of paths"),
        ("config_fields", {"seed": 1}, "`config_fields` is not a mapping of strings"),
        ("environment", [], "`environment` is not a mapping"),
    ],
)
def test_a_field_of_another_type_is_told(name: str, value: object, told: str, hostile: Path) -> None:
    change(hostile, **{name: value})
    with pytest.raises(runner.UsageError, match=re.escape(f"run.json is not the manifest of a run: {told}")):
        resume(hostile)


@pytest.mark.parametrize("content", [b"[" * 100_000, b"[" + b"{}," * 1_000_000 + b"{}]"])
def test_a_manifest_that_would_take_the_memory_is_refused(content: bytes, hostile: Path) -> None:
    (hostile / "run.json").write_bytes(content)
    with pytest.raises(runner.UsageError, match=r"run.json is not valid JSON"):
        open_run(hostile)


# --- checkpoints


def forge(
    directory: Path, edit: Callable[[dict[str, Any]], None], tensors: dict[str, torch.Tensor] | None = None
) -> None:
    """Change what the newest checkpoint tells, sealed as a sound one is; the others are removed."""
    folder = directory / CHECKPOINTS_FOLDER
    newest = max(folder.glob("*.json"))
    for path in folder.glob("*.json"):
        if path != newest:
            path.unlink()
    told = json.loads(newest.read_bytes())
    if tensors is not None:
        data = save(tensors)
        (folder / told["tensors"]).write_bytes(data)
        told["sha256"] = hashlib.sha256(data).hexdigest()
    state = dict(told["state"]["mapping"])
    edit(state)
    told["state"]["mapping"] = [[key, value] for key, value in state.items()]
    del told["digest"]
    newest.write_text(json.dumps(told | {"digest": hashlib.sha256(json.dumps(told).encode()).hexdigest()}))


def setting(**fields: object) -> Callable[[dict[str, Any]], None]:
    return lambda state: state.update(fields)


def optimizer_steps(steps: object) -> Callable[[dict[str, Any]], None]:
    def edit(state: dict[str, Any]) -> None:
        ((_, optimizer),) = state["optimizers"]["mapping"]
        optimizer["mapping"][0][1] = steps

    return edit


def first_weight(value: object) -> Callable[[dict[str, Any]], None]:
    def edit(state: dict[str, Any]) -> None:
        state["weights"]["mapping"][0][1] = value

    return edit


FORGED: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "position": (setting(position=1_000), "`position` is 1,000, and at most"),
    "negative position": (setting(position=-1), "`position` is not a whole number, 0 or more"),
    "position as text": (setting(position="1"), "`position` is not a whole number, 0 or more"),
    "iterations": (
        setting(iterations={"list": [10**9, 0, 0]}),
        "the iteration of loop 0 is 1,000,000,000, and at most 40",
    ),
    "negative iterations": (setting(iterations={"list": [-1, 0, 0]}), "the iteration of loop 0 is not a whole number"),
    "a loop more": (setting(iterations={"list": [1, 0, 0, 0]}), "`iterations` is not a list of 3 numbers"),
    "a loop not begun": (setting(iterations={"list": [0, 0, 0]}), "`position` is in a loop that has not begun"),
    "row": (setting(row=59), "it has two different row counts"),
    "evaluations": (setting(evaluations=-5), "a counter is not a whole number, 0 or more"),
    "observations": (setting(observations=True), "a counter is not a whole number, 0 or more"),
    "steps": (optimizer_steps(-1), "the steps of the optimizer `optimizer` is not a whole number"),
    "steps beyond a float": (
        optimizer_steps(1 << 62),
        "the steps of the optimizer `optimizer` is 4,611,686,018,427,387,904",
    ),
    "a weight that is a number": (first_weight(1.0), "the weight of `w` is not a tensor of float32 (8, 8)"),
    "a weight that is not there": (first_weight({"tensor": "t999", "complex": False}), "it contains an invalid value"),
    "values": (setting(values={"mapping": [["__class__", 1]]}), "`values` names `__class__`, which no step computes"),
    "withheld": (setting(withheld={"list": [1]}), "an entry of `withheld` is not a loop"),
    "last": (setting(last={"list": [{"list": [0, {"list": []}]}]}), "a withheld row does not belong to a step"),
    "batches": (setting(batches={"mapping": [["train", 1]]}), "`batches` is not an empty mapping"),
    "no mapping": (setting(weights={"list": []}), "`weights` is not a mapping of w, b, average"),
    "a key more": (setting(more=1), "it is not a mapping of"),
}


@pytest.mark.parametrize("what", FORGED)
def test_forged_positions_and_counters_are_refused(what: str, hostile: Path) -> None:
    edit, told = FORGED[what]
    forge(hostile, edit)
    before = (hostile / "run.json").read_bytes()
    with pytest.raises(runner.RunError, match=re.escape(told)) as caught:
        resume(hostile)
    assert "remove checkpoints/00000060.json to resume from an earlier checkpoint" in str(caught.value)
    assert (hostile / "run.json").read_bytes() == before


def test_a_sound_checkpoint_is_taken_after_all(hostile: Path, whole: Any) -> None:
    forge(hostile, setting())
    check_same(resume(hostile), whole(OPTIMIZERS[0]))


@pytest.mark.parametrize(
    "name",
    ["../../../../victim/precious", "/etc/passwd", "..", "", "../run.json", "a\0b", "sub/../00000060.safetensors"],
)
def test_a_checkpoint_names_no_file_elsewhere(name: str, hostile: Path, victim: Path) -> None:
    path = hostile / CHECKPOINTS_FOLDER / "00000060.json"
    told = json.loads(path.read_bytes()) | {"tensors": name}
    del told["digest"]
    path.write_text(json.dumps(told | {"digest": hashlib.sha256(json.dumps(told).encode()).hexdigest()}))
    with pytest.raises(runner.RunError, match=r"is not the name of a file"):
        resume(hostile)


def test_tensors_of_other_shapes_are_refused(hostile: Path) -> None:
    names = load_file(hostile / CHECKPOINTS_FOLDER / "00000060.safetensors")
    forge(hostile, setting(), {name: torch.zeros(3) for name in names})
    with pytest.raises(runner.RunError, match=re.escape("the weight of `w` is not a tensor of float32 (8, 8)")):
        resume(hostile)


def test_tensors_that_are_no_safetensors_are_refused(hostile: Path) -> None:
    folder = hostile / CHECKPOINTS_FOLDER
    (folder / "00000060.safetensors").write_bytes(b"\xff" * 100)
    told = json.loads((folder / "00000060.json").read_bytes()) | {"sha256": hashlib.sha256(b"\xff" * 100).hexdigest()}
    del told["digest"]
    sealed = told | {"digest": hashlib.sha256(json.dumps(told).encode()).hexdigest()}
    (folder / "00000060.json").write_text(json.dumps(sealed))
    with pytest.raises(runner.RunError, match=r"00000060.safetensors are not a `.safetensors` file"):
        resume(hostile)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_every_optimizer_keeps_is_taken(optimizer: str, tmp_path: Path, whole: Any) -> None:
    check_same(resume(stopped(tmp_path, optimizer, 50, None)), whole(optimizer))


# --- two at once, and kills


def test_one_of_two_resumptions_goes_on(hostile: Path, whole: Any) -> None:
    with (
        locked(hostile),
        pytest.raises(runner.UsageError, match=r"is running: another process is writing to it") as caught,
    ):
        resume(hostile)
    assert caught.value.problems[0].hint == "wait for it, or end its process"
    check_same(resume(hostile), whole(OPTIMIZERS[0]))


def test_a_run_that_is_running_is_not_resumed_whatever_its_manifest_says(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("parameters: {x: 1.0}\nexpression: x ** 2\noptimizer: {sgd: {lr: 0.1}}\nsteps: 3\n")
    seen = []

    def see(row: runner.Row) -> None:
        (directory,) = (tmp_path / "runs" / "run").iterdir()
        if not seen:
            change(directory, status="interrupted")
            with pytest.raises(runner.UsageError, match=r"is running: another process is writing to it"):
                resume(directory)
        seen.append(row.number)

    run_recorded(
        runner.compile(runner.load(path)), create_run_directory(tmp_path / "runs", "run", datetime.now()), see=see
    )
    assert seen == [0, 1, 2, 3]


@pytest.mark.slow
def test_a_killed_resumption_leaves_no_lock_and_what_it_was_writing_is_removed(hostile: Path, whole: Any) -> None:
    code = """
import os, signal, sys
from runner.record.resuming import resume
fsync = os.fsync
def killing(descriptor):
    fsync(descriptor)
    os.kill(os.getpid(), signal.SIGKILL)
os.fsync = killing
resume(sys.argv[1])
"""
    subprocess.run([sys.executable, "-c", code, str(hostile)], check=False)
    assert [name for name in os.listdir(hostile) if name.endswith(".writing")]
    check_same(resume(hostile), whole(OPTIMIZERS[0]))
    assert [name for name in os.listdir(hostile) if name.endswith(".writing")] == []
