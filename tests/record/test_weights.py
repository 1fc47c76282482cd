"""The weights that a run leaves, as any reader of safetensors finds them."""

from __future__ import annotations

import os
import re
import textwrap
from datetime import datetime
from pathlib import Path

import pandas
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import runner
from runner import ConfigError, RunError, UsageError
from runner.record.checkpoints.tensor_file import pieces_of, read_tensors
from runner.record.directory import create_run_directory
from runner.record.reading import open_run
from runner.record.resuming import resume
from runner.record.running import run_recorded

CONFIG = """\
name: some
parameters: {w: {shape: [3, 4], init: normal}, scale: {shape: [4], init: ones}, none: {shape: [0, 2]%s}}
constants: {x: {shape: [5, 3], init: normal}}
expression: loss = ((x @ w * scale) ** 2).mean() + none.sum()
optimizer: {adam: {lr: 0.1}}
steps: 5
"""
CONFIG %= ", init: ones"


def write(folder: Path, text: str = CONFIG) -> Path:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_finished_run_leaves_its_last_weights_under_their_own_names(tmp_path: Path) -> None:
    run = runner.run(write(tmp_path), runs_dir=tmp_path)
    loaded = load_file(run.path / "weights.safetensors")
    assert sorted(loaded) == ["none", "scale", "w"]
    for name, weight in loaded.items():
        assert torch.equal(weight, run.tensor(name)[-1])
        assert torch.equal(run.weights[name], weight)
    assert list(run.weights) == ["w", "scale", "none"]
    assert len(run.weights) == 3
    with safe_open(run.path / "weights.safetensors", "pt") as file:
        metadata = file.metadata()
    assert (metadata["format"], metadata["run"], metadata["row"]) == ("pt", "some", "5")
    assert re.fullmatch("[0-9a-f]{64}", metadata["config"])


def test_the_weights_are_durable_before_the_run_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        events.append(("sync", str(os.fstat(descriptor).st_ino)))

    def renamed(source: str, target: str, **folders: int) -> None:
        events.append(("rename", target))
        content = os.stat(source, dir_fd=folders["src_dir_fd"]).st_ino
        assert target in ("config.yaml", "run.json", "rows.json", "latest") or ("sync", str(content)) in events, target
        replace(source, target, **folders)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    (tmp_path / "c.yaml").write_text(
        "parameters: {w: 1.0}\nexpression: f = w * w\noptimizer: {sgd: {lr: 0.1}}\nsteps: 3\n"
    )
    run = runner.run(tmp_path / "c.yaml", runs_dir=tmp_path / "runs")
    weights = events.index(("rename", "weights.safetensors"))
    finished = len(events) - 1 - events[::-1].index(("rename", "run.json"))
    assert weights < finished
    assert ("sync", str(run.path.stat().st_ino)) in events[finished:]


def test_the_metadata_has_the_digest_of_the_config(tmp_path: Path) -> None:
    def digest(*overrides: str) -> str:
        run = runner.run(write(tmp_path), overrides, runs_dir=tmp_path)
        with safe_open(run.path / "weights.safetensors", "pt") as file:
            return str(file.metadata()["config"])

    assert digest() == digest("description=another") != digest("steps=6")


DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
    "complex64": torch.complex64,
    "complex128": torch.complex128,
    "bool": torch.bool,
    "uint8": torch.uint8,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "float8_e4m3fn": torch.float8_e4m3fn,
    "float8_e5m2": torch.float8_e5m2,
    "float8_e4m3fnuz": torch.float8_e4m3fnuz,
    "float8_e5m2fnuz": torch.float8_e5m2fnuz,
    "float8_e8m0fnu": torch.float8_e8m0fnu,
}
NOT_IN_THE_FORMAT = ("complex128", "float8_e8m0fnu")


def example(dtype: torch.dtype) -> torch.Tensor:
    """A tensor with many bit patterns of a dtype, NaN and infinity among them."""
    generator = torch.Generator().manual_seed(0)
    if dtype == torch.bool:
        return torch.randint(0, 2, (6, 5), generator=generator) == 1
    content = torch.randint(0, 256, (6, 5 * dtype.itemsize), dtype=torch.uint8, generator=generator)
    return content.view(dtype)


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_keeps_its_bits(name: str, tmp_path: Path) -> None:
    tensor = example(DTYPES[name])
    path = tmp_path / "file.safetensors"
    path.write_bytes(b"".join(bytes(piece) for piece in pieces_of({"w": tensor, "zero": tensor[0, 0]})))
    with path.open("rb") as file:
        tensors, _ = read_tensors(file, path.name)
    assert {key: (value.dtype, value.shape) for key, value in tensors.items()} == {
        "w": (tensor.dtype, tensor.shape),
        "zero": (tensor.dtype, torch.Size(())),
    }
    for found, expected in ((tensors["w"], tensor), (tensors["zero"], tensor[0, 0])):
        assert raw(found) == raw(expected)
    loaded = load_file(path)["w"]
    assert raw(loaded) == raw(tensor)
    assert (loaded.dtype == tensor.dtype) == (name not in NOT_IN_THE_FORMAT)


def raw(tensor: torch.Tensor) -> list[int]:
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return real.contiguous().reshape(-1).view(torch.uint8).tolist()


def test_a_run_without_weights_says_how_it_would_have_some(tmp_path: Path) -> None:
    run = runner.run(write(tmp_path, CONFIG + "log: {weights: false}\n"), runs_dir=tmp_path)
    assert sorted(path.name for path in run.path.iterdir()) == ["config.yaml", "rows", "rows.json", "run.json"]
    message = f"{run.path} has no weights.safetensors\n      = a run writes it when it ends, unless it says"
    with pytest.raises(runner.UsageError, match=re.escape(message)):
        run.weights.keys()


def test_an_interrupted_run_leaves_the_weights_of_its_last_row_and_a_resumed_one_those_of_its_end(
    tmp_path: Path,
) -> None:
    path = write(tmp_path)
    plan = runner.compile(runner.load(path))
    directory = create_run_directory(tmp_path, "some", datetime.now())
    rows: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        run_recorded(plan, directory, see=lambda row: rows.append(row.number), stop=lambda: rows[-1] == 3)
    run = open_run(directory)
    assert len(run) == 4
    assert torch.equal(run.weights["w"], run.tensor("w")[-1])
    whole = runner.run(path, runs_dir=tmp_path)
    assert resume(directory).weights.path.read_bytes() == whole.weights.path.read_bytes()


def test_a_run_whose_expectation_fails_leaves_the_weights_of_its_last_row(tmp_path: Path) -> None:
    steps = "steps: [{repeat: {times: 5, steps: [train]}}, {expect: {loss < 0: true}}]"
    with pytest.raises(runner.ExpectationError, match="loss < 0"):
        runner.run(write(tmp_path, CONFIG.replace("steps: 5", steps)), runs_dir=tmp_path)
    run = open_run(tmp_path / "some")
    assert (run.status, len(run)) == ("failed", 6)
    assert torch.equal(run.weights["w"], run.tensor("w")[-1])


def test_a_failed_run_leaves_no_weights(tmp_path: Path) -> None:
    path = write(tmp_path, CONFIG.replace("loss = ", "loss = log(-w.sum() ** 2) + "))
    with pytest.raises(runner.RunError, match="`loss` is nan"):
        runner.run(path, runs_dir=tmp_path)
    (directory,) = (tmp_path / "some").iterdir()
    assert open_run(directory).status == "failed"
    assert not (directory / "weights.safetensors").exists()


def test_a_damaged_file_and_a_link_are_told(tmp_path: Path) -> None:
    run = runner.run(write(tmp_path), runs_dir=tmp_path)
    path = run.path / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(runner.RunError, match=r"weights.safetensors is damaged: its digest does not match"):
        open_run(run.path).weights["scale"]
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(runner.UsageError, match=r"cannot read .*weights.safetensors: it is a link"):
        open_run(run.path).weights.keys()
    with pytest.raises(KeyError, match="v"):
        runner.run(write(tmp_path), runs_dir=tmp_path).weights["v"]


def test_the_latest_run_of_a_name_is_the_newest_one(tmp_path: Path) -> None:
    path = write(tmp_path)
    runs = [runner.run(path, runs_dir=tmp_path) for _ in range(3)]
    for name in ("some", "some/latest"):
        assert open_run(tmp_path / name).path == runs[-1].path
    os.symlink(runs[0].path, tmp_path / "some" / "99999999-999999-ffff")
    (tmp_path / "some" / "99999999-999999-0000").mkdir()  # killed before it began
    assert open_run(tmp_path / "some").path == runs[-1].path


def test_two_runs_at_once_leave_a_latest_that_is_whole(tmp_path: Path) -> None:
    plan = runner.compile(runner.load(write(tmp_path)))
    first = create_run_directory(tmp_path, "some", datetime(2026, 11, 29, 12, 0, 0))
    second = create_run_directory(tmp_path, "some", datetime(2026, 11, 29, 12, 0, 1))
    run_recorded(plan, second)
    run_recorded(plan, first)
    assert open_run(tmp_path / "some" / "latest").path == second


def test_a_folder_without_a_run_has_no_latest(tmp_path: Path) -> None:
    (tmp_path / "some").mkdir()
    message = f"there is no run in {tmp_path / 'some'}\n      = `steprun runs` lists the recorded runs"
    with pytest.raises(runner.UsageError, match=re.escape(message)):
        open_run(tmp_path / "some" / "latest")
    with pytest.raises(runner.UsageError, match=r"some is not a run directory: it has no run.json"):
        open_run(tmp_path / "some")


def test_a_path_that_is_almost_that_of_a_run_is_corrected(tmp_path: Path) -> None:
    plan = runner.compile(runner.load(write(tmp_path)))
    directory = create_run_directory(tmp_path / "runs", "some", datetime(2026, 11, 29, 12, 0, 0))
    run_recorded(plan, directory)
    near = str(directory)[:-1]
    config = next(tmp_path.glob("*.yaml"))
    for path, message in (
        (near, f"there is no folder {near}\n      = did you mean `{directory}`?"),
        (tmp_path / "runs/soem", f"did you mean `{tmp_path / 'runs/some'}`?"),
        (tmp_path / "runs/soem/latest", f"did you mean `{tmp_path / 'runs/some/latest'}`?"),
        (directory.with_name("20261129-120001-ffff"), "`steprun runs` lists the recorded runs"),
        (tmp_path / "runs/some/lates", f"did you mean `{tmp_path / 'runs/some/latest'}`?"),
        (tmp_path / "nowhere/at/all", "`steprun runs` lists the recorded runs"),
        (config, f"{config} is a file, not a run directory\n      = `steprun {config}` records a run of it"),
    ):
        with pytest.raises(runner.UsageError, match=re.escape(message)):
            open_run(path)


def test_the_best_checkpoint_has_its_weights_in_a_file_of_their_own(tmp_path: Path) -> None:
    rows = [{"x": 3.0, "y": 1.0}, {"x": -2.0, "y": 0.0}]
    pandas.DataFrame(rows).to_csv(tmp_path / "rows.csv", index=False)
    text = """\
        name: some
        parameters: {w: 0}
        data: {valid: {file: rows.csv, columns: {x: x, y: y}}}
        expression: loss = ((x * w - y) ** 2).mean()
        optimizer: {sgd: {lr: 0.16}}
        steps: [{repeat: {times: 5, steps: [train, {evaluate: valid}, {checkpoint: {best: valid.loss}}]}}]
    """
    run = runner.run(write(tmp_path, textwrap.dedent(text)), runs_dir=tmp_path)
    losses = [float(value) for value in run.values("valid.loss") if value is not None]
    rates = [float(value) for value in run.tensor("w")[1::2]]
    best = load_file(run.path / "weights-best.safetensors")
    assert float(best["w"]) == rates[losses.index(min(losses))]
    assert losses.index(min(losses)) != len(losses) - 1  # it is not that of the last row


FLIPPED = "is damaged: its digest does not match\n      = restore the file from a copy, or run the config again"


@pytest.mark.parametrize("name", ["weights.safetensors", "weights-best.safetensors"])
def test_a_flipped_bit_in_the_weights_is_damage_wherever_they_are_read(name: str, tmp_path: Path) -> None:
    text = CONFIG.replace("steps: 5", "steps: [{repeat: {times: 3, steps: [train, {evaluate: every}, SAVE]}}]")
    text = text.replace("SAVE", "{checkpoint: {best: every.loss, mode: min}}")
    text = text.replace("constants: {x: {shape: [5, 3], init: normal}}\n", "data: {every: {columns: {x: x.csv}}}\n")
    text = text.replace("x @ w", "x[:, None] * w[0]")
    (tmp_path / "x.csv").write_text("x\n1\n2\n")
    run = runner.run(write(tmp_path, text), runs_dir=tmp_path)
    assert set(run.manifest["weights"]) == {"weights.safetensors", "weights-best.safetensors"}
    path, at = run.path / name, "best" if "best" in name else "last"
    content = bytearray(path.read_bytes())
    for place in (9, len(content) - 1):  # in the header, and in the values
        content[place] ^= 4
        path.write_bytes(content)
        with pytest.raises(UsageError, match=re.escape(f"{name} {FLIPPED}")):
            runner.load_model(run.path, at=at)
        head = f"from_run: {{run: {run.path}, at: {at}}}\n"
        with pytest.raises(ConfigError, match=re.escape(f"{name} is damaged: its digest does not match")):
            runner.compile(runner.load(write(tmp_path, head + text)), allowed=[tmp_path])
        if at == "last":
            with pytest.raises(RunError, match=re.escape(f"{name} {FLIPPED}")):
                _ = open_run(run.path).weights
        content[place] ^= 4
    path.write_bytes(content)
    assert runner.load_model(run.path, at=at)
