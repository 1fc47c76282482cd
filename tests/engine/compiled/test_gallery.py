"""The gallery under `engine: compile`: what compiles gives the eager engine's rows, and the rest says what keeps it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import runner
from tests.engine.compiled.plain import without_compiler
from tests.engine.running import numbers

CONFIGS = Path(runner.__file__).parents[1] / "configs"
COMPILES = (
    "batch-norm",
    "bfloat16",
    "convolution",
    "digits",
    "early-stopping",
    "fine-tune-from-run",
    "fine-tuning",
    "gan",
    "linear-regression",
    "logistic-exact",
    "matrix-factorisation",
    "micro-batches",
    "moving-average",
    "own-optimizer",
    "plateau",
    "polynomial-sgd",
    "schedule",
    "sweep-learning-rate",
    "sweep-random",
    "tabular",
    "transformer",
    "two-optimizers",
    "variational-autoencoder",
)
LBFGS = "cannot compile this step: `lbfgs` evaluates the objective again within its step"
BACKWARD = "compiles whole `train` steps, and `backward` is a part of one"
STEP = "compiles whole `train` steps, and `step` is a part of one"
ZERO = "compiles whole `train` steps, and `zero_grad` is a part of one"
OVER = "weights micro-batches by their length, and this objective needs weights by its `over`"
KEPT = {
    "damped-oscillator": [(30, LBFGS)],
    "gradient-accumulation": [(33, ZERO), (34, BACKWARD), (35, BACKWARD), (36, BACKWARD), (38, STEP)],
    "imbalanced": [(45, LBFGS)],
    "linear": [(21, BACKWARD), (23, STEP), (25, BACKWARD)],
    "logistic-regression": [(31, LBFGS)],
    "lstm": [(51, OVER)],
    "manual-update": [(19, BACKWARD), (26, BACKWARD), (28, ZERO)],
    "oscillator-equation": [(38, LBFGS)],
    "parameter": [(18, BACKWARD), (23, STEP)],
    "physics": [(36, LBFGS)],
    "polynomial-lbfgs": [(12, LBFGS)],
    "rosenbrock": [(35, BACKWARD), (44, LBFGS)],
    "sweep-folds": [(43, LBFGS)],
    "sharpness-aware": [(32, BACKWARD), (36, ZERO), (37, BACKWARD), (39, STEP), (40, ZERO)],
}
"""The steps that keep a config from being compiled, by their lines, each with the reason."""


def planned(name: str, *overrides: str) -> runner.Plan:
    return runner.compile(runner.load(CONFIGS / f"{name}.yaml", overrides))


def test_every_config_compiles_or_has_its_reasons() -> None:
    assert sorted([*COMPILES, *KEPT]) == sorted(path.stem for path in CONFIGS.glob("*.yaml"))


@pytest.mark.parametrize("name", COMPILES)
def test_this_config_compiles(name: str) -> None:
    assert planned(name, "engine=compile").config.engine == "compile"


@pytest.mark.parametrize("name", KEPT)
def test_this_config_says_which_step_keeps_it_from_compiling_and_why(name: str) -> None:
    with pytest.raises(runner.ConfigError, match="`engine: compile`") as caught:
        planned(name, "engine=compile")
    found = [(problem.line, problem.message.removeprefix("`engine: compile` ")) for problem in caught.value.problems]
    assert found == KEPT[name]


ROWS = 100
FEWER = {"transformer": 4, "gan": 60, "convolution": 12, "variational-autoencoder": 20}
"""Of the models that are slow without a compiler."""

DOUBLE = ("constants.images.dtype=float64", "constants.test_images.dtype=float64")
DIGITS = ("dtype=float64", "data.train.dtype.images=float64", "data.test.dtype.images=float64")
OVERRIDES = {
    "batch-norm": DIGITS,
    "convolution": ("dtype=float64", *DOUBLE),
    "digits": DIGITS,
    "fine-tune-from-run": DIGITS,
    "sweep-learning-rate": DIGITS,
    "gan": (),
    "variational-autoencoder": (),
}
"""What lets a config compute in float64, where it can; its expectations are made for its own dtype."""

TOLERANCES = {torch.float32: (6.5e-6, 5e-5), torch.float64: (5e-7, 5e-7)}
"""Relative and absolute: those of `torch.testing`, times five for compounding."""


LONG = ("digits", "transformer", "variational-autoencoder")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in COMPILES]
)
def test_the_rows_agree_with_the_eager_engine(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, where no gradient is so near to zero that an optimizer makes a direction of what rounding left."""
    without_compiler(monkeypatch)
    overrides = (*OVERRIDES.get(name, ("dtype=float64",)), "log={every: 1, include: ['*']}")
    plans = [planned(name, *overrides, f"engine={engine}") for engine in ("eager", "compile")]
    eager, compiled = (list(_first(runner.execute(plan), FEWER.get(name, ROWS))) for plan in plans)
    assert len(eager) == len(compiled) > 3
    for row, other in zip(eager, compiled, strict=True):
        assert (row.number, row.step, row.path, row.iteration) == (
            other.number,
            other.step,
            other.path,
            other.iteration,
        )
        found, expected = numbers(other), numbers(row)
        for column, value in expected.items():
            given = found[column]
            assert (given is None) == (value is None), (row.path, column)
            if value is not None:
                rtol, atol = TOLERANCES.get(value.dtype, (0, 0))
                scale = max(1.0, float(value.abs().max())) if value.is_floating_point() and value.numel() else 1.0
                torch.testing.assert_close(given, value, rtol=rtol, atol=atol * scale, msg=_at(row, column))


def _at(row: runner.Row, column: str) -> Callable[[str], str]:
    return lambda told: f"{row.path} {column}: {told}"


def _first(rows: Iterator[runner.Row], count: int) -> Iterator[runner.Row]:
    """So many rows, or fewer where an expectation was made for the config's own dtype."""
    try:
        yield from itertools.islice(rows, count)
    except runner.ExpectationError:
        return
