"""No false alarm: a snapshot of one environment holds in every other that this machine can stand for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.matrix.environments import ENVIRONMENTS, HARSHEST, PLAIN, Environment, check, copied, steprun

ROOT = Path(__file__).parents[2]
GALLERY = {path.stem: path for path in sorted((ROOT / "configs").glob("*.yaml"))}
SMALL = {path.stem: path for path in sorted((Path(__file__).parent / "configs").glob("*.yaml"))}
CONFIGS = {**GALLERY, **SMALL}

FEW_CONFIGS = ("logistic-regression", "moving-average", "attention", "evaluate", "small-lstm", "small-gan")
FEW_ENVIRONMENTS = ("aten-default", "onednn-off", "all-sse")


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_snapshots(tmp_path_factory.mktemp("few"), FEW_CONFIGS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_snapshots(tmp_path_factory.mktemp("whole"), tuple(CONFIGS))


def with_snapshots(folder: Path, names: tuple[str, ...]) -> Path:
    """A folder with copies of configs, and the snapshots that the plain environment takes of them."""
    copied({name: CONFIGS[name] for name in names}, folder)
    steprun(PLAIN, ["snapshot", "--quiet", *(f"{name}.yaml" for name in names)], folder)
    return folder


def holds(environment: Environment, folder: Path, names: tuple[str, ...]) -> None:
    outcomes = check(environment, folder, names)
    alarms = {name: outcome["text"] for name, outcome in outcomes.items() if outcome["status"] != "holds"}
    assert not alarms, "\n".join(f"{name}: {line}" for name, lines in alarms.items() for line in lines)
    assert set(outcomes) == set(names)
    if environment is HARSHEST:
        assert not any(outcome["exact"] for outcome in outcomes.values())
        assert not all(outcome["details"]["bits"] for outcome in outcomes.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [each for each in ENVIRONMENTS if each.name in FEW_ENVIRONMENTS],
    ids=lambda environment: environment.name,
)
def test_some_snapshots_hold_elsewhere(few: Path, environment: Environment) -> None:
    holds(environment, few, FEW_CONFIGS)


@pytest.mark.matrix
@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda environment: environment.name)
def test_every_snapshot_holds_elsewhere(whole: Path, environment: Environment) -> None:
    if not environment.is_available:
        pytest.skip(f"this processor has no {environment.needs}")
    holds(environment, whole, tuple(CONFIGS))


def test_the_matrix_is_as_wide_as_it_says() -> None:
    assert len(SMALL) >= 20
    assert not set(SMALL) & set(GALLERY)
    assert len(ENVIRONMENTS) >= 8
