"""`engine: auto` is `xla` where that can run the config and saves more than compiling costs, else `eager`."""

from __future__ import annotations

import importlib.metadata
import json
from datetime import datetime
from pathlib import Path

import pytest
import torch

import runner
from runner.compare.environment import environment_of
from runner.compare.snapshots.capture import plan_of
from runner.plan.checks.engines import choice, translatable
from runner.record.directory import create_run_directory
from runner.record.resuming import resume
from runner.record.running import run_recorded
from tests.cli.commands import steprun
from tests.engine.running import compiled, numbers, same
from tests.tables import over

jax = pytest.importorskip("jax")

HEAD = "engine: auto\nparameters: {w: {shape: [3], init: ones}}\nlog: {every: 1000, tensors: none}\n"
MODEL = HEAD + "expression: f = (sin(w) * w).square().sum()\noptimizer: {sgd: {lr: 0.1}}\n"
"""Four operations."""

PAYS = 53_334
"""The least n with 15 µs × 4 × n > 3 s + 4 × 0.05 s."""

FREE = ("STARTED", "COMPILED", "UPDATED")


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling costs nothing, so it pays after one iteration."""
    for name in FREE:
        monkeypatch.setattr(choice, name, 0)


def missing(name: str) -> str:
    raise importlib.metadata.PackageNotFoundError(name)


ESTIMATE = "{} iterations save about {} s, and compiling costs about 3.20 s"
DYNAMIC = "expression: |\n  h = w[w > 0]\n  f = h.square().sum()\noptimizer: {sgd: {lr: 0.1}}\nsteps: 1000000\n"

CHOICES = {
    "short": (MODEL + "steps: 300\n", "eager", ESTIMATE.format("300", "0.01")),
    "just too short": (MODEL + f"steps: {PAYS - 1}\n", "eager", ESTIMATE.format("53,333", "3.19")),
    "long enough": (MODEL + f"steps: {PAYS}\n", "xla", ESTIMATE.format("53,334", "3.20")),
    "as much as compiling costs": (  # three operations: 15 µs × 3 × 70,000 = 3 s + 3 × 0.05 s
        HEAD + "expression: f = sin(w).square().sum()\noptimizer: {sgd: {lr: 0.1}}\nsteps: 70000\n",
        "eager",
        "70,000 iterations save about 3.15 s, and compiling costs about 3.15 s",
    ),
    "two loops": (  # each is compiled, and each has its own number of iterations
        MODEL + "steps: [{repeat: {times: 40000, steps: [train]}}, {repeat: {times: 30000, steps: [train]}}]\n",
        "xla",
        "70,000 iterations save about 4.20 s, and compiling costs about 3.40 s",
    ),
    "far larger than any run": (
        MODEL.replace("every: 1000", f"every: {2**60}") + f"steps: {2**62}\n",
        "xla",
        ESTIMATE.format(f"{2**62:,}", f"{2**62 * 60 // 10**6:,}.{2**62 * 60 // 10**4 % 100:02}"),
    ),
    "many updates": (  # 200 parameters: 3 s + 200 × 49 × 2.4 ms
        "engine: auto\nparameters:\n"
        + "".join(f"  p{number}: {{shape: [2], init: ones}}\n" for number in range(200))
        + f"expression: f = stack([{', '.join(f'p{number}' for number in range(200))}]).sum()\n"
        + "optimizer: {adam: {lr: 0.1}}\nsteps: 500000\nlog: {every: 100000, tensors: none}\n",
        "eager",
        "500,000 iterations save about 15.00 s, and compiling costs about 26.52 s",
    ),
    "nested loops": (
        MODEL + "steps: [{repeat: {times: 300, steps: [{repeat: {times: 200, steps: [train]}}]}}]\n",
        "xla",
        ESTIMATE.format("60,000", "3.60"),
    ),
    "no loop": (
        MODEL + "steps: [train]\n",
        "eager",
        "no `train` step is alone in a loop, so none would run many iterations in one call",
    ),
    "not alone in its loop": (
        MODEL + "steps: [{repeat: {times: 1000000, steps: [train, forward]}}]\n",
        "eager",
        "no `train` step is alone in a loop, so none would run many iterations in one call",
    ),
    "no steps of training": (
        MODEL + "steps: [forward]\n",
        "eager",
        "no `train` step is alone in a loop, so none would run many iterations in one call",
    ),
    "large operations": (
        MODEL.replace("shape: [3]", "shape: [1000000]") + "steps: 1000000\n",
        "eager",
        "an operation computes 3.8 MiB on average, and `xla` saves little above 256.0 KiB",
    ),
    "a shape that depends on data": (
        HEAD + DYNAMIC,
        "eager",
        "`engine: xla` cannot compile this: its shape depends on data, in `expression`",
    ),
    "health": (
        MODEL + "steps: 1000000\nhealth: {unchanged: 10}\n",
        "eager",
        "`engine: xla` runs many steps at once, and `health` checks each, in `health`",
    ),
    "an optimizer": (
        MODEL.replace("sgd: {lr: 0.1}", "lbfgs: {}") + "steps: 1000000\n",
        "eager",
        "`engine: xla` cannot compile this step: `lbfgs` evaluates the objective again within its step, in `steps`",
    ),
    "a scaled loss": (
        MODEL + "autocast: {dtype: float16, loss_scale: {}}\nsteps: 1000000\n",
        "eager",
        "`engine: xla` takes every step, and `loss_scale` skips some, in `autocast.loss_scale`",
    ),
}


@over("text, engine, reason", list(CHOICES.values()))
def test_the_choice_is_by_the_plan_and_says_why(text: str, engine: str, reason: str) -> None:
    plan = compiled(text)
    assert (plan.config.engine, plan.engine_reason) == (engine, reason)
    assert f"\nengine: {engine}\n" in "\n" + plan.config.document.to_yaml()


@over(
    "version, reason",
    [
        (missing, "`engine: xla` needs JAX, and it is not installed"),
        (lambda name: "0.4.38", "`engine: xla` needs JAX 0.10 or later, and this is JAX 0.4.38"),
    ],
)
def test_without_jax_it_is_eager(version: object, reason: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.metadata, "version", version)
        plan = compiled(MODEL + "steps: 1000000\n")
    assert (plan.config.engine, plan.engine_reason) == ("eager", reason)


def test_a_step_that_takes_too_long_to_compile_is_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translatable, "MOST_IN_A_STEP", 13)
    plan = compiled(MODEL + "steps: 1000000\n")
    assert (plan.config.engine, plan.engine_reason) == (
        "eager",
        "`engine: xla` cannot compile this step: it has about 14 operations to update 1 parameter, and 13 are the "
        "most, in `steps`",
    )


@over("text, engine, reason", [CHOICES[name] for name in ("long enough", "just too short", "an optimizer")])
def test_the_environment_changes_no_choice(text: str, engine: str, reason: str) -> None:
    def excluded(kind: str) -> None:
        raise RuntimeError(f"Unknown backend {kind}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_PLATFORMS", "cuda")
        patch.setattr(jax, "devices", excluded)
        if engine == "eager":
            assert compiled(text).engine_reason == reason
            return
        with pytest.raises(runner.ConfigError, match="JAX_PLATFORMS") as caught:
            compiled(text)
    (problem,) = caught.value.problems
    assert (problem.line, problem.column) == (1, 9)
    assert problem.message == (
        "`engine: auto` is `xla` for this config, which runs on the devices of JAX, and it has no `cpu`: "
        "JAX_PLATFORMS is `cuda`"
    )
    assert problem.hint == "unset the environment variable JAX_PLATFORMS, or write `engine: compile` or `engine: eager`"


def test_a_device_other_than_the_cpu_is_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    config = runner.loads(MODEL + "steps: 1000000\n", overrides=["device=cuda"])
    plan = compiled(MODEL + "steps: 1000000\n")
    chosen, reason = choice.choose_engine(config, plan.program, plan.optimizers, plan.tensors, plan.health, None)
    assert (chosen.engine, reason) == ("eager", "`auto` chooses `xla` only on `cpu`")


def test_an_engine_that_the_config_names_has_no_reason() -> None:
    assert compiled(MODEL.replace("auto", "eager") + "steps: 3\n").engine_reason is None


@pytest.mark.usefixtures("free")
def test_the_rows_are_those_of_the_engine_that_was_chosen() -> None:
    text = MODEL.replace("every: 1000, tensors: none", "every: 1") + "steps: 5\n"
    found, expected = (list(runner.execute(compiled(each))) for each in (text, text.replace("auto", "xla")))
    w = torch.ones(3, dtype=torch.float64)
    for row, other in zip(found, expected, strict=True):
        assert all(same(value, numbers(other)[name]) for name, value in numbers(row).items())
        torch.testing.assert_close(row["w"], w.float())
        if row.number < 5:
            w -= 0.1 * 2 * w * w.sin() * (w.sin() + w * w.cos())


@pytest.mark.slow
def test_resume_keeps_what_was_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(MODEL.replace("every: 1000, tensors: none", "every: 1") + "steps: 40\n")
    with monkeypatch.context() as patch:
        for name in FREE:
            patch.setattr(choice, name, 0)
        whole = runner.run(path, runs_dir=tmp_path / "whole")
        plan = runner.compile(runner.load(path))
    reason = "40 iterations save about 0.00 s, and compiling costs about 0.00 s"
    assert compiled(path.read_text()).config.engine == "eager"  # now it would choose otherwise
    directory = create_run_directory(tmp_path, "run", datetime.now())
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        run_recorded(plan, directory, stop=lambda: True)
    resumed = resume(directory)
    assert resumed.to_arrow().equals(whole.to_arrow())
    longer = resume(directory, ["steps=41"])
    for run in (whole, resumed, longer):
        assert (run.manifest["engine"], run.manifest["engine_reason"]) == ("xla", reason)
        assert "\nengine: xla\n" in "\n" + (run.path / "config.yaml").read_text()


def test_a_run_that_chose_eager_stays_so_where_xla_would_pay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(MODEL + "steps: 40\n")
    run = runner.run(path, runs_dir=tmp_path)
    for name in FREE:
        monkeypatch.setattr(choice, name, 0)
    again = resume(run.path, ["steps=50"])
    assert (
        again.manifest["engine"]
        == runner.run(run.path / "config.yaml", runs_dir=tmp_path).manifest["engine"]
        == "eager"
    )
    assert again.manifest["engine_reason"] == "40 iterations save about 0.00 s, and compiling costs about 3.20 s"


@pytest.mark.usefixtures("free")
def test_show_and_plans_say_what_was_chosen_and_why(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(MODEL + "steps: 300\n")
    reason = "300 iterations save about 0.01 s, and compiling costs about 0.00 s"
    page = steprun("show", "run.yaml", cwd=tmp_path).out.splitlines()
    assert page[1:3] == [
        "seed 0, float32, cpu, xla engine, up to 16384 iterations at once",
        f"engine: auto is xla: {reason}",
    ]
    told = json.loads(steprun("show", "run.yaml", "--json", cwd=tmp_path).out)
    assert (told["engine"], told["engine_reason"], told["at_once"]) == ("xla", reason, 16384)
    assert reason in str(compiled(MODEL + "steps: 300\n"))


@pytest.mark.usefixtures("free")
def test_a_snapshot_has_the_chosen_engine_and_what_it_observes(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(MODEL + "steps: 300\nsnapshot: {tensors: full}\n")
    plan = plan_of(path)
    assert environment_of(plan)["engine"] == "xla"
    assert plan.config.log == plan_of(path, ["engine=xla"]).config.log
