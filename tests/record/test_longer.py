"""A finished run that goes on with a larger count ends in the bits of a run that was that long at once."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import load_file

import runner
from runner.engine.rows import Row
from runner.engine.state import State
from runner.record.directory import create_run_directory
from runner.record.manifest import read_manifest
from runner.record.reading import open_run
from runner.record.resuming import lengthen, resume
from runner.record.running import run_recorded
from tests.tables import over

BODY = """\
parameters:
  w: {shape: [6, 6], init: {normal: {std: 0.5}}}
  b: {shape: [6], init: zeros}
  average: {init: {expression: w}, requires_grad: false}
constants: {x: {shape: [12, 6], init: normal}, n: 7}
expression: |
  h = dropout(tanh(x @ w + b), 0.2, training)
  loss = (h ** 2).mean() + 0.01 * n * ((w - average) ** 2).mean()
"""
DATA = """\
parameters: {w: {shape: [3], init: 1}}
data:
  train: {file: points.npz, columns: {x: x, y: y}, batch_size: 4, shuffle: true}
  test: {file: points.npz, columns: {x: x, y: y}, batch_size: 6}
expression: loss = mse_loss(dropout(x, 0.2, training) @ w, y)
"""
LOOPS = {
    "a count": (BODY + "optimizer: {adam: {lr: 0.1}}\nsteps: 7\n", "steps=16"),
    "a schedule": (BODY + "optimizer: {sgd: {lr: 0.1 / t, momentum: 0.9}}\nsteps: n\n", "steps=2 * n"),
    "lbfgs": (BODY + "optimizer: {lbfgs: {lr: 0.1, max_iter: 3}}\nsteps: 3\n", "steps=6"),
    "several optimizers": (
        BODY
        + "optimizers: {one: {adam: {lr: 0.1}, parameters: [w]}, two: {sgd: {lr: 0.1, momentum: 0.5}, "
        + "parameters: [b]}}\nsteps: [{repeat: {times: 4, steps: [{train: {optimizer: one}}, "
        + "{train: {optimizer: two}}]}}]\n",
        "steps.0.repeat.times=9",
    ),
    "steps around the loop": (
        BODY
        + "optimizer: {nadam: {}}\nsteps: [train, {repeat: {times: 3, steps: [train]}}, "
        + "{repeat: {times: 5, steps: [train, {assign: {average: 0.9 * average + 0.1 * w}, every: 2}]}}, "
        + "backward, {assign: {b: average.mean(0)}}]\n",
        "steps.2.repeat.times=12",
    ),
    "a loop in the last loop": (
        BODY
        + "optimizer: {adam: {}}\n"
        + "steps: [{repeat: {times: 3, steps: [{repeat: {times: 2, steps: [train]}}, backward]}}]\n"
        + "log: {every: 2}\n",
        "steps.0.repeat.times=5",
    ),
    "rows of some iterations": (BODY + "optimizer: {adam: {}}\nsteps: 8\nlog: {every: 3}\n", "steps=14"),
    "one iteration without a row": (BODY + "optimizer: {adam: {}}\nsteps: 1\nlog: {every: 3}\n", "steps=7"),
    "no iteration": (BODY + "optimizer: {adam: {}}\nsteps: 0\n", "steps=4"),
    "optimizer state in the log": (BODY + "optimizer: {adam: {}}\nsteps: 5\nlog: {state: true}\n", "steps=9"),
    "statistics in the log": (BODY + "optimizer: {adam: {}}\nsteps: 5\nlog: {tensors: stats}\n", "steps=9"),
    "a step that may stop": (
        BODY
        + "optimizer: {adam: {}}\nsteps: [{repeat: {times: 5, steps: [train, {stop: , when: iteration == 11}]}}]\n"
        + "log: {every: 4}\n",
        "steps.0.repeat.times=20",
    ),
    "epochs": (DATA + "optimizer: {adam: {lr: 0.05}}\nsteps: {epochs: 3}\n", "steps.epochs=7"),
    "a loop over batches": (
        DATA
        + "optimizer: {sgd: {lr: 0.05, momentum: 0.9}}\nsteps: [{for_each: {data: train, epochs: 2, steps: "
        + "[{train: {}, every: 1}, {next: test, every: 2}, {forward: {data: test}}, {evaluate: test, every: 3}]}}, "
        + "train, {train: {data: null}}]\n",
        "steps.0.for_each.epochs=4",
    ),
    "accumulation": (
        DATA + "optimizer: {adam: {}}\nsteps: [{repeat: {times: 3, steps: [{train: {data: train, accumulate: 2}}]}}]\n",
        "steps.0.repeat.times=8",
    ),
    "a rule": (
        BODY
        + 'optimizer: {rule: {state: {m: 0}, update: "m = 0.9 * m + grad + 0.01 * randn_like(param)\\n'
        + 'param = param - 0.01 * m"}}\nsteps: 4\n',
        "steps=9",
    ),
}


def folder_with_points(folder: Path) -> Path:
    random = numpy.random.default_rng(0)
    numpy.savez(folder / "points.npz", x=random.normal(size=(18, 3)), y=random.normal(size=18))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folder_with_points(tmp_path)


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def check_like(longer: runner.Run, whole: runner.Run) -> None:
    """Whether two runs have the same rows and the same weights, bit for bit, and the same config."""
    assert longer.status == whole.status == "finished"
    assert longer.to_arrow().equals(whole.to_arrow())
    assert longer.manifest["rows"] == whole.manifest["rows"] == len(whole)
    assert {name: weight.tolist() for name, weight in longer.weights.items()} == {
        name: weight.tolist() for name, weight in whole.weights.items()
    }
    assert longer.weights.path.read_bytes() == whole.weights.path.read_bytes()
    assert longer.config == whole.config


@pytest.mark.slow
@pytest.mark.parametrize("kind", LOOPS)
def test_a_longer_run_has_the_bits_of_one_that_was_that_long_at_once(kind: str, folder: Path) -> None:
    text, grown = LOOPS[kind]
    path = write(folder, text)
    short = runner.run(path, runs_dir=folder)
    before = {each: each.read_bytes() for each in short.path.rglob("*") if each.is_file()}
    longer = resume(short.path, [grown], allowed_folders=[folder])
    assert longer.path != short.path
    assert longer.path.parent == short.path.parent
    check_like(longer, runner.run(path, [grown], runs_dir=folder))
    assert {each: each.read_bytes() for each in short.path.rglob("*") if each.is_file()} == before
    continues = longer.manifest["continues"]
    assert continues["run"] == str(short.path)
    assert continues["field"] == grown.partition("=")[0]


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own use
def test_a_longer_compiled_run_has_the_bits_of_one_that_was_that_long_at_once(every: int, folder: Path) -> None:
    path = write(folder, BODY + f"engine: compile\noptimizer: {{adam: {{}}}}\nsteps: 10\nlog: {{every: {every}}}\n")
    longer = resume(runner.run(path, runs_dir=folder).path, ["steps=300"])
    longer = resume(longer.path, ["steps=400"])
    check_like(longer, runner.run(path, ["steps=400"], runs_dir=folder))


def test_a_longer_run_can_grow_again(folder: Path) -> None:
    path = write(folder, BODY + "optimizer: {adam: {}}\nsteps: 2\n")
    run = runner.run(path, runs_dir=folder)
    for count in (3, 10, 11):
        run = resume(run.path, [f"steps={count}"])
    check_like(run, runner.run(path, ["steps=11"], runs_dir=folder))


@pytest.mark.parametrize("stop_after", [6, 9, 14])
def test_a_longer_run_that_was_stopped_resumes_to_the_same_bits(stop_after: int, folder: Path) -> None:
    path = write(folder, BODY + "optimizer: {adam: {}}\nsteps: 5\n")
    longer = lengthen(runner.run(path, runs_dir=folder).path, ["steps=15"])
    directory = longer.make_directory(datetime.now())
    seen: list[int] = []

    def see(row: Row) -> None:
        seen.append(row.number)

    with pytest.raises(KeyboardInterrupt):
        run_recorded(
            longer.plan, directory, see=see, earlier=longer.earlier, stop=lambda: bool(seen) and seen[-1] == stop_after
        )
    assert seen == list(range(6, stop_after + 1))
    assert len(open_run(directory)) == stop_after + 1
    check_like(resume(directory), runner.run(path, ["steps=15"], runs_dir=folder))


def test_the_state_that_a_run_keeps_has_the_weights_under_their_names(folder: Path) -> None:
    run = runner.run(write(folder, BODY + "optimizer: {adam: {}}\nsteps: 3\n"), runs_dir=folder)
    told = json.loads((run.path / "checkpoints" / "last.json").read_text())
    tensors = load_file(run.path / "checkpoints" / told["tensors"])
    for name in ("w", "b", "average"):
        assert torch.equal(tensors[name], run.tensor(name)[-1])
    assert tensors["optimizers.optimizer.state.w.exp_avg"].shape == (6, 6)


REFUSED = [
    ("steps=7", "has this count already\n      = only the count of the last loop may grow, such as `steps=…`"),
    ("steps=5", "`steps` gives the last loop 5 iterations, and RUN has 7\n      = write a larger count"),
    ("optimizer.adam.lr=0.2", "RUN cannot go on with another config: `optimizer.adam.lr` was `0.1` and is `0.2`\n"),
    ("constants.n=9", "RUN cannot go on with another config: `constants.n` was `7` and is `9`\n"),
    ("parameters.b.shape=[1, 6]", "RUN cannot go on with another config: `parameters.b.shape` was `[6]` and is"),
    ("seed=1", "RUN cannot go on with another config: `seed` was added\n"),
    ("log.every=2", "RUN cannot go on with another config: `log.every` was added\n"),
    ("engine=xla", "RUN cannot go on with another config: `engine` was added\n"),
    (
        "steps=[{repeat: {times: 9, steps: [train]}}]",
        "cannot go on with another config: `steps.0.repeat.times` was added, `steps.0.repeat.steps` was added\n",
    ),
]


@pytest.mark.parametrize(("override", "message"), REFUSED)
def test_anything_but_a_larger_count_is_refused_with_its_field(override: str, message: str, folder: Path) -> None:
    run = runner.run(write(folder, LOOPS["a count"][0]), runs_dir=folder)
    with pytest.raises(runner.UsageError, match=re.escape(message.replace("RUN", str(run.path)))):
        resume(run.path, [override])
    assert [*run.path.parent.iterdir()] == [run.path]


def test_a_step_of_an_earlier_loop_is_refused(folder: Path) -> None:
    text, _ = LOOPS["steps around the loop"]
    run = runner.run(write(folder, text), runs_dir=folder)
    with pytest.raises(runner.UsageError, match=re.escape("`steps.1.repeat.times` was `3` and is `4`")):
        resume(run.path, ["steps.1.repeat.times=4"])


WITHOUT = [
    ("steps: [train, train]", runner.UsageError, "has no loop, so nothing can grow\n      = run its config again"),
    (
        "steps: 3\nlog: {weights: false}",
        runner.RunError,
        "kept no state from which its last loop could go on: its config says `log: {weights: false}`\n"
        "      = run the longer config as a new run",
    ),
    (
        "steps: [{repeat: {times: 5, steps: [train, {stop: , when: iteration == 2}]}}]",
        runner.RunError,
        "ended before its count, so a larger count changes nothing\n"
        "      = start a new run from its weights with `from_run`",
    ),
]


@pytest.mark.parametrize(("steps", "error", "message"), WITHOUT)
def test_a_run_that_kept_no_state_says_why(steps: str, error: type[Exception], message: str, folder: Path) -> None:
    run = runner.run(write(folder, BODY + f"optimizer: {{adam: {{}}}}\n{steps}\n"), runs_dir=folder)
    with pytest.raises(error, match=re.escape(message)):
        resume(run.path, ["steps.0.repeat.times=9" if "repeat" in steps else "steps=9"])


STOPPED = [
    ("steps=9", "and only a finished run can grow", "goes on; then let it grow"),
    ("engine=compile", "and cannot go on with another config: `engine` was added", "goes on with its own config"),
    ("engine=xla", "and cannot go on with another config: `engine` was added", "goes on with its own config"),
    (
        "optimizer.adam.lr=0.2",
        "and cannot go on with another config: `optimizer.adam.lr` was `0.1` and is `0.2`",
        "goes on with its own config",
    ),
]


@over("override, message, hint", STOPPED)
def test_a_stopped_run_takes_no_override(override: str, message: str, hint: str, folder: Path) -> None:
    plan = runner.compile(runner.load(write(folder, LOOPS["a count"][0])))
    directory = create_run_directory(folder, "run", datetime.now())
    with pytest.raises(KeyboardInterrupt):
        run_recorded(plan, directory, stop=lambda: True)
    with pytest.raises(runner.UsageError) as caught:
        resume(directory, [override])
    (problem,) = caught.value.problems
    assert problem.message == f"{directory} was interrupted, {message}"
    assert problem.hint == f"`steprun resume {directory}` {hint}"
    assert read_manifest(directory)["status"] == "interrupted"


def test_a_kept_state_with_other_bits_is_refused(folder: Path) -> None:
    run = runner.run(write(folder, LOOPS["a count"][0]), runs_dir=folder)
    (tensors,) = (run.path / "checkpoints").glob("last-*.safetensors")
    content = bytearray(tensors.read_bytes())
    content[-3] ^= 1
    tensors.write_bytes(content)
    with pytest.raises(runner.RunError, match=f"the checkpoint's tensors {tensors.name} are damaged"):
        resume(run.path, ["steps=9"])


def test_changed_data_is_refused_or_recorded(folder: Path) -> None:
    run = runner.run(write(folder, LOOPS["epochs"][0]), runs_dir=folder)
    numpy.savez(folder / "points.npz", x=numpy.ones((18, 3)), y=numpy.ones(18))
    with pytest.raises(runner.RunError, match=r"points.npz has changed since the run began"):
        resume(run.path, ["steps.epochs=5"], allowed_folders=[folder])
    longer = resume(run.path, ["steps.epochs=5"], allowed_folders=[folder], allow_changed_data=True)
    assert longer.manifest["continues"]["changed_data"] == [str(folder / "points.npz")]


BEST = """\
name: best
parameters: {w: 0}
data: {d: {file: points.npz, columns: {y: y}}}
expression: loss = (0 * y + w - 1).square().mean()
optimizer: {sgd: {lr: 0.1}}
steps:
  - repeat: {times: 3, steps: [train, {evaluate: d}, {checkpoint: {best: d.loss, mode: max}}]}  # the first is best
"""
TAGS = BEST.replace("{checkpoint: {best: d.loss, mode: max}}", "{checkpoint: early, when: iteration == 2}, checkpoint")
CARRIED = {
    "the best of the loop": BEST,
    "a better one after the loop": BEST + "  - evaluate: d\n  - checkpoint: {best: d.loss}\n",
    "one after the loop that the longer run does not have": (
        TAGS + "  - {checkpoint: early, when: w < 0.5}\n  - checkpoint\n"
    ),
    "tags": TAGS,
    "an earlier loop": BEST + "  - repeat: {times: 3, steps: [train]}\n",
    "rows of some iterations": BEST.replace("mode: max", "mode: min") + "log: {every: 2}\n",
    "no best": BEST.replace("mode: max}}", "mode: max}, when: w > 9}"),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::runner.errors.HealthWarning")
@over("kind", CARRIED)
def test_a_longer_run_has_the_checkpoints_of_one_that_was_that_long_at_once(kind: str, tmp_path: Path) -> None:
    path = write(folder_with_points(tmp_path), CARRIED[kind])
    loop = 1 if "earlier" in kind else 0
    run = runner.run(path, runs_dir=tmp_path / "runs")
    longer = resume(run.path, [f"steps.{loop}.repeat.times=5"], allowed_folders=[tmp_path])
    whole = runner.run(path, [f"steps.{loop}.repeat.times=5"], runs_dir=tmp_path / "whole")
    assert checkpoints_of(longer) == checkpoints_of(whole)
    check_like(longer, whole)
    if kind == "a better one after the loop":
        again = resume(longer.path, ["steps.0.repeat.times=6"], allowed_folders=[tmp_path])
        whole = runner.run(path, ["steps.0.repeat.times=6"], runs_dir=tmp_path / "whole")
        assert checkpoints_of(again) == checkpoints_of(whole)


def checkpoints_of(run: runner.Run) -> dict[str, bytes]:
    """The files with the best weights and the checkpoints of a run."""
    files = [*(run.path / "checkpoints").iterdir(), *run.path.glob("weights*")]
    return {each.name: each.read_bytes() for each in files}


def test_a_damaged_checkpoint_of_the_best_is_reported(folder: Path) -> None:
    run = runner.run(write(folder, BEST), runs_dir=folder / "runs")
    (run.path / "checkpoints" / "best-00000003.safetensors").write_bytes(b"cut")
    message = (
        r"the checkpoint's tensors best-00000003.safetensors are damaged: their digest does not match\n"
        r"      = restore it from a backup, or run the longer config as a new run$"
    )
    with pytest.raises(runner.RunError, match=message):
        resume(run.path, ["steps.0.repeat.times=5"], allowed_folders=[folder])


def test_the_best_weights_are_there_before_their_checkpoint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that resumes from the checkpoint may never save them again."""
    there: list[bool] = []

    def noted(plan: runner.Plan, state: State, directory: Path, tag: str | None) -> None:
        if tag == "best":
            there.append((directory / "weights-best.safetensors").exists())

    monkeypatch.setattr("runner.record.running.save_checkpoint", noted)
    runner.run(write(folder, BEST), runs_dir=folder / "runs")
    assert there
    assert all(there)
