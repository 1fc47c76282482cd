"""Promise 1, what you read is what ran: the examples written by hand in PyTorch, equal at every row and bit."""
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path

import numpy
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from runner.plan.streams import stream_seed
from tests.twins.trainer import FOLDER, Snapshot, Start, Trainer, Twin, assert_bit_identical


def linear(start: Start) -> Iterator[Snapshot]:
    trainer = Trainer(x1=torch.tensor([100.0]), x2=torch.tensor([200.0]), x3=torch.tensor([300.0]))
    constant = torch.tensor([30.0])
    optimizer = torch.optim.SGD(trainer.held(), lr=0.01)

    def backward() -> Snapshot:
        f = 10 * trainer["x1"] + 20 * trainer["x2"] + constant * trainer["x3"]
        f.backward()
        return trainer.shows("backward", f=f)

    yield trainer.shows("start", "f")
    yield backward()
    optimizer.step()
    yield trainer.shows("step", "f")
    yield backward()


def manual_update(start: Start) -> Iterator[Snapshot]:
    trainer = Trainer(x1=torch.tensor([100.0]), x2=torch.tensor([200.0]), x3=torch.tensor([300.0]))
    constant, learning_rate = torch.tensor([30.0]), 0.01

    def backward() -> Snapshot:
        f = 10 * trainer["x1"] + 20 * trainer["x2"] + constant * trainer["x3"]
        f.backward()
        return trainer.shows("backward", f=f)

    yield trainer.shows("start", "f")
    yield backward()
    for weight in trainer.held():
        assert weight.grad is not None
        weight.data = weight.data - learning_rate * weight.grad
    yield trainer.shows("assign", "f")
    yield backward()
    trainer.zero_grad()
    yield trainer.shows("zero_grad", "f")


def parameter(start: Start) -> Iterator[Snapshot]:
    trainer = Trainer(weights=torch.ones(512, 512))
    inputs = torch.ones(512, 512) * 666
    optimizer = torch.optim.SGD(trainer.held(), lr=2)
    yield trainer.shows("start", "output")
    output = (inputs * trainer["weights"]).sum()
    output.backward()
    yield trainer.shows("backward", output=output)
    optimizer.step()
    yield trainer.shows("step", "output")


def linear_regression(start: Start) -> Iterator[Snapshot]:
    with (FOLDER / "data" / "spring.csv").open(encoding="utf-8", newline="") as file:
        rows = [{name: float(text) for name, text in row.items()} for row in csv.DictReader(file)]
    inputs = torch.tensor([[row["load"], row["warmth"]] for row in rows])
    length = torch.tensor([row["length"] for row in rows])
    trainer = Trainer(slope=torch.zeros(2), offset=torch.tensor(0.0))
    optimizer = torch.optim.SGD(trainer.held(), lr=0.3)
    yield trainer.shows("start", "predicted", "loss")
    for _ in range(201):
        optimizer.zero_grad()
        predicted = inputs @ trainer["slope"] + trainer["offset"]
        loss = torch.mean((predicted - length) ** 2)
        loss.backward()
        optimizer.step()
        yield trainer.shows("train", predicted=predicted, loss=loss)


HOURS = [0.5, 0.75, 1, 1.25, 1.5, 1.75, 1.75, 2, 2.25, 2.5, 2.75, 3, 3.25, 3.5, 4, 4.25, 4.5, 4.75, 5, 5.5]
PASSED = [0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 1, 1, 1, 1, 1]


def logistic_regression(start: Start) -> Iterator[Snapshot]:
    hours, passed = torch.tensor(HOURS, dtype=torch.float64), torch.tensor(PASSED, dtype=torch.float64)
    trainer = Trainer(per_hour=torch.zeros((), dtype=torch.float64), offset=torch.zeros((), dtype=torch.float64))
    optimizer = torch.optim.LBFGS(trainer.held(), line_search_fn="strong_wolfe")

    def forward() -> dict[str, Tensor]:
        logits = trainer["per_hour"] * hours + trainer["offset"]
        accuracy = ((logits > 0) == (passed > 0.5)).to(torch.float32).mean()
        loss = F.binary_cross_entropy_with_logits(logits, passed)
        return {"logits": logits, "loss": loss, "accuracy": accuracy}

    yield trainer.shows("start", "logits", "loss", "accuracy")
    yield trainer.shows("forward", **forward())
    for _ in range(3):
        yield trainer.minimised(optimizer, forward, "loss")
    yield trainer.shows("forward", **forward())


def two_optimizers(start: Start) -> Iterator[Snapshot]:
    trainer = Trainer(point_x=torch.tensor(2.0), point_y=torch.tensor(-1.0), multiplier=torch.tensor(0.0))
    descent = torch.optim.SGD(trainer.held("point_x", "point_y"), lr=0.1, momentum=0.5)
    ascent = torch.optim.SGD(trainer.held("multiplier"), lr=0.2, maximize=True)

    def train(optimizer: torch.optim.Optimizer, *names: str) -> Snapshot:
        trainer.zero_grad(*names)
        distance = trainer["point_x"] ** 2 + trainer["point_y"] ** 2
        violation = trainer["point_x"] + trainer["point_y"] - 1
        lagrangian = distance + trainer["multiplier"] * violation
        lagrangian.backward(inputs=trainer.held(*names))
        optimizer.step()
        return trainer.shows("train", distance=distance, violation=violation, lagrangian=lagrangian)

    yield trainer.shows("start", "distance", "violation", "lagrangian")
    for _ in range(101):
        yield train(descent, "point_x", "point_y")
        yield train(ascent, "multiplier")


def physics(start: Start) -> Iterator[Snapshot]:
    trainer = Trainer(**start)
    times = torch.linspace(0, torch.pi, 32, dtype=torch.float64)[:, None]
    optimizer = torch.optim.LBFGS(trainer.held(), line_search_fn="strong_wolfe")

    def forward() -> dict[str, Tensor]:
        t = times.clone().requires_grad_()
        u = 1 + t**2 * (torch.tanh(t @ trainer["w1"] + trainer["b1"]) @ trainer["w2"] + trainer["b2"])
        (velocity,) = torch.autograd.grad(u.sum(), t, create_graph=True)
        (acceleration,) = torch.autograd.grad(velocity.sum(), t, create_graph=True)
        loss = torch.mean((acceleration + u) ** 2)
        return {"u": u, "velocity": velocity, "acceleration": acceleration, "loss": loss}

    yield trainer.shows("start", "u", "velocity", "acceleration", "loss")
    for _ in range(20):
        yield trainer.minimised(optimizer, forward, "loss")
    yield trainer.shows("forward", **forward())


def _digits(name: str) -> tuple[Tensor, Tensor]:
    with numpy.load(FOLDER / "data" / f"{name}.npz") as file:
        return torch.from_numpy(file["images"]).float(), torch.from_numpy(file["labels"]).long()


def digits(start: Start) -> Iterator[Snapshot]:
    trainer = Trainer(**start)
    regression = torch.optim.Adam(trainer.held("w", "b"), lr=0.02)
    network = torch.optim.Adam(trainer.held("w1", "b1", "w2", "b2"), lr=0.01)
    images, labels = _digits("digits")
    test_images, test_labels = _digits("digits-test")
    columns: tuple[str, ...] = ("x", "scores", "regression_loss", "loss", "accuracy", "regression_accuracy")
    columns = (*columns, "test.loss", "test.accuracy", "test.regression_accuracy")

    def linear(x: Tensor) -> Tensor:
        return x @ trainer["w"] + trainer["b"]

    def layered(x: Tensor) -> Tensor:
        return F.relu(x @ trainer["w1"] + trainer["b1"]) @ trainer["w2"] + trainer["b2"]

    def right(scores: Tensor, expected: Tensor) -> Tensor:
        return (scores.argmax(1) == expected).to(torch.float32).mean()

    def evaluate() -> dict[str, Tensor]:
        totals = dict.fromkeys(columns[6:], torch.tensor(0.0, dtype=torch.float64))
        with torch.no_grad():
            for x, y in zip((test_images / 16).flatten(1).split(200), test_labels.split(200), strict=True):
                found = F.cross_entropy(layered(x), y), right(layered(x), y), right(linear(x), y)
                totals = {
                    name: totals[name] + value.double() * len(x) for name, value in zip(totals, found, strict=True)
                }
        return {name: (total / len(test_images)).float() for name, total in totals.items()}

    yield trainer.shows("start", *columns)
    for epoch in range(1, 9):
        generator = torch.Generator().manual_seed(stream_seed(1, "shuffle", "train", epoch))
        for chosen in torch.randperm(len(images), generator=generator).split(100):
            x, y = images[chosen].flatten(1) / 16, labels[chosen]
            trainer.zero_grad("w", "b")
            regression_loss = F.cross_entropy(linear(x), y)
            found = {"regression_accuracy": right(linear(x), y)}
            regression_loss.backward()
            regression.step()
            yield trainer.shows("train", *columns, x=x, regression_loss=regression_loss, **found)
            trainer.zero_grad("w1", "b1", "w2", "b2")
            layered_scores = layered(x)
            loss = F.cross_entropy(layered_scores, y)
            found = {"accuracy": right(layered_scores, y), "regression_accuracy": right(linear(x), y)}
            loss.backward()
            network.step()
            yield trainer.shows("train", *columns, x=x, scores=layered_scores, loss=loss, **found)
        yield trainer.shows("evaluate", *columns, **evaluate())


TWINS: Mapping[str, Twin] = {
    "linear": linear,
    "manual-update": manual_update,
    "parameter": parameter,
    "linear-regression": linear_regression,
    "logistic-regression": logistic_regression,
    "two-optimizers": two_optimizers,
    "physics": physics,
    "digits": digits,
}


@pytest.mark.parametrize("name", TWINS)
def test_what_you_read_is_what_ran(name: str) -> None:
    assert_bit_identical(FOLDER / f"{name}.yaml", TWINS[name])


def test_every_example_has_a_twin() -> None:
    modules = [import_module(f"tests.twins.{path.stem}") for path in Path(__file__).parent.glob("test_*.py")]
    twins = [name for module in modules for name in module.TWINS]
    assert sorted(twins) == sorted(path.stem for path in FOLDER.glob("*.yaml"))
