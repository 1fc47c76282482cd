"""A label out of bounds is reported with its sample."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
from torch import Tensor

import runner
from runner.engine.data.orders import order
from tests.engine.data.by_hand import HEAD, SGD, X, Y, data, with_arrays
from tests.engine.running import rows_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return with_arrays(tmp_path)


HOLDS = "sample 9 of `y` in `train` holds it"

LABELS = {
    "cross_entropy(x @ w, y)": ("label 4", HOLDS, "0 to 3"),
    "nll_loss(log_softmax(x @ w, 1), y)": ("label 4", HOLDS, "0 to 3"),
    "multi_margin_loss(x @ w, y)": ("label 4", HOLDS, "0 to 3"),
    "(one_hot(y, 4) * (x @ w)).sum()": ("label 4", HOLDS, "0 to 3"),
    "gather(x @ w, 1, y[:, None]).sum()": ("index 4", HOLDS, "0 to 3"),
    "(x @ w).gather(1, index=y[:, None]).sum()": ("index 4", HOLDS, "0 to 3"),
    "zeros(5, 4).scatter(1, y[:, None], (x @ w)[:, :1]).sum()": (
        "index 4",
        HOLDS,
        "0 to 3",
    ),
    "embedding(y, w.T).sum()": ("index 4", HOLDS, "0 to 3"),
    "index_select(w, 1, y).sum()": ("index 4", HOLDS, "0 to 3"),
    "take(w[0], y).sum()": ("index 4", HOLDS, "-4 to 3"),
    "w.T[y].sum()": ("index 4", HOLDS, "-4 to 3"),
    "w[..., y].sum()": ("index 4", HOLDS, "-4 to 3"),
    "w[None, 1:, y].sum()": ("index 4", HOLDS, "-4 to 3"),
    "w.T[y * y].sum()": ("index 16", "it is made from sample 9 of `train`", "-4 to 3"),
    "cross_entropy(x @ w, 3 - y)": ("label -1", "it is made from sample 9 of `train`", "0 to 3"),
}
"""What an expression counts with, and what is told of the label 4 that sample 9 has; the others are 0 or 1."""


def _faulty(folder: Path, labels: Tensor = Y % 2) -> None:
    labels = labels.clone()
    labels[9] = 4
    numpy.savez(folder / "all.npz", x=X.numpy(), y=labels.numpy())


@pytest.mark.parametrize("expression", LABELS)
def test_a_label_out_of_bounds_is_told_with_its_sample(expression: str, folder: Path) -> None:
    _faulty(folder)
    columns = "x: x, y: y" if "x @" in expression else "y: y"
    text = f"""
parameters: {{w: {{shape: [3, 4], init: 1}}}}
expression: f = ({expression}).to(float32) + 0 * w.sum()
data: {{train: {{file: all.npz, columns: {{{columns}}}, batch_size: 5, shuffle: true}}}}
optimizer: {{sgd: {{lr: 0}}}}
steps: {{epochs: 1}}
"""
    label, where, bounds = LABELS[expression]
    batch = order(0, "train", 1, 12).tolist().index(9) // 5 + 1
    with pytest.raises(runner.RunError, match="out of bounds") as caught:
        rows_of(text, folder)
    (problem,) = caught.value.problems
    assert problem.message == f"the {label} is out of bounds: {where} (at for_each[{batch}].train)"
    assert problem.hint == f"here it is {bounds}: make room for more, or mend the data"
    assert problem.line == 3


def test_a_label_out_of_bounds_is_told_by_evaluate_too(folder: Path) -> None:
    _faulty(folder)
    with pytest.raises(runner.RunError, match="the label 4 is out of bounds: sample 9 of `y` in `train` holds it"):
        rows_of(HEAD + data() + SGD + "steps: [evaluate: train]\n", folder)


def test_a_label_that_is_ignored_is_in_bounds(folder: Path) -> None:
    labels = Y % 2
    labels[0] = -100
    _faulty(folder, labels)
    text = HEAD + data("batch_size: 12") + SGD
    with pytest.raises(runner.RunError, match="the label 4 is out of bounds: sample 9 of `y` in `train` holds it"):
        rows_of(text, folder)
