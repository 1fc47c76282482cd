"""Widened sweeps: the points that are there stay, and the new ones run."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path
from typing import Any

import numpy
import pytest

import runner
from runner.config import load, loads
from runner.errors import UsageError
from runner.plan.checks.engines import choice
from runner.sweep.planning import plan_sweep
from runner.sweep.record.manifest import read_manifest, write_manifest
from runner.sweep.record.reading import Sweep, open_sweep
from runner.sweep.running import How, resume_sweep, run_sweep, start_sweep
from runner.sweep.widening import widened
from tests.cli.commands import Outcome, steprun
from tests.installed import pretend
from tests.sweep.configs import HEAD, written
from tests.sweep.inline import inline
from tests.sweep.test_halving import HEAD as HALVED
from tests.sweep.test_running import Seen, assert_is_the_run_alone

__all__ = ["inline"]

pytestmark = pytest.mark.usefixtures("inline")

GRID = "sweep: {grid: {rate: [0.1, 0.03], seed: range(2)}, objective: {minimize: loss}}\n"


def begun(folder: Path, sweep: str = GRID, head: str = HEAD) -> Path:
    """A finished sweep."""
    done = steprun("sweep", written(folder, sweep, head).name, "--quiet", "--jobs", "1", cwd=folder)
    assert (done.code, done.err) == (0, "")
    return folder / done.out.strip()


def resumed(directory: Path, *words: str) -> Outcome:
    return steprun("resume", directory, *words, cwd=directory.parents[2])


def test_more_values_of_an_axis_run_the_new_points_alone(tmp_path: Path) -> None:
    directory = begun(tmp_path)
    before = open_sweep(directory).table().to_pylist()
    widened = resumed(directory, "seed=0..2", "constants.rate=0.1,0.2,0.03")
    assert widened.code == 0, widened.err
    assert widened.out.splitlines()[0].startswith("9 of 9 points done, best loss ")
    sweep = open_sweep(directory)
    after = sweep.table().to_pylist()
    shared = ("point", "seed", "status", "objective", "seconds", "identity")
    assert [[row[key] for key in shared] for row in after[:4]] == [[row[key] for key in shared] for row in before]
    assert {(row["constants.rate"], row["seed"]) for row in after} == {
        (r, s) for r in (0.1, 0.2, 0.03) for s in range(3)
    }
    plan, _ = resume_sweep(directory, How())
    assert len(plan.points) == 9
    for index in (0, 4, 8):
        assert_is_the_run_alone(sweep, plan, index)
    assert resumed(directory).out.splitlines()[0].startswith("9 of 9 points done")


def test_more_draws_keep_the_first_ones(tmp_path: Path) -> None:
    directory = begun(tmp_path, "sweep: {random: {samples: 4, draw: {rate: {uniform: [0.01, 0.1]}}}}\n")
    before = open_sweep(directory).table().to_pylist()
    assert resumed(directory, "sweep.random.samples=7", "--quiet").code == 0
    after = open_sweep(directory).table().to_pylist()
    assert ([row["rate"] for row in after[:4]], len(after)) == ([row["rate"] for row in before], 7)
    assert len(open_sweep(directory)) == 7


def survivors(sweep: Sweep) -> set[tuple[float, int]]:
    rows = sweep.table().to_pylist()
    return {(row["rate"], row["seed"]) for row in rows if row["status"] == "finished"}


@pytest.mark.slow
def test_a_widened_halving_sweep_is_decided_again_and_what_is_finished_stays(tmp_path: Path) -> None:
    head = HALVED.replace("EVERY", "1")
    axes = "grid: {{rate: {}, seed: [0, 1]}}, objective: {{minimize: loss}}, halving: {{at: [5, 12], keep: 1/2}}"
    text = f"sweep: {{{{{axes}}}}}\n"
    few, many = "[1e-3, 1e-2, 1e-4, 2e-3]", "[1e-3, 1e-2, 1e-4, 2e-3, 0.1, 0.3, 0.5, 0.2]"
    (tmp_path / "whole").mkdir()
    whole = open_sweep(begun(tmp_path / "whole", text.format(many), head))
    directory = begun(tmp_path, text.format(few), head)
    before = survivors(open_sweep(directory))
    assert resumed(directory, f"rate={many[1:-1].replace(' ', '')}", "--quiet", "--jobs", "1").code == 0
    sweep = open_sweep(directory)
    assert survivors(sweep) == survivors(whole) | before
    assert before - survivors(whole)  # some would have stopped
    assert len(sweep) == 16
    for row in sweep.table().to_pylist():
        assert row["rows"] == len(sweep.rows(row["point"]))
    plan, _ = resume_sweep(directory, How())
    for row in sweep.table().to_pylist():
        if row["status"] == "finished":
            assert_is_the_run_alone(sweep, plan, row["point"])


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["seed=1,2"], "these values leave out 2 of the 4 points of {}", "write the values that it has too"),
        (
            ["steps=7"],
            "`steps=7` would change the points that the sweep has",
            "widen an axis, as in `seed=0..9`, or write `sweep.random.samples=128`",
        ),
        (
            ["sweep.objective.over=best"],
            "`sweep.objective.over=best` would change the points that the sweep has",
            "widen an axis, as in `seed=0..9`, or write `sweep.random.samples=128`",
        ),
        (
            ["seed=range(100000)"],
            "the sweep has 200,000 points",
            "run that many with --yes, or draw some with `random: {{samples: 100, draw: {{…}}}}`",
        ),
    ],
)
def test_values_that_would_lose_points_are_refused(words: list[str], message: str, hint: str, tmp_path: Path) -> None:
    directory = begun(tmp_path)
    before = (directory / "sweep.json").read_bytes(), (directory / "points.parquet").read_bytes()
    told = f"steprun\n      {message.format(directory)}\n      = {hint.format()}\n"
    assert resumed(directory, *words) == Outcome(2, "", told)
    assert ((directory / "sweep.json").read_bytes(), (directory / "points.parquet").read_bytes()) == before


def test_one_more_value_of_a_short_axis_is_shown_with_those_that_it_has() -> None:
    config = loads(HEAD, name="swept.yaml")
    for path in ("rate", "constants.rate"):
        hint = f"write all values of the axis: `{path}=1,0.1,0.3`"
        with pytest.raises(UsageError, match=re.escape(hint)):
            widened(config, [f"{path}=0.3"], {"rate": [1, 0.1]})
    for axes in ({}, {"seed": [0, 1]}, {"rate": list(range(13))}, {"rate": [[1], [2]]}):
        with pytest.raises(UsageError, match=re.escape("widen an axis, as in `seed=0..9`")):
            widened(config, ["rate=0.3"], axes)


def test_a_directory_of_another_config_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    directory = begun(tmp_path / "a b")
    path = directory / "sweep.yaml"
    path.write_text(path.read_text().replace("momentum: 0.5", "momentum: 0.6"))
    with pytest.raises(UsageError, match=r"sweep.yaml has been edited since the sweep began") as caught:
        resume_sweep(directory, How())
    assert caught.value.problems[0].hint == f"restore it, or run `steprun sweep '{path}'`"


def test_points_of_another_version_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = begun(tmp_path)
    monkeypatch.setattr(runner, "__version__", "99.0")
    version = read_manifest(directory)["versions"]["steprun"]
    with pytest.raises(UsageError, match=rf"was run with steprun {version}, and this is steprun 99.0") as caught:
        resume_sweep(directory, How())
    hint = f"install steprun {version}, or run `steprun sweep {directory / 'sweep.yaml'}`"
    assert caught.value.problems[0].hint == hint


def test_points_of_other_data_are_refused(tmp_path: Path) -> None:
    (tmp_path / "w.npy").write_bytes(b"")
    numpy.save(tmp_path / "w.npy", numpy.ones(3, numpy.float32))
    head = HEAD.replace("{shape: [3], init: {normal: {std: 1}}}", "{file: w.npy}")
    directory = begun(tmp_path, "sweep: {grid: {rate: [0.1, 0.2]}}\n", head)
    numpy.save(tmp_path / "w.npy", numpy.zeros(3, numpy.float32))
    with pytest.raises(UsageError, match=r"2 of the 2 points of .* a data file has changed") as caught:
        resume_sweep(directory, How(allowed=(tmp_path,)))
    assert str(caught.value.problems[0].hint).startswith("restore the file, or run `steprun sweep ")


def test_a_sampler_is_not_widened(tmp_path: Path) -> None:
    config = load(written(tmp_path))
    directory = start_sweep(config, plan_sweep(config, {}), {}, tmp_path / "sweeps", How())
    write_manifest(directory, {**read_manifest(directory), "sampler": "tpe"})
    with pytest.raises(UsageError, match="a sampler chooses the points of this sweep"):
        resume_sweep(directory, How(), axes={"seed": [1, 2]})


def test_a_sweep_without_a_digest_of_its_config_resumes(tmp_path: Path) -> None:
    """One that an earlier version began."""
    directory = begun(tmp_path)
    manifest = read_manifest(directory)
    del manifest["config"]
    write_manifest(directory, manifest)
    plan, how = resume_sweep(directory, How())
    seen = Seen()
    run_sweep(directory, plan, how, seen)
    assert (seen.started, len(seen.outcomes)) == ([], 4)


@pytest.mark.slow
def test_each_point_chooses_its_engine_and_a_sweep_is_not_resumed_where_it_would_choose_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jax")
    monkeypatch.setattr(choice, "STARTED", 100)  # µs: xla pays after a few iterations
    monkeypatch.setattr(choice, "COMPILED", 0)
    monkeypatch.setattr(choice, "UPDATED", 0)
    directory = begun(tmp_path, "sweep: {grid: {steps: [2, 50]}}\n", HEAD + "engine: auto\n")
    sweep = open_sweep(directory)
    for index, engine in enumerate(("eager", "xla")):
        run = sweep.run(index)
        assert run.manifest["engine"] == engine
        assert run.manifest["engine_reason"].endswith(" s, and compiling costs about 0.00 s")
        assert run.config.engine == engine
        plan, _ = resume_sweep(directory, How())
        assert_is_the_run_alone(sweep, plan, index)
    assert resumed(directory).code == 0
    version, compiler = (importlib.metadata.version(name) for name in ("jax", "jaxlib"))
    with monkeypatch.context() as patch:
        pretend(patch, jaxlib="0.99.0")
        message = f"{directory} was run with jaxlib {compiler}, and this is jaxlib 0.99.0"
        with pytest.raises(UsageError, match=re.escape(message)):
            resume_sweep(directory, How())
    pretend(monkeypatch, jax=None)
    with pytest.raises(UsageError, match="chooses otherwise") as caught:
        resume_sweep(directory, How())
    (problem,) = caught.value.problems
    assert problem.message == (
        f"{directory} was run with jax {version}, and `engine: auto` chooses otherwise without jax"
    )
    assert problem.hint == f"install what it was run with, or run `steprun sweep {directory / 'sweep.yaml'}`"


@pytest.mark.slow
def test_a_sweep_that_another_process_has_widened_since_is_refused(tmp_path: Path) -> None:
    """Its table would lose the new points otherwise."""
    directory = begun(tmp_path)
    plan, how = resume_sweep(directory, How())
    more, _ = resume_sweep(directory, How(), axes={"seed": [0, 1, 2]})
    run_sweep(directory, more, how, Seen())
    message = f"{directory} has 6 points now: another process has widened it from 4"
    with pytest.raises(UsageError) as caught:
        run_sweep(directory, plan, how, Seen())
    (problem,) = caught.value.problems
    assert (problem.message, problem.hint) == (message, "resume it again")
    assert len(open_sweep(directory).table()) == len(open_sweep(directory)) == 6


@pytest.mark.slow
def test_a_kill_while_a_sweep_is_widened_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = "sweep: {random: {samples: 3, draw: {rate: {uniform: [0.1, 0.2]}}}}\n"
    directory = begun(tmp_path, sweep)
    written_manifests: list[dict[str, Any]] = []

    def write_once(path: Path, content: dict[str, Any]) -> None:
        if written_manifests:
            raise KeyboardInterrupt
        written_manifests.append(content)
        write_manifest(path, content)

    with monkeypatch.context() as patch:
        patch.setattr("runner.sweep.widening.write_manifest", write_once)
        with pytest.raises(KeyboardInterrupt):
            resume_sweep(directory, How(), overrides=["sweep.random.samples=5"])
    assert open_sweep(directory).config is not None
    plan, how = resume_sweep(directory, How())
    seen = Seen()
    run_sweep(directory, plan, how, seen)
    assert seen.started == [3, 4]
    assert len(open_sweep(directory)) == len(open_sweep(directory).table()) == 5
