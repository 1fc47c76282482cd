"""The commands of docs/sweeps.md, from cross-validation to predictions, against numpy."""

from __future__ import annotations

import csv
import re
import shlex
import shutil
from pathlib import Path

import numpy
import pytest

from runner.sweep.record.reading import open_sweep
from tests.cli.commands import steprun

DOCS = Path(__file__).parents[2] / "docs"

Array = numpy.ndarray[tuple[int, ...], numpy.dtype[numpy.float64]]


def blocks() -> tuple[str, list[list[str]]]:
    text = (DOCS / "sweeps.md").read_text(encoding="utf-8")
    config = re.search(r"^```yaml\n(# beans.yaml\n.*?)^```", text, re.DOTALL | re.MULTILINE)
    commands = re.search(r"<!-- commands: from cross.*? -->\n```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert config
    assert commands
    return config[1], [shlex.split(line)[1:] for line in commands[1].splitlines()]


def table(path: Path) -> tuple[Array, Array]:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    x = numpy.array([[float(row["length"]), float(row["width"])] for row in rows])
    return x, numpy.array([float(row["kind"] == "round") for row in rows])


def fitted(x: Array, y: Array, rate: float) -> tuple[Array, float]:
    """Logistic regression by 100 steps of gradient descent."""
    w, b = numpy.zeros(2), 0.0
    for _ in range(100):
        error = 1 / (1 + numpy.exp(-(x @ w + b))) - y
        w, b = w - rate * x.T @ error / len(y), b - rate * error.mean()
    return w, b


def loss(x: Array, y: Array, w: Array, b: float) -> float:
    score = x @ w + b
    return float(numpy.mean(numpy.logaddexp(0, score) - y * score))


@pytest.mark.slow
def test_the_commands_find_the_best_rate_and_predict_with_it(tmp_path: Path) -> None:
    config, commands = blocks()
    (tmp_path / "beans.yaml").write_text(config)
    shutil.copytree(DOCS / "data", tmp_path / "data")
    shown = [steprun(*words, cwd=tmp_path) for words in commands]
    assert [each.code for each in shown] == [0, 0, 0, 0], shown

    (directory,) = (tmp_path / "sweeps" / "beans").iterdir()
    points = open_sweep(directory).table().to_pylist()
    x, y = table(tmp_path / "data" / "beans.csv")
    losses: dict[float, list[float]] = {}
    for point in points:
        losses.setdefault(point["rate"], []).append(point["objective"])
    assert {rate: len(found) for rate, found in losses.items()} == {0.01: 5, 0.1: 5, 1.0: 5}
    for rate, found in losses.items():  # each row is held out once: any 5 folds of 40 have about this mean
        order = numpy.random.default_rng(0).permutation(len(y))
        folds = numpy.array_split(order, 5)
        expected = [
            loss(x[fold], y[fold], *fitted(numpy.delete(x, fold, 0), numpy.delete(y, fold), rate)) for fold in folds
        ]
        assert numpy.mean(found) == pytest.approx(numpy.mean(expected), rel=0.05)
    first, second = shown[1].out.splitlines()[:2]
    assert (first.split()[:2], second.split()[0]) == (["rate", "mean"], "1")
    assert float(second.split()[1]) == pytest.approx(numpy.mean(losses[1.0]), rel=1e-5)

    w, b = fitted(x, y, 1.0)
    new, kinds = table(tmp_path / "data" / "new-beans.csv")
    with (tmp_path / "predictions.csv").open() as file:
        predicted = list(csv.DictReader(file))
    scores = [float(row["score"]) for row in predicted]
    assert scores == pytest.approx((new @ w + b).tolist(), rel=1e-4)
    assert [row["label"] for row in predicted] == ["round" if score > 0 else "flat" for score in scores]
    assert numpy.mean([(row["label"] == "round") == kind for row, kind in zip(predicted, kinds, strict=True)]) > 0.9
