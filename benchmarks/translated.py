"""W1x, W3x and W4x: W1, W3 and W4 under `engine: xla`, with compilation reported separately; and their first rows."""

from __future__ import annotations

import functools
import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy
import torch

import runner
from benchmarks import compiled, digits, linear, transformer
from benchmarks.measure import Compiled, Workload
from benchmarks.training import DATA_FOLDER, plan
from runner.plan.checks.engines import translatable
from runner.plan.streams import stream_seed

STEPS, EPOCHS = compiled.STEPS, 100
POINTS, LANE_STEPS, SHARE = 1000, 1000, 0.01
ENGINE = "engine=xla"

FIRST_ROW = """\
import itertools, sys
import torch
torch.set_num_threads(1)
import runner
from pathlib import Path
config, folder, *overrides = sys.argv[1:]
plan = runner.compile(runner.load(config, overrides, allowed_folders=[folder]), allowed=[Path(folder)])
print([row.path for row in itertools.islice(runner.execute(plan), 2)])
"""


def first_row(config: Path, *overrides: str) -> None:
    """Runs a process until it has the row of the first `train` step."""
    command = [sys.executable, "-c", FIRST_ROW, str(config), str(DATA_FOLDER), *overrides]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)


def translated(config: Path, *overrides: str) -> Compiled:
    """Runs and records a config under `engine: xla`.

    Returns:
        the seconds of its compilation: of the trace while planning too, which finds what has no translation.
    """
    seconds, check = 0.0, translatable._check_expressions

    def timed(*given: Any) -> Any:
        nonlocal seconds
        begun = time.perf_counter()
        found = check(*given)
        seconds += time.perf_counter() - begun
        return found

    with mock.patch.object(translatable, "_check_expressions", timed):
        run = compiled.compiled(config, *overrides, engine="xla")
    return Compiled(seconds + run.seconds)


@functools.cache
def _linear() -> Callable[[Any], Any]:
    import jax

    def objective(x: Any) -> Any:
        return 10 * x[0] + 20 * x[1] + 30 * x[2]

    def step(x: Any, _: None) -> tuple[Any, Any]:
        f, gradient = jax.value_and_grad(objective)(x)
        x = x - 0.01 * gradient
        return x, (f, x, gradient)

    return jax.jit(lambda x: jax.lax.scan(step, x, None, length=STEPS))


def linear_in_jax() -> None:
    """W1 as one scan that keeps every value, weight and gradient in memory."""
    import jax
    import jax.numpy as jnp

    jax.block_until_ready(_linear()(jnp.array([100.0, 200.0, 300.0])))


@functools.cache
def _digits() -> Callable[..., Any]:
    import jax
    import jax.numpy as jnp

    def objective(weights: Any, images: Any, labels: Any) -> Any:
        w1, b1, w2, b2 = weights
        scores = jax.nn.relu(images @ w1.T + b1) @ w2.T + b2
        return -jnp.take_along_axis(jax.nn.log_softmax(scores), labels[:, None], 1).mean()

    def step(before: Any, batch: Any) -> Any:
        weights, first, second, t = before
        t = t + 1
        loss, gradients = jax.value_and_grad(objective)(weights, *batch)
        first = [0.9 * m + 0.1 * g for m, g in zip(first, gradients, strict=True)]
        second = [0.999 * v + 0.001 * g * g for v, g in zip(second, gradients, strict=True)]
        rate, root = 0.001 / (1 - 0.9**t), jnp.sqrt(1 - 0.999**t)
        weights = [w - rate * m / (jnp.sqrt(v) / root + 1e-8) for w, m, v in zip(weights, first, second, strict=True)]
        return (weights, first, second, t), loss

    return jax.jit(lambda start, batches: jax.lax.scan(step, start, batches))


def digits_in_jax() -> list[float]:
    """W3 as one scan for each pass, with the batches that steprun draws; returns the losses."""
    import jax.numpy as jnp

    names = ("0.weight", "0.bias", "2.weight", "2.bias")
    weights = [jnp.array(digits.initial_weights()[name].numpy()) for name in names]
    zeros = [jnp.zeros_like(weight) for weight in weights]
    state: Any = (weights, zeros, list(zeros), 0.0)
    images, labels = (part.numpy() for part in digits.digits())
    losses = []
    for epoch in range(1, EPOCHS + 1):
        generator = torch.Generator().manual_seed(stream_seed(0, "shuffle", "train", epoch))
        chosen = torch.randperm(len(images), generator=generator).reshape(-1, digits.BATCH).numpy()
        state, loss = _digits()(state, (images[chosen], labels[chosen]))
        losses.append(numpy.asarray(loss))
    return numpy.concatenate(losses).tolist()  # type: ignore[no-any-return]


def _near_jax() -> None:
    from benchmarks.training import losses

    found = losses(digits.CONFIG, ENGINE, f"steps={{epochs: {EPOCHS}}}")[:200]
    worst = max(abs(ours - theirs) / abs(theirs) for ours, theirs in zip(found, digits_in_jax(), strict=False))
    assert worst < 1e-3, f"the losses of both sides differ by {worst:.1e}"


@functools.cache
def _lane_plan(every: int) -> runner.Plan:
    return plan(linear.CONFIG, ENGINE, f"steps={LANE_STEPS}", f"log={{every: {every}}}")


def lanes(every: int) -> Compiled:
    """Runs `POINTS` points of W1 as lanes in one loop; their rows stay in memory, and they are planned before."""
    from runner.engine.lanes.execute import run_lanes
    from runner.engine.lanes.starting import Lane
    from runner.engine.lanes.translated.trainer import _LaneTrainer

    seconds = 0.0

    def timed(method: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            nonlocal seconds
            begun = time.perf_counter()
            found = method(*given)
            seconds += time.perf_counter() - begun
            return found

        return run

    made = _lane_plan(every)
    points = [Lane(0, rates={"optimizer": 0.001 + 1e-5 * point}) for point in range(POINTS)]
    with (
        mock.patch.object(_LaneTrainer, "_built", timed(_LaneTrainer._built)),
        mock.patch.object(_LaneTrainer, "_compile", timed(_LaneTrainer._compile)),
    ):
        ran = run_lanes(made, points, exact=False)
    assert all(ran.sound)
    assert len(ran.numbers) == 1 + LANE_STEPS // every
    return Compiled(seconds)


def some_by_hand() -> None:
    """Runs a fraction of the points, one after another."""
    for _ in range(round(POINTS * SHARE)):
        linear.by_hand(LANE_STEPS)


def workloads() -> list[Workload]:
    """Returns nothing where JAX is not installed."""
    if importlib.util.find_spec("jax") is None:
        return []
    lines = f"configs/linear.yaml, {STEPS:,} `train` steps, `engine: xla`, every gradient and weight to Parquet"
    letters = f"MLP 64-128-10 on digits, Adam, batches of 64, {EPOCHS} epochs, losses logged, `engine: xla`"
    ours_linear = functools.partial(translated, linear.CONFIG, f"steps={STEPS}")
    ours_digits = functools.partial(translated, digits.CONFIG, f"steps={{epochs: {EPOCHS}}}")
    by_hand, scan = "hand-written loop, no logging", "hand-written JAX scan that keeps its rows"
    passes = EPOCHS * digits.STEPS // digits.EPOCHS
    loops: list[tuple[str, str, str, Any, Any, float, int, Any]] = [
        ("W1x", lines, by_hand, ours_linear, functools.partial(linear.by_hand, STEPS), 0.01, STEPS, None),
        ("W1x", lines, scan, ours_linear, linear_in_jax, 10.0, STEPS, None),
        ("W3x", letters, by_hand, ours_digits, functools.partial(digits.by_hand, EPOCHS), 0.15, passes, None),
        ("W3x", letters, scan, ours_digits, digits_in_jax, 1.3, passes, _near_jax),
        (
            "W4x",
            f"{transformer.workloads()[0].what}, `engine: xla`",
            "the same as an `nn.Module`",
            functools.partial(translated, transformer.CONFIG),
            transformer.by_hand,
            1.0,
            transformer.STEPS,
            functools.partial(compiled.near, transformer.CONFIG, transformer.by_hand, "xla"),
        ),
    ]
    found = [
        Workload(name, what, against, ours, theirs, reach=reach, steps=steps, verify=verify, cache="")
        for name, what, against, ours, theirs, reach, steps, verify in loops
    ]
    for every, reach, log in ((LANE_STEPS, 1 / 3000, "the last row recorded"), (1, 1 / 200, "everything recorded")):
        what = f"{POINTS:,} points of W1 of {LANE_STEPS:,} steps as lanes, `engine: xla`, {log} in memory"
        one_by_one = "hand-written loop, one after another"
        lane = functools.partial(lanes, every)
        found.append(Workload("W8x", what, one_by_one, lane, some_by_hand, reach, steps=POINTS, cache="", share=SHARE))
    for name, config, reach in (("W1x", linear.CONFIG, 2.5), ("W3x", digits.CONFIG, 3.5)):
        what = f"{config.name}: a process until its first row of `train`, `engine: xla`"
        ours, theirs = (
            functools.partial(first_row, config, *_loop(name), ENGINE),
            functools.partial(first_row, config, *_loop(name)),
        )
        found.append(Workload(name, what, "`engine: eager`", ours, theirs, reach=reach, measure="difference"))
    return found


def _loop(name: str) -> tuple[str, ...]:
    return (f"steps={STEPS}",) if name == "W1x" else ()
