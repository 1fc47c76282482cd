"""A sweep goes on with the versions that computed its points; of JAX only where a point needs it."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest
import torch

from runner.config import load
from runner.errors import Problem, UsageError
from runner.record.manifest import read_manifest as read_run
from runner.sweep.planning import plan_sampled, plan_sweep
from runner.sweep.record.manifest import read_manifest, write_manifest
from runner.sweep.record.reading import open_sweep
from runner.sweep.running import How, resume_sweep, run_sweep, start_sweep
from tests.installed import pretend
from tests.sweep.configs import written
from tests.sweep.inline import inline
from tests.sweep.test_running import Seen
from tests.sweep.test_widening import begun

__all__ = ["inline"]

pytestmark = pytest.mark.usefixtures("inline")

JAX = ("jax", "jaxlib")
OTHER = {"jax": "0.99.1", "jaxlib": "0.99.0"}
GRID = "sweep: {grid: {rate: [0.1, 0.03]}}\n"
BOTH = "sweep: {grid: {engine: [eager, xla]}}\n"


def refused(directory: Path, message: str, install: str) -> None:
    with pytest.raises(UsageError) as caught:
        resume_sweep(directory, How())
    hint = f"install {install}, or run `steprun sweep {directory / 'sweep.yaml'}`"
    assert caught.value.problems == (Problem(f"{directory} was run {message}", hint),)


def finish(directory: Path) -> Seen:
    plan, how = resume_sweep(directory, How())
    seen = Seen()
    run_sweep(directory, plan, how, seen)
    return seen


def test_a_sweep_without_xla_goes_on_with_any_jax(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = begun(tmp_path, GRID)
    pretend(monkeypatch, **OTHER)
    assert (finish(directory).started, len(open_sweep(directory))) == ([], 2)


@pytest.mark.slow
def test_a_sweep_with_xla_goes_on_with_its_jax_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jax")
    directory = begun(tmp_path, BOTH)
    now = {name: importlib.metadata.version(name) for name in JAX}
    manifests = [read_run(open_sweep(directory).run(index).path) for index in (0, 1)]
    for manifest, own in zip(manifests, ({}, now), strict=True):
        for field in ("versions", "environment"):
            assert {name: manifest[field][name] for name in JAX if name in manifest[field]} == own
    assert finish(directory).started == []
    pretend(monkeypatch, **OTHER)
    then = f"jax {now['jax']} and jaxlib {now['jaxlib']}"
    refused(directory, f"with {then}, and this is jax 0.99.1 and jaxlib 0.99.0", then)
    manifest = read_manifest(directory)
    for name in ("jaxlib", "jax"):  # earlier versions recorded that of jax, and the first ones none
        del manifest["versions"][name]
        write_manifest(directory, manifest)
        if name == "jaxlib":
            refused(directory, f"with jax {now['jax']}, and this is jax 0.99.1", f"jax {now['jax']}")
    assert finish(directory).started == []


def test_a_sweep_without_points_goes_on_with_any_version_and_records_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load(written(tmp_path, GRID))
    directory = start_sweep(config, plan_sweep(config, {}), {}, tmp_path / "sweeps", How())
    monkeypatch.setattr(torch, "__version__", "2.99.0")
    pretend(monkeypatch, **OTHER)
    assert finish(directory).started == [0, 1]
    assert read_manifest(directory)["versions"].items() >= {"torch": "2.99.0", **OTHER}.items()
    assert finish(directory).started == []


@pytest.mark.slow
def test_a_sampled_sweep_is_refused_as_a_grid_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna")
    text = "random: {samples: 2, draw: {rate: {uniform: [0.01, 0.1]}}}, objective: {minimize: loss}"
    config = load(written(tmp_path, f"sweep: {{{text}}}\n"))
    plan = plan_sampled(config, "random", 2)
    directory = start_sweep(config, plan, {}, tmp_path / "sweeps", How())
    run_sweep(directory, plan, How(), Seen())
    now = str(torch.__version__)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "2.99.0")
        refused(directory, f"with torch {now}, and this is torch 2.99.0", f"torch {now}")
    assert finish(directory).started == []
