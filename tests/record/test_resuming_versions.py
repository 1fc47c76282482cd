"""A run is resumed with the versions that computed its rows: those of torch, and with `engine: xla` those of JAX."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch

import runner
from runner.errors import Problem
from runner.plan.checks.engines import choice
from runner.plan.tensors.run_files import CHECKPOINTS_FOLDER
from runner.record.checkpoints.store import read_checkpoint
from runner.record.directory import create_run_directory
from runner.record.reading import Run, open_run
from runner.record.resuming import resume
from runner.record.running import run_recorded
from tests.installed import pretend
from tests.manifests import manifest_fields

JAX = ("jax", "jaxlib")
OTHER = {"jax": "0.99.1", "jaxlib": "0.99.0"}

CONFIG = """\
parameters: {w: {shape: [3], init: normal}}
expression: loss = (sin(w) * w).square().sum()
optimizer: {adam: {lr: 0.1}}
steps: [{repeat: {times: 6, steps: [train]}}, forward, {repeat: {times: 6, steps: [train]}}]
"""


def stopped(folder: Path, engine: str, blocks: int) -> Path:
    """The directory of a run that was interrupted after so many blocks of rows, and saved its state."""
    path = folder / "run.yaml"
    path.write_text(CONFIG + f"engine: {engine}\n")
    directory = create_run_directory(folder, "run", datetime.now())
    seen: list[int] = []

    def stop() -> bool:
        seen.append(len(seen))
        return len(seen) == blocks

    with contextlib.suppress(KeyboardInterrupt):
        run_recorded(runner.compile(runner.load(path)), directory, stop=stop)
    return directory


@pytest.fixture(scope="module")
def eager_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stopped(tmp_path_factory.mktemp("eager"), "eager", 8)


@pytest.fixture
def eager(eager_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(eager_once, tmp_path / "eager"))


@pytest.fixture(scope="module")
def translated_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("jax")
    return stopped(tmp_path_factory.mktemp("translated"), "xla", 3)


@pytest.fixture
def translated(translated_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(translated_once, tmp_path / "translated"))


def installed() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in JAX}


def checkpoints(directory: Path) -> list[Path]:
    return sorted((directory / CHECKPOINTS_FOLDER).glob("*.json"))


def of_jax(content: Any) -> dict[str, str]:
    return {name: content[name] for name in JAX if name in content}


def forget_jax(directory: Path) -> None:
    """Make a run one that an earlier version of steprun recorded, which did not know the versions of JAX."""
    manifest = manifest_fields(directory / "run.json")
    for name in JAX:
        del manifest["versions"][name], manifest["environment"][name]
    (directory / "run.json").write_text(json.dumps(manifest))
    for path in checkpoints(directory):
        content = read_checkpoint(path)
        for name in JAX:
            del content[name]
        digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        path.write_text(json.dumps(content | {"digest": digest}))


def refused(directory: Path, message: str, hint: str, *overrides: str) -> None:
    rows = open_run(directory).to_arrow()
    with pytest.raises(runner.RunError) as caught:
        resume(directory, overrides)
    assert caught.value.problems == (Problem(message, hint),)
    assert open_run(directory).to_arrow().equals(rows)


def test_a_run_of_another_engine_has_no_versions_of_jax_and_resumes_with_any(
    eager: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = open_run(eager).manifest
    assert of_jax(manifest["versions"]) == of_jax(manifest["environment"]) == {}
    assert [of_jax(read_checkpoint(path)) for path in checkpoints(eager)] == [{}]
    pretend(monkeypatch, **OTHER)
    assert resume(eager).status == "finished"


def test_rows_of_another_torch_are_not_gone_on_from_where_no_checkpoint_says_so(
    eager: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(eager / CHECKPOINTS_FOLDER)
    now = str(torch.__version__)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "2.99.0")
        message = f"{eager} was recorded with torch {now}, and this is torch 2.99.0"
        refused(eager, message, f"later bits may differ: resume with torch {now}")
    assert resume(eager).status == "finished"


@pytest.mark.slow
def test_a_run_of_xla_is_resumed_with_its_jax_alone(translated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = installed()
    manifest = open_run(translated).manifest
    assert of_jax(manifest["versions"]) == of_jax(manifest["environment"]) == now
    (checkpoint,) = checkpoints(translated)
    assert of_jax(read_checkpoint(checkpoint)) == now
    pretend(monkeypatch, **OTHER)
    then = f"jax {now['jax']} and jaxlib {now['jaxlib']}"
    hint = f"later bits may differ: resume with {then}"
    differ = f"with {then}, and this is jax 0.99.1 and jaxlib 0.99.0"
    refused(translated, f"the checkpoint {checkpoint.name} was written {differ}", hint)
    shutil.rmtree(translated / CHECKPOINTS_FOLDER)
    refused(translated, f"{translated} was recorded {differ}", hint)
    pretend(monkeypatch, jax=now["jax"])
    differ = f"with jaxlib {now['jaxlib']}, and this is jaxlib 0.99.0"
    hint = f"later bits may differ: resume with jaxlib {now['jaxlib']}"
    refused(translated, f"{translated} was recorded {differ}", hint)


@pytest.mark.slow
def test_a_run_of_xla_from_before_versions_of_jax_were_recorded_resumes(
    translated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_jax(translated)
    assert of_jax(read_checkpoint(checkpoints(translated)[0])) == {}
    pretend(monkeypatch, **OTHER)
    run = resume(translated)
    assert (run.status, len(run)) == ("finished", 14)
    assert of_jax(run.manifest["versions"]) == OTHER
    again, hint = "the checkpoint last.json was written", "later bits may differ: resume with"
    pretend(monkeypatch, jaxlib="0.99.7")
    message = f"{again} with jaxlib 0.99.0, and this is jaxlib 0.99.7"
    refused(translated, message, f"{hint} jaxlib 0.99.0", "steps.2.repeat.times=9")
    assert [path.name for path in translated.parent.iterdir()] == ["translated"]  # no longer run was begun


@pytest.mark.slow
def test_a_run_that_auto_makes_one_of_xla_has_the_versions_of_jax(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jax")
    directory = stopped(tmp_path, "auto", 2)
    assert of_jax(open_run(directory).manifest["versions"]) == {}
    monkeypatch.setattr(choice, "STARTED", 0)
    monkeypatch.setattr(choice, "COMPILED", 0)
    monkeypatch.setattr(choice, "UPDATED", 0)
    directory = stopped(tmp_path, "auto", 2)
    run: Run = open_run(directory)
    assert (run.manifest["engine"], of_jax(run.manifest["versions"])) == ("xla", installed())
    assert of_jax(read_checkpoint(checkpoints(directory)[0])) == installed()


def test_a_version_of_jax_that_is_no_text_is_damage(eager: Path) -> None:
    (path,) = checkpoints(eager)
    content = read_checkpoint(path) | {"jax": 10}
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    path.write_text(json.dumps(content | {"digest": digest}))
    hint = f"remove checkpoints/{path.name} to resume from an earlier checkpoint, or from the start"
    refused(eager, f"the checkpoint {path.name} is damaged: `jax` is not a string", hint)
