"""The gallery under `engine: xla`: it takes what `engine: compile` takes, and gives the eager engine's rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import runner
from tests.cli.commands import steprun
from tests.engine.compiled import test_gallery as compiled
from tests.engine.running import numbers

pytest.importorskip("jax")

OVERRIDES = compiled.OVERRIDES | {
    "variational-autoencoder": ("dtype=float64", "constants.images.dtype=float64", "steps=20"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", compiled.COMPILES)
def test_the_rows_agree_with_the_eager_engine(name: str) -> None:
    overrides = (*OVERRIDES.get(name, ("dtype=float64",)), "log={every: 1, include: ['*']}")
    plans = [compiled.planned(name, *overrides, f"engine={engine}") for engine in ("eager", "xla")]
    count = compiled.FEWER.get(name, compiled.ROWS)
    eager, found = (list(compiled._first(runner.execute(plan), count)) for plan in plans)
    assert len(eager) == len(found) > 3
    for row, other in zip(eager, found, strict=True):
        assert (row.number, row.step, row.path, row.iteration) == (
            other.number,
            other.step,
            other.path,
            other.iteration,
        )
        mine = numbers(other)
        for column, value in numbers(row).items():
            given = mine[column]
            assert (given is None) == (value is None), (row.path, column)
            if value is not None:
                rtol, atol = compiled.TOLERANCES.get(value.dtype, (0, 0))
                scale = max(1.0, float(value.abs().max())) if value.is_floating_point() and value.numel() else 1.0
                told = compiled._at(row, column)
                torch.testing.assert_close(given, value, rtol=rtol, atol=atol * scale, msg=told)


QUICK = {
    "early-stopping": 29,
    "linear-regression": 12,
    "matrix-factorisation": 12,
    "moving-average": 42,
    "own-optimizer": 22,
    "plateau": 44,
    "schedule": 21,
    "two-optimizers": 23,
}
"""Configs that XLA compiles in less than a second each, and the rows of their snapshots."""


@pytest.mark.slow
def test_snapshots_of_the_eager_engine_hold_within_their_uncertainty() -> None:
    """Those that are committed; one with a step that cannot be compiled is skipped with its reason."""
    configs = [str(compiled.CONFIGS / f"{name}.yaml") for name in (*QUICK, "linear")]
    done = steprun("check", *configs, "--set", "engine=xla", "--json")
    assert (done.code, done.err) == (0, "")
    found = {Path(each["name"]).stem: each for each in json.loads(done.out)["snapshots"]}
    assert {name: each["status"] for name, each in found.items()} == dict.fromkeys(QUICK, "holds") | {
        "linear": "skipped"
    }
    assert {name: (found[name]["rows"], found[name]["exact"]) for name in QUICK} == {
        name: (rows, False) for name, rows in QUICK.items()
    }


@pytest.mark.parametrize("name", compiled.KEPT)
def test_this_config_says_which_step_keeps_it_from_compiling_and_why(name: str) -> None:
    with pytest.raises(runner.ConfigError, match="`engine: xla`") as caught:
        compiled.planned(name, "engine=xla")
    found = [(problem.line, problem.message.removeprefix("`engine: xla` ")) for problem in caught.value.problems]
    assert found == compiled.KEPT[name]
