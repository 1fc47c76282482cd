"""Promise 1, what you read is what ran: the base configs of the gallery's sweeps, by hand in PyTorch."""
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from runner.plan.data.selection.order import Order
from runner.plan.streams import stream_seed
from tests.twins.trainer import FOLDER, Snapshot, Start, Trainer, Twin, assert_bit_identical


def _digits(name: str) -> tuple[Tensor, Tensor]:
    with np.load(FOLDER / "data" / f"{name}.npz") as file:
        return torch.from_numpy(file["images"]).float().flatten(1) / 16, torch.from_numpy(file["labels"]).long()


def sweep_learning_rate(start: Start) -> Iterator[Snapshot]:
    trainer = Trainer(w=torch.zeros(64, 10), b=torch.zeros(10))
    optimizer = torch.optim.Adam(trainer.held(), lr=0.02)
    (images, labels), (test_images, test_labels) = _digits("digits"), _digits("digits-test")
    columns = ("scores", "loss", "accuracy", "test.loss", "test.accuracy")

    def values(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        scores = x @ trainer["w"] + trainer["b"]
        right = (scores.argmax(1) == y).to(torch.float32).mean()
        return {"scores": scores, "loss": F.cross_entropy(scores, y), "accuracy": right}

    def evaluate() -> Snapshot:
        with torch.no_grad():
            found = values(test_images, test_labels)
        return trainer.shows("evaluate", *columns, **{f"test.{name}": found[name] for name in ("loss", "accuracy")})

    yield trainer.shows("start", *columns)
    yield evaluate()
    for epoch in range(1, 4):
        generator = torch.Generator().manual_seed(stream_seed(0, "shuffle", "train", epoch))
        for rows in torch.randperm(len(images), generator=generator).split(100):
            optimizer.zero_grad()
            found = values(images[rows], labels[rows])
            found["loss"].backward()
            optimizer.step()
            yield trainer.shows("train", *columns, **found)
    yield evaluate()


def sweep_folds(start: Start) -> Iterator[Snapshot]:
    held_out = np.sort(Order(0, 24).rows(np.arange(24))[:5])
    table = pandas.read_csv(FOLDER / "data" / "curve.csv")
    parts = {
        "train": table.drop(held_out),
        "valid": table.loc[held_out],
        "test": pandas.read_csv(FOLDER / "data" / "curve-held-out.csv"),
    }
    trainer = Trainer(w=torch.zeros(8, dtype=torch.float64))
    optimizer = torch.optim.LBFGS(
        trainer.held(), line_search_fn="strong_wolfe", tolerance_change=0, tolerance_grad=1e-13
    )
    names = ("loss", "error")
    columns = ("predicted", *names, *(f"{part}.{name}" for part in ("valid", "test") for name in names))

    def values(part: str) -> dict[str, Tensor]:
        x, y = (torch.tensor(parts[part][name].to_numpy()) for name in ("x", "y"))
        predicted = x[:, None] ** torch.arange(8) @ trainer["w"]
        error = ((predicted - y) ** 2).mean()
        return {"predicted": predicted, "loss": error + 0.001 * trainer["w"].square().sum(), "error": error}

    def evaluate(part: str) -> Snapshot:
        with torch.no_grad():
            found = values(part)
        return trainer.shows("evaluate", *columns, **{f"{part}.{name}": found[name] for name in names})

    yield trainer.shows("start", *columns)
    for _ in range(5):
        step, row = trainer.minimised(optimizer, lambda: values("train"), "loss")
        yield step, dict.fromkeys(columns) | row
    yield evaluate("valid")
    yield evaluate("test")


def sweep_random(start: Start) -> Iterator[Snapshot]:
    trainer = Trainer(w=torch.ones(2, dtype=torch.float64))
    optimizer = torch.optim.SGD(trainer.held(), lr=0.03, momentum=0.7)
    curvature = torch.tensor([1.0, 100.0], dtype=torch.float64)

    def loss() -> Tensor:
        return (curvature * trainer["w"].square()).sum() / 2

    yield trainer.shows("start", "loss")
    for _ in range(60):
        optimizer.zero_grad()
        found = loss()
        found.backward()
        optimizer.step()
        yield trainer.shows("train", loss=found)
    yield trainer.shows("forward", loss=loss())


TWINS: Mapping[str, Twin] = {
    "sweep-folds": sweep_folds,
    "sweep-learning-rate": sweep_learning_rate,
    "sweep-random": sweep_random,
}


@pytest.mark.parametrize("name", TWINS)
def test_what_you_read_is_what_ran(name: str) -> None:
    assert_bit_identical(FOLDER / f"{name}.yaml", TWINS[name])
