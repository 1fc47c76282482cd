"""Commands that are killed, and what has to be true of what they leave."""

from __future__ import annotations

import contextlib
import os
import random
import re
import select
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.hostile.commands import PATIENCE, command, done

RUN = """\
name: killed
parameters: {w: {shape: [8, 8], init: {normal: {std: 0.5}}}, average: {init: {expression: w}, requires_grad: false}}
constants: {x: {shape: [16, 8], init: normal}}
expression: loss = (dropout(tanh(x @ w), 0.2, training) ** 2).mean()
optimizer: {adam: {lr: 0.01}}
steps:
  - repeat: {times: 24, steps: [train, {checkpoint: , every: 4}, {assign: {average: 0.9 * average + 0.1 * w}}]}
log: {state: true}
"""
KEPT = """\
name: kept
parameters: {w: {shape: [9, 9], init: {normal: {std: 0.5}}}, b: {shape: [3], init: zeros}}
expression: |
  n = b[:iteration]
  loss = (w ** 2).mean() + n.sum()
optimizer: {adam: {lr: %s}}
steps: 4
snapshot: {uncertainty: {runs: 3}, restart: [1]}
"""
TEMPORARY = re.compile(r"\.steprun-[0-9a-f]{16}\.writing")
Check = Callable[[Path], Iterator[str]]
"""Looks at a folder in which a command was killed; gives what is wrong in words."""


def warm() -> None:
    """Import what the commands need, so that a fork has all of it; no thread runs in this process."""
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["JE_ARROW_MALLOC_CONF"] = "background_thread:false"  # pyarrow's allocator would start one
    import torch

    import runner.cli.app
    import runner.cli.main
    import runner.compare.snapshots.checking
    import runner.compare.snapshots.many
    import runner.compare.uncertainty.meaning
    import runner.compare.uncertainty.measuring
    import runner.record.resuming
    import runner.record.rows.parts
    import runner.record.running

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name, Path(name, "output").open("w") as output:
        Path(name, "killed.yaml").write_text(RUN)
        Path(name, "kept.yaml").write_text(KEPT % "0.01")
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output), contextlib.chdir(name):
            for words in (("run", "killed.yaml"), ("snapshot", "kept.yaml"), ("check",), ("check", "--update=all")):
                if runner.cli.main.main(words):
                    raise RuntimeError(f"`{' '.join(words)}` fails")
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        raise RuntimeError(f"{threads} threads run, and a fork would have one of them")


@dataclass(frozen=True, slots=True)
class Victim:
    """A command that is killed."""

    words: tuple[str, ...]
    prepare: Callable[[Path], None]  # the folder that it works in
    check: Check


def victims(root: Path) -> dict[str, Victim]:
    """The commands, with what has to be true of what they leave."""
    whole = _whole_run(root / "whole")
    stopped = _stopped_run(root / "stopped")
    short = _short_run(root / "short")
    old, new = _snapshots(root / "old", "0.01"), _snapshots(root / "new", "0.02")
    updated = _updated(root / "updated", root / "old" / "snapshots")

    def write_config(folder: Path) -> None:
        (folder / "killed.yaml").write_text(RUN)

    def write_run(folder: Path) -> None:
        shutil.copytree(stopped, folder / "runs" / "killed" / "one")

    def write_short(folder: Path) -> None:
        shutil.copytree(short, folder / "runs" / "killed" / "0")

    def write_kept(folder: Path) -> None:
        (folder / "kept.yaml").write_text(KEPT % "0.02")

    def write_old(folder: Path) -> None:
        write_kept(folder)
        shutil.copytree(root / "old" / "snapshots", folder / "snapshots")

    def check_run(folder: Path) -> Iterator[str]:
        yield from _check_runs(folder, whole)

    def check_longer(folder: Path) -> Iterator[str]:
        yield from _check_runs(folder, whole, short=folder / "runs" / "killed" / "0")

    def check_new(folder: Path) -> Iterator[str]:
        yield from _check_snapshot(folder, {}, (new,))

    def check_either(folder: Path) -> Iterator[str]:
        yield from _check_snapshot(folder, old, (new, updated))

    few = ("--budget", "0")
    return {
        "run": Victim(("run", "killed.yaml", "--quiet"), write_config, check_run),
        "run with checkpoints": Victim(("run", "killed.yaml", "--checkpoint-every", "7"), write_config, check_run),
        "resume": Victim(("resume", "runs/killed/one", "--quiet"), write_run, check_run),
        "resume with a larger count": Victim(
            ("resume", "runs/killed/0", "steps.0.repeat.times=24", "--quiet"), write_short, check_longer
        ),
        "first snapshot": Victim(("snapshot", "kept.yaml", *few), write_kept, check_new),
        "snapshot": Victim(("snapshot", "kept.yaml", *few), write_old, check_either),
        "check --update": Victim(("check", "kept.yaml", "--update", *few), write_old, check_either),
    }


def _whole_run(folder: Path) -> Any:
    """The rows of a run that was never stopped."""
    folder.mkdir()
    (folder / "killed.yaml").write_text(RUN)
    code, text = done(("run", "killed.yaml", "--quiet"), folder)
    assert code == 0, text
    from runner.record.reading import open_run

    (path,) = (folder / "runs" / "killed").iterdir()
    return open_run(path).to_arrow()


def _short_run(folder: Path) -> Path:
    """A finished run of half as many iterations."""
    folder.mkdir()
    (folder / "killed.yaml").write_text(RUN.replace("times: 24", "times: 12"))
    code, text = done(("run", "killed.yaml", "--quiet"), folder)
    assert code == 0, text
    (path,) = (folder / "runs" / "killed").iterdir()
    return path


def _stopped_run(folder: Path) -> Path:
    """A run that was killed on its way, after a checkpoint."""
    from runner.record.reading import open_run

    folder.mkdir()
    (folder / "killed.yaml").write_text(RUN)
    for operation in range(60, 100):
        with command(("run", "killed.yaml", "--quiet"), folder, kill_at=operation) as process:
            select.select([process], [], [], PATIENCE)
        (path,) = (folder / "runs" / "killed").iterdir()
        if list((path / "checkpoints").glob("*.json")) and len(open_run(path)) > 0:
            return path
        shutil.rmtree(folder / "runs")
    raise RuntimeError("no run was killed after a checkpoint")


def _snapshots(folder: Path, rate: str) -> dict[str, bytes]:
    """The files of a snapshot of the config with a learning rate."""
    folder.mkdir()
    (folder / "kept.yaml").write_text(KEPT % rate)
    code, text = done(("snapshot", "kept.yaml", "--budget", "0"), folder)
    assert code == 0, text
    return _files(folder / "snapshots")


def _updated(folder: Path, old: Path) -> dict[str, bytes]:
    """The files of a snapshot after an update, which keeps the text of what stayed the same."""
    folder.mkdir()
    (folder / "kept.yaml").write_text(KEPT % "0.02")
    shutil.copytree(old, folder / "snapshots")
    code, text = done(("check", "kept.yaml", "--update", "--budget", "0"), folder)
    assert code == 0, text
    return _files(folder / "snapshots")


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}


def _check_runs(folder: Path, whole: Any, short: Path | None = None) -> Iterator[str]:
    """That each run directory is readable, holds the first rows of the whole run, and resumes to all of them.

    Its weights are those of its last row, if it left any, and `latest` is the newest run. The finished run `short` is
    left as it is.
    """
    from runner.errors import SteprunError
    from runner.record.reading import open_run

    code, text = done(("runs",), folder)
    if code and (folder / "runs").is_dir():
        yield f"`runs` ends with {code}: {text}"
    for path in sorted(folder.glob("runs/killed/*")):
        if not (path / "run.json").exists():  # it was killed before it began: nothing was reported of it
            if [*path.glob("rows/*")]:
                yield "rows without a manifest"
            continue
        try:
            run = open_run(path)
            found = run.to_arrow()
        except SteprunError as error:
            yield f"it cannot be opened: {error}"
            continue
        if not found.equals(whole.slice(0, len(found))):
            yield f"its {len(found)} rows are not the first of a whole run"
        yield from _check_weights(run)
        if path == short:
            if run.status != "finished" or len(found) != len(whole) // 2 + 1:
                yield "the earlier run has changed"
            continue
        if run.status == "finished":
            if len(found) != len(whole):
                yield "it is finished, and rows are missing"
            continue
        if run.status != "killed":
            yield f"its status is {run.status}"
        code, text = done(("resume", str(path), "--quiet"), folder)
        if code:
            yield f"`resume` ends with {code}: {text}"
        elif not open_run(path).to_arrow().equals(whole):
            yield "it was resumed to other rows"
        else:
            yield from _check_weights(open_run(path))
        left = [each.name for each in path.rglob("*") if TEMPORARY.fullmatch(each.name)]
        if left:
            yield f"temporary files stay: {left}"


def _check_weights(run: Any) -> Iterator[str]:
    """That the weights of a run, which a finished one has, are whole and those of its last row."""
    import torch
    from safetensors.torch import load_file

    from runner.errors import SteprunError
    from runner.record.reading import open_run

    path = run.path / "weights.safetensors"
    if path.exists():
        last = list(run.rows())[-1]
        if not all(torch.equal(weight, last[name]) for name, weight in load_file(path).items()):
            yield "its weights are not those of its last row"
    elif run.status == "finished":
        yield "it is finished and has no weights"
    try:
        newest = open_run(run.path.parent / "latest").path.name
    except SteprunError as error:
        yield f"`latest` cannot be opened: {error}"
    else:
        if newest != max(each.name for each in run.path.parent.iterdir() if (each / "run.json").exists()):
            yield "`latest` is not the newest run"


def _check_snapshot(folder: Path, old: dict[str, bytes], new: Sequence[dict[str, bytes]]) -> Iterator[str]:
    """That the text is the old one or a new one, the tensors that it names are there, and the next commands work."""
    from runner.compare.snapshots.reading import read
    from runner.errors import SteprunError

    path = folder / "snapshots" / "kept.yaml"
    text = path.read_bytes() if path.exists() else None
    texts = [files["kept.yaml"] for files in new]
    if text not in (old.get("kept.yaml"), *texts):
        yield "the text is neither the old one nor a new one"
    if text is not None:
        try:
            read(path)
        except SteprunError as error:
            yield f"it cannot be read: {error}"
    code, told = done(("check", "kept.yaml"), folder)
    expected = 0 if text in texts else 3
    if code != expected:
        yield f"`check` ends with {code}: {told}"
    after = random.choice((("check", "kept.yaml", "--update"), ("snapshot", "kept.yaml")))
    for words in ((*after, "--budget", "0"), ("check", "kept.yaml")):
        code, told = done(words, folder)
        if code:
            yield f"`{' '.join(words)}` ends with {code}: {told}"
    left = _files(folder / "snapshots")
    if not any({name: left.get(name) for name in files} == files for files in new):
        yield "the next command leaves another snapshot"
    elif text not in texts and left not in new:  # where the new text was there, what it replaced may stay
        yield f"files stay: {sorted(left)}"
    if any(TEMPORARY.fullmatch(name) for name in left):
        yield "a temporary file stays"
