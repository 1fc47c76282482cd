"""Weights of another run as a start: the bits of torch with the same weights loaded by hand."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from datetime import datetime
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import runner
from runner.engine.rows import Row
from runner.record.directory import create_run_directory
from runner.record.reading import open_run
from runner.record.resuming import resume
from runner.record.running import run_recorded
from tests.cli.commands import steprun
from tests.engine.compiled.plain import without_compiler
from tests.manifests import manifest_fields
from tests.tables import over

BASE = """\
name: base
parameters: {w: {shape: [3, 4], init: normal}, b: {shape: [4], init: zeros}}
constants: {x: {shape: [5, 3], init: normal}}
expression: loss = ((x @ w + b) ** 2).mean()
optimizer: {adam: {lr: 0.1 / t}}
steps: 10
"""
FINE = "from_run: %s\n" + BASE.replace("name: base", "name: fine").replace("steps: 10", "steps: 4")


def write(folder: Path, text: str, name: str = "run.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def base(tmp_path: Path) -> runner.Run:
    return runner.run(write(tmp_path, BASE, "base.yaml"), runs_dir=tmp_path / "runs")


def fine(folder: Path, start: str = "runs/base/latest", *overrides: str) -> runner.Run:
    return runner.run(write(folder, FINE % start), overrides, runs_dir=folder / "runs")


def by_hand(weights: dict[str, Tensor], x: Tensor, steps: int) -> list[dict[str, Tensor]]:
    """Training by torch alone; the weights after each step."""
    w, b = (torch.nn.Parameter(weights[name].clone()) for name in ("w", "b"))
    optimizer = torch.optim.Adam([w, b], lr=0.1)
    found = []
    for step in range(1, steps + 1):
        optimizer.param_groups[0]["lr"] = 0.1 / step
        optimizer.zero_grad()
        ((x @ w + b) ** 2).mean().backward()
        optimizer.step()
        found.append({"w": w.detach().clone(), "b": b.detach().clone()})
    return found


@pytest.mark.parametrize("start", ["runs/base/latest", "runs/base", "{run: runs/base, at: last}", "file.safetensors"])
def test_training_goes_on_from_the_weights_of_a_run(start: str, base: runner.Run, tmp_path: Path) -> None:
    shutil.copy(base.weights.path, tmp_path / "file.safetensors")
    run = fine(tmp_path, start)
    weights = load_file(base.path / "weights.safetensors")
    assert torch.equal(run.tensor("w")[0], weights["w"])
    state = runner.compile(runner.load(tmp_path / "run.yaml"))
    x = next(iter(runner.execute(state)))  # the constants are not in the rows: draw them as the run does
    assert x["w"] is not None
    from runner.engine.state import initial_state

    x_values = initial_state(state).constants["x"]
    for number, expected in enumerate(by_hand(weights, x_values, 4), 1):
        assert torch.equal(run.tensor("w")[number], expected["w"])
        assert torch.equal(run.tensor("b")[number], expected["b"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own use
def test_the_compile_engine_starts_from_the_same_weights(
    base: runner.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_compiler(monkeypatch)
    compiled = fine(tmp_path, "{run: runs/base, optimizer: true}", "engine=compile")
    eager = fine(tmp_path, "{run: runs/base, optimizer: true}")
    assert torch.equal(compiled.tensor("w")[0], base.tensor("w")[-1])
    torch.testing.assert_close(compiled.tensor("w"), eager.tensor("w"))


@pytest.mark.parametrize(
    "optimizer",
    [
        "{adam: {lr: 0.1 / t}}",
        "{sgd: {lr: 0.01, momentum: 0.9}}",
        "{nadam: {}}",
        "{adagrad: {}}",
        '{rule: {state: {m: 0}, update: "m = 0.9 * m + grad\\nparam = param - 0.01 * m / t"}}',
    ],
)
def test_weights_and_optimizers_together_go_on_as_if_the_run_had_not_ended(optimizer: str, tmp_path: Path) -> None:
    text = BASE.replace("{adam: {lr: 0.1 / t}}", optimizer)
    runner.run(write(tmp_path, text, "base.yaml"), runs_dir=tmp_path / "runs")
    going_on = "from_run: {run: runs/base, optimizer: true}\n" + text.replace("name: base", "name: fine")
    run = runner.run(write(tmp_path, going_on), runs_dir=tmp_path / "runs")
    whole = runner.run(tmp_path / "base.yaml", ["steps=20"], runs_dir=tmp_path / "runs")
    for name in ("w", "b"):
        assert torch.equal(run.tensor(name), whole.tensor(name)[10:])


MEASURED = """\
name: base
parameters: {w: {shape: [3, 4], init: normal}}
data: {train: {columns: {x: x.npy}}}
expression: loss = ((x @ w - 1) ** 2).mean()
optimizer: {adam: {lr: 0.1 / t}}
steps:
  - repeat:
      times: 12
      steps: [train, {evaluate: train}, {checkpoint: {best: train.loss, mode: max}}]
"""
LEAVING = {
    "stop": ("steps: [train, {stop: , when: iteration == 3}]", "last", 3),
    "stop, of which the log has only the last row": (
        "steps: [train, {stop: , when: iteration == 3}]\nlog: {every: 2}",
        "last",
        3,
    ),
    "patience": (
        "steps: [train, {evaluate: train}, {patience: {on: train.loss, evaluations: 2, mode: max}}]",
        "last",
        3,
    ),
    "best": ("steps: [train, {evaluate: train}, {checkpoint: {best: train.loss, mode: max}}]", "best", 1),
}


@pytest.mark.filterwarnings("error")
@over("way", LEAVING)
def test_the_state_at_an_early_end_and_the_best_state_go_on_with_their_optimizer(tmp_path: Path, way: str) -> None:
    numpy.save(tmp_path / "x.npy", numpy.random.default_rng(0).normal(size=(5, 3)).astype(numpy.float32))
    steps, at, taken = LEAVING[way]
    text = MEASURED[: MEASURED.index("      steps:")] + f"      {steps}\n"
    first = runner.run(write(tmp_path, text, "base.yaml"), runs_dir=tmp_path / "runs")
    plain = MEASURED[: MEASURED.index("steps:\n")]
    whole = runner.run(write(tmp_path, f"{plain}steps: {taken + 4}\n", "whole.yaml"), runs_dir=tmp_path / "runs")
    going_on = f"from_run: {{run: {first.path}, at: {at}, optimizer: true}}\n" + plain.replace("base", "fine")
    run = runner.run(write(tmp_path, f"{going_on}steps: 4\n"), runs_dir=tmp_path / "runs")
    assert torch.equal(run.tensor("w"), whole.tensor("w")[taken:])
    if at == "last":
        with pytest.raises(runner.RunError, match="ended before its count, so a larger count changes nothing"):
            resume(first.path, ["steps.0.repeat.times=20"], allowed_folders=[tmp_path])


def test_a_run_that_is_killed_after_an_early_end_resumes_behind_it(tmp_path: Path) -> None:
    numpy.save(tmp_path / "x.npy", numpy.random.default_rng(0).normal(size=(5, 3)).astype(numpy.float32))
    text = MEASURED[: MEASURED.index("      steps:")] + f"      {LEAVING['patience'][0]}\n  - train\n  - train\n"
    whole = runner.run(write(tmp_path, text), runs_dir=tmp_path / "runs")
    for rows in (len(whole) - 3, len(whole) - 1):
        plan = runner.compile(runner.load(tmp_path / "run.yaml"))
        directory = create_run_directory(tmp_path / "stopped", "run", datetime.now())
        seen = iter(range(1, 1000))
        with pytest.raises(KeyboardInterrupt):
            run_recorded(plan, directory, stop=lambda rows=rows, seen=seen: next(seen) == rows)  # type: ignore[misc]
        resumed = resume(directory, allowed_folders=[tmp_path])
        assert torch.equal(resumed.tensor("w"), whole.tensor("w")), rows


def test_a_tag_names_a_checkpoint(tmp_path: Path) -> None:
    text = BASE.replace("steps: 10", "steps: [{repeat: {times: 10, steps: [train, {checkpoint: mid, every: 4}]}}]")
    base = runner.run(write(tmp_path, text, "base.yaml"), runs_dir=tmp_path / "runs")
    assert torch.equal(fine(tmp_path, "{run: runs/base, at: mid}").tensor("w")[0], base.tensor("w")[8])


def test_names_on_one_side_only_are_told(base: runner.Run, tmp_path: Path) -> None:
    name = f"base/{base.path.name}/weights.safetensors"
    text = (FINE % "runs/base").replace("b: {", "c: {").replace("+ b", "+ c")
    plan = runner.compile(runner.load(write(tmp_path, text)))
    assert [(warning.message, warning.path) for warning in plan.warnings] == [
        (f"{name} has no `c`, which keeps its own initial values", "from_run"),
        (f"{name} has `b`, which this config does not declare", "from_run"),
    ]
    shown = steprun("show", "run.yaml", cwd=tmp_path)
    assert f"from_run: {name}\n  gives w\n  own init: c\n  not used: b\n" in shown.out


def test_a_wider_dtype_holds_the_same_values(base: runner.Run, tmp_path: Path) -> None:
    run = fine(tmp_path, "runs/base", "dtype=float64")
    assert torch.equal(run.tensor("w")[0], base.tensor("w")[-1].double())
    compared = steprun("compare", "run.yaml", "--with", "dtype=float64", "--tolerance", "dtype", cwd=tmp_path)
    assert compared.code == 0, compared.err
    with pytest.raises(runner.ConfigError, match=r"`w` is bfloat16, and .*#w is float32\n *= write `dtype: float32`"):
        fine(tmp_path, "runs/base", "dtype=bfloat16")


@pytest.mark.parametrize(
    ("name", "stored", "holds"),
    [
        ("float32", torch.bfloat16, True),
        ("float32", torch.float16, True),
        ("bfloat16", torch.float16, False),
        ("float16", torch.bfloat16, False),
        ("float64", torch.float32, True),
        ("complex128", torch.complex64, True),
        ("complex64", torch.float32, False),
        ("int64", torch.int8, True),
        ("int64", torch.bool, False),
        ("uint8", torch.int8, False),
        ("int16", torch.uint8, True),
        ("float8_e4m3fn", torch.float8_e5m2, False),
        ("float8_e5m2", torch.float8_e5m2, True),
    ],
)
def test_a_dtype_is_taken_if_it_holds_every_value(name: str, stored: torch.dtype, holds: bool, tmp_path: Path) -> None:
    save_file({"v": torch.ones(3).to(stored), "w": torch.ones(1)}, tmp_path / "file.safetensors")
    trains = (
        "" if name.startswith(("float16", "float32", "float64", "bfloat16", "complex")) else ", requires_grad: false"
    )
    text = (
        f"from_run: file.safetensors\nparameters: {{w: [1.0], v: {{shape: [3], init: 0, dtype: {name}{trains}}}}}\n"
        f"expression: loss = w.sum() + v.to(complex128).abs().sum().to(float32)\n"
    )
    config = runner.load(write(tmp_path, text))
    if holds:
        assert next(iter(runner.execute(runner.compile(config))))["v"].tolist() == [1, 1, 1]
    else:
        with pytest.raises(runner.ConfigError, match=re.escape(f"`v` is {name}, and file.safetensors#v is")):
            runner.compile(config)


def test_weights_that_the_format_lacks_go_from_run_to_run(tmp_path: Path) -> None:
    text = (
        "name: base\nparameters: {z: {shape: [2], dtype: complex128, init: normal}}\n"
        "expression: z.abs().sum()\nsteps: 1\noptimizer: {sgd: {}}\n"
    )
    base = runner.run(write(tmp_path, text, "base.yaml"), runs_dir=tmp_path / "runs")
    run = runner.run(write(tmp_path, f"from_run: runs/base\n{text}"), ["name=fine"], runs_dir=tmp_path / "runs")
    assert run.tensor("z").dtype == torch.complex128
    assert torch.equal(run.tensor("z")[0], base.tensor("z")[-1])


# --- the digest of the weights


def other_weights(base: runner.Run) -> None:
    """Gives a run other weights, as one that goes on has them."""
    path, manifest = base.path / "weights.safetensors", base.path / "run.json"
    save_file({name: weight + 1 for name, weight in load_file(path).items()}, path)
    content = manifest_fields(manifest)
    content["weights"]["weights.safetensors"] = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(content), encoding="utf-8")


def test_the_recorded_config_names_the_run_and_notices_other_weights(base: runner.Run, tmp_path: Path) -> None:
    run = fine(tmp_path)
    declared = run.load_config([tmp_path]).from_run
    assert declared is not None
    assert declared.run == str(base.path)
    again = runner.run(run.path / "config.yaml", runs_dir=tmp_path / "again", allowed_folders=[tmp_path])
    assert again.to_arrow().equals(run.to_arrow())
    other_weights(base)
    message = r"from_run.sha256\n(?s:.*)weights.safetensors has other weights than this config was recorded with"
    with pytest.raises(runner.ConfigError, match=message):
        runner.run(run.path / "config.yaml", runs_dir=tmp_path / "again", allowed_folders=[tmp_path])


def test_resuming_on_other_weights_is_refused_or_recorded(base: runner.Run, tmp_path: Path) -> None:
    plan = runner.compile(runner.load(write(tmp_path, FINE % "runs/base")))
    directory = create_run_directory(tmp_path / "runs", "fine", datetime.now())
    rows: list[Row] = []
    with pytest.raises(KeyboardInterrupt):
        run_recorded(plan, directory, see=rows.append, stop=lambda: len(rows) == 3)
    other_weights(base)
    message = f"{base.path}/weights.safetensors has changed since the run began\n      = restore the data to resume"
    with pytest.raises(runner.RunError, match=re.escape(message)):
        resume(directory, allowed_folders=[tmp_path])
    run = resume(directory, allowed_folders=[tmp_path], allow_changed_data=True)
    assert run.manifest["resumed"][0]["changed_data"] == [f"{base.path}/weights.safetensors"]


def test_a_stopped_run_from_weights_resumes_to_the_same_bits(base: runner.Run, tmp_path: Path) -> None:
    whole = fine(tmp_path)
    for every in (None, 2):
        plan = runner.compile(runner.load(tmp_path / "run.yaml"))
        directory = create_run_directory(tmp_path / "runs", "fine", datetime.now())
        rows: list[Row] = []

        def see(row: Row, rows: list[Row] = rows) -> None:
            rows.append(row)
            if len(rows) == 4:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_recorded(plan, directory, see=see, checkpoint_every=every)
        assert resume(directory, allowed_folders=[tmp_path]).to_arrow().equals(whole.to_arrow())


def test_a_snapshot_notices_other_weights(base: runner.Run, tmp_path: Path) -> None:
    shutil.copy(base.weights.path, tmp_path / "file.safetensors")
    write(tmp_path, FINE % "file.safetensors", "fine.yaml")
    assert steprun("snapshot", "fine.yaml", "--budget", "0", cwd=tmp_path).code == 0
    assert steprun("check", "fine.yaml", cwd=tmp_path).code == 0
    save_file({"w": torch.ones(3, 4), "b": torch.ones(4)}, tmp_path / "file.safetensors")
    checked = steprun("check", "fine.yaml", cwd=tmp_path)
    assert checked.code == 3
    assert "file.safetensors" in checked.out


def test_a_run_without_weights_names_its_checkpoints(tmp_path: Path) -> None:
    text = BASE.replace("steps: 10", "steps: [{repeat: {times: 10, steps: [train, {checkpoint: mid, every: 4}]}}]")
    run = runner.run(write(tmp_path, text, "base.yaml"), runs_dir=tmp_path / "runs")
    (run.path / "weights.safetensors").unlink()
    for start, hint in (
        (
            "runs/base",
            "a run writes them when it ends, unless it says `log: {weights: false}`; it has the checkpoint mid",
        ),
        ("{run: runs/base, at: best}", "it has mid"),
    ):
        with pytest.raises(runner.ConfigError, match=r"kept no weights|no checkpoint") as caught:
            fine(tmp_path, start)
        assert caught.value.problems[0].hint == hint
    shutil.rmtree(run.path / "checkpoints")
    with pytest.raises(runner.ConfigError, match="no checkpoint `best`") as caught:
        fine(tmp_path, "{run: runs/base, at: best}")
    assert caught.value.problems[0].hint == "it has none yet"


def test_weights_that_another_run_wrote_are_refused(base: runner.Run, tmp_path: Path) -> None:
    other = runner.run(write(tmp_path, BASE.replace("steps: 10", "steps: 9"), "other.yaml"), runs_dir=tmp_path / "more")
    shutil.copy(other.path / "weights.safetensors", base.path / "weights.safetensors")
    with pytest.raises(runner.ConfigError, match=r"weights.safetensors was not written by this run") as caught:
        fine(tmp_path)
    assert caught.value.problems[0].hint == "restore the file from a copy, or run the config again"


# --- from a stranger


def test_a_link_among_the_files_of_a_run_is_not_followed(base: runner.Run, tmp_path: Path) -> None:
    path = base.path / "weights.safetensors"
    os.rename(path, tmp_path / "elsewhere.safetensors")
    path.symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(runner.ConfigError, match=r"the weights of .* cannot be read: it is a link"):
        fine(tmp_path)
    path.unlink()
    with pytest.raises(runner.ConfigError, match=r"kept no weights"):
        fine(tmp_path)
    shutil.rmtree(base.path / "checkpoints")
    (base.path / "checkpoints").symlink_to(tmp_path)
    with pytest.raises(runner.ConfigError, match=r"the weights of .* cannot be read: it is a link"):
        fine(tmp_path, "{run: runs/base, at: mid}")


def test_a_link_out_of_the_allowed_folders_is_refused(base: runner.Run, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "run").symlink_to(base.path)
    (inner / "file.safetensors").symlink_to(base.weights.path)
    for start in ("run", "file.safetensors"):
        with pytest.raises(runner.ConfigError, match=f"`{start}` is outside the folders that this config may read"):
            runner.compile(runner.load(write(inner, FINE % start)))
    assert runner.compile(runner.load(inner / "run.yaml"), allowed=[tmp_path]).start is not None


def test_a_checkpoint_cannot_name_a_file_elsewhere(base: runner.Run, tmp_path: Path) -> None:
    import hashlib
    import json

    path = base.path / "checkpoints" / "last.json"
    for name in ("../weights.safetensors", str(base.weights.path), "", "..", "gone.safetensors"):
        told = json.loads(path.read_text()) | {"tensors": name}
        del told["digest"]
        told["digest"] = hashlib.sha256(json.dumps(told).encode()).hexdigest()
        path.write_text(json.dumps(told))
        with pytest.raises(runner.ConfigError, match=r"from_run"):
            fine(tmp_path, "{run: runs/base, optimizer: true}")


def test_the_path_is_relative_to_the_file_that_wrote_it(base: runner.Run, tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    write(tmp_path, FINE % "runs/base", "parent.yaml")
    path = write(tmp_path / "configs", "extends: ../parent.yaml\n", "child.yaml")
    run = runner.run(path, runs_dir=tmp_path / "runs", allowed_folders=[tmp_path])
    assert torch.equal(run.tensor("w")[0], base.tensor("w")[-1])
    assert open_run(run.path).manifest["data_files"].keys() == {f"{base.path}/weights.safetensors"}


@over("point", ["12", "99", "9" * 30])
def test_a_point_that_a_sweep_does_not_have_is_refused_with_those_that_it_has(point: str, tmp_path: Path) -> None:
    (tmp_path / "many").mkdir(exist_ok=True)
    (tmp_path / "many" / "sweep.json").write_text('{"status": "finished", "points": 12}')
    with pytest.raises(runner.ConfigError) as caught:
        runner.compile(runner.load(write(tmp_path, FINE % f"'many#{point}'")))
    (problem,) = caught.value.problems
    assert problem.message == f"many has no point {point}"
    assert problem.hint == "its points are 0 to 11"


@over("points", [12, 0])  # 0: a sweep with a sampler of an earlier version
def test_a_point_that_a_sweep_has_is_no_run(points: int, tmp_path: Path) -> None:
    (tmp_path / "many").mkdir(exist_ok=True)
    (tmp_path / "many" / "sweep.json").write_text(json.dumps({"status": "finished", "points": points}))
    with pytest.raises(runner.ConfigError, match="many#11 is a point of a sweep, not a run"):
        runner.compile(runner.load(write(tmp_path, FINE % "'many#11'")))
