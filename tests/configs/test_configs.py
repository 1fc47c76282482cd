"""Every example runs, its expectations hold, and they are not idle: what they pin cannot move unnoticed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import runner

FOLDER = Path(__file__).parents[2] / "configs"
CONFIGS = sorted(FOLDER.glob("*.yaml"))
OFF = 1.01

PERTURBATIONS = {
    "linear": [
        ("learning_rate: 0.01", "learning_rate: 0.0101"),
        ("10 * x1", "10.1 * x1"),
        ("shape: [1], init: 30}", "shape: [1], init: 30.3}"),
    ],
    "parameter": [
        ("learning_rate: 2", "learning_rate: 2.02"),
        ("init: 666", "init: 672.66"),
        ("init: ones", "init: zeros"),
    ],
    "manual-update": [
        ("learning_rate: 0.01", "learning_rate: 0.0101"),
        ("x3 - learning_rate * x3.grad", "x3 + learning_rate * x3.grad"),
    ],
    "linear-regression": [
        ("{sgd: {lr: learning_rate}}", "{sgd: {lr: 1.01 * learning_rate}}"),
        ("+ offset", "+ 1.01 * offset"),
        ("times: 200", "times: 20"),
    ],
    "logistic-regression": [
        ("per_hour: 0", "per_hour: 0.01"),
        ("hours + offset", "1.01 * hours + offset"),
        ("times: 3", "times: 0"),
    ],
    "digits": [
        ("lr: 0.01}", "lr: 0.00001}"),
        ("epochs: 8", "epochs: 1"),
        ("flatten(1) / 16", "flatten(1) / 1600"),
    ],
    "two-optimizers": [("lr: 0.1,", "lr: 0.101,"), ("lr: 0.2,", "lr: 0.202,"), ("point_y - 1", "point_y - 1.01")],
    "physics": [
        ("acceleration + u)", "acceleration + 1.01 * u)"),
        ("times: 20", "times: 1"),
        ("u = 1 +", "u = 1.01 +"),
    ],
}
"""What to write instead, so that a config computes something else and must fail one of its expectations."""


def execute(config: runner.Config) -> list[runner.Row]:
    return list(runner.execute(runner.compile(config)))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_example_runs_and_its_expectations_hold(path: Path) -> None:
    assert execute(runner.load(path))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_example_says_what_it_is_and_expects_something(path: Path) -> None:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert document["description"]
    assert list(_expectations(document))


@pytest.mark.parametrize(
    ("name", "old", "new"), [(name, *change) for name, changes in PERTURBATIONS.items() for change in changes]
)
def test_an_example_that_computes_something_else_fails_an_expectation(name: str, old: str, new: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    steps = text.index("steps:")
    assert text.count(old, 0, steps if old in text[:steps] else None) == 1
    with pytest.raises(runner.ExpectationError, match="expect"):
        execute(runner.loads(text.replace(old, new, 1), base=str(FOLDER)))


def test_every_example_is_perturbed() -> None:
    assert sorted(PERTURBATIONS) == sorted(path.stem for path in CONFIGS)


def _expectations(node: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Every expectation of a document: the mapping that holds its value, and under which key."""
    if isinstance(node, list):
        for item in node:
            yield from _expectations(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key != "expect":
                yield from _expectations(value)
                continue
            for name, expected in value.items():
                yield (expected, "value") if isinstance(expected, dict) else (value, name)


def _off_by_one_per_cent(value: Any) -> Any:
    match value:
        case None:
            return 0  # no gradient is not a gradient of zero
        case str():
            return f"{OFF} * ({value})"
    return value * OFF or 0.01


PLACES = [
    pytest.param(path, place, id=f"{path.stem}-{place}")
    for path in CONFIGS
    for place, _ in enumerate(_expectations(yaml.safe_load(path.read_text(encoding="utf-8"))))
]


@pytest.mark.parametrize(("path", "place"), PLACES)
def test_an_expectation_off_by_one_per_cent_does_not_hold(path: Path, place: int) -> None:
    document = copy.deepcopy(yaml.safe_load(path.read_text(encoding="utf-8")))
    holder, key = list(_expectations(document))[place]
    holder[key] = _off_by_one_per_cent(holder[key])
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    with pytest.raises((runner.ExpectationError, runner.ConfigError), match="expect"):  # a constant has no gradient
        execute(runner.loads(text, base=str(FOLDER)))
