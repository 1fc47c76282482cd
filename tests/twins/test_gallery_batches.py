"""Promise 1, what you read is what ran: the gallery's examples with batches, written by hand in PyTorch."""
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping

import numpy
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from runner.plan.streams import stream_seed
from tests.twins.trainer import FOLDER, Snapshot, Start, Trainer, Twin, assert_bit_identical


def _readings(name: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    with (FOLDER / "data" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    x, y = (torch.tensor([float(row[column]) for row in rows], dtype=torch.float64) for column in ("x", "y"))
    return x.to(dtype), y.to(dtype)


def _features(x: Tensor, waves: int) -> Tensor:
    return torch.cos(torch.arange(waves) * math.pi * (x[:, None] + 1) / 2)


def early_stopping(start: Start) -> Iterator[Snapshot]:
    x, y = _readings("curve", torch.float64)
    held_out = _readings("curve-held-out", torch.float64)
    double = {"dtype": torch.float64}
    trainer = Trainer(
        weights=torch.zeros(16, **double),
        best=torch.tensor(math.inf, **double),
        best_weights=torch.zeros(16, **double),
        best_step=torch.tensor(0, **double),
        last_step=torch.tensor(0, **double),
    )
    kept = ("best", "best_weights", "best_step", "last_step")
    for name in kept:
        trainer.weights[name].requires_grad_(False)
    optimizer = torch.optim.SGD(trainer.held("weights"), lr=0.2)
    columns = ("loss", "held_out.loss")

    def shows(step: str, **values: Tensor) -> Snapshot:
        _, row = trainer.shows(step, *columns, **values)
        for name in kept:  # what is frozen has no column for a gradient
            assert row.pop(f"{name}.grad") is None
        return step, row

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return torch.mean((_features(x, 16) @ trainer["weights"] - y) ** 2)

    def evaluated() -> Tensor:
        with torch.no_grad():
            return loss(*held_out) * 24 / 24  # the mean over one batch of 24, weighted by its size

    yield shows("start")
    for iteration in range(1, 1001):
        optimizer.zero_grad()
        found = loss(x, y)
        found.backward()
        optimizer.step()
        yield shows("train", loss=found)
        measured = evaluated()
        yield shows("evaluate", **{"held_out.loss": measured})
        trainer["last_step"].fill_(iteration)
        yield shows("assign")
        if measured < trainer["best"]:
            trainer["best"].copy_(measured)
            trainer["best_weights"].copy_(trainer["weights"].detach())
            trainer["best_step"].fill_(iteration)
            yield shows("assign")
        if iteration - trainer["best_step"] >= 20:
            break
    with torch.no_grad():
        trainer["weights"].copy_(trainer["best_weights"])
    yield shows("assign")
    yield shows("evaluate", **{"held_out.loss": evaluated()})


def micro_batches(start: Start) -> Iterator[Snapshot]:
    x, y = _readings("curve", torch.float32)
    trainer = Trainer(whole=torch.zeros(5), parts=torch.zeros(5))
    optimizers = {name: torch.optim.SGD(trainer.held(name), lr=0.2) for name in ("whole", "parts")}

    def loss(name: str, x: Tensor, y: Tensor) -> Tensor:
        return torch.mean((_features(x, 5) @ trainer[name] - y) ** 2)

    def finish(name: str, **losses: Tensor) -> Snapshot:
        norm = torch.nn.utils.clip_grad_norm_(trainer.held(name), 0.5)
        optimizers[name].step()
        return trainer.shows("train", "whole_loss", "parts_loss", **losses, total_norm=norm)

    yield trainer.shows("start", "whole_loss", "parts_loss", "total_norm")
    for _ in range(100):
        trainer.zero_grad("whole")
        whole_loss = loss("whole", x, y)
        whole_loss.backward()
        yield finish("whole", whole_loss=whole_loss, parts_loss=loss("parts", x, y))  # a later `expect` reads it
        trainer.zero_grad("parts")
        losses = []
        for micro_x, micro_y in zip(x.split(8), y.split(8), strict=True):
            losses.append(loss("parts", micro_x, micro_y))
            (losses[-1] / 3).backward()
        yield finish("parts", parts_loss=(losses[0] + losses[1] + losses[2]) / 3)


def plateau(start: Start) -> Iterator[Snapshot]:
    x, y = _readings("curve", torch.float64)
    double = {"dtype": torch.float64}
    trainer = Trainer(weights=torch.zeros(5, **double), rate=torch.tensor(0.4, **double))
    trainer.weights["rate"].requires_grad_(False)
    optimizer = torch.optim.SGD(trainer.held("weights"), lr=0.4)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=2, min_lr=0.005)
    best, worse = math.inf, 0

    def shows(step: str, **values: Tensor) -> Snapshot:
        _, row = trainer.shows(step, "loss", "readings.loss", **values)
        assert row.pop("rate.grad") is None
        return step, row

    def loss(rows: Tensor) -> Tensor:
        return torch.mean((_features(x[rows], 5) @ trainer["weights"] - y[rows]) ** 2)

    yield shows("start")
    for epoch in range(1, 201):
        generator = torch.Generator().manual_seed(stream_seed(0, "shuffle", "readings", epoch))
        for rows in torch.randperm(24, generator=generator).split(6):
            optimizer.zero_grad()
            found = loss(rows)
            found.backward()
            optimizer.step()
            yield shows("train", loss=found)
        with torch.no_grad():
            total = torch.zeros((), **double)
            for rows in torch.arange(24).split(6):
                total = total + loss(rows) * 6
            measured = total / 24
        yield shows("evaluate", **{"readings.loss": measured})
        scheduler.step(measured.item())
        trainer["rate"].fill_(optimizer.param_groups[0]["lr"])
        yield shows("reduce_lr_on_plateau")
        if measured < best - 1e-5:
            best, worse = measured.item(), 0
        else:
            worse += 1
        if worse == 12:
            break


def bfloat16(start: Start) -> Iterator[Snapshot]:
    x, y = _readings("curve", torch.float32)
    trainer = Trainer(weights=torch.zeros(5))
    optimizer = torch.optim.SGD(trainer.held("weights"), lr=0.2)
    columns = ("fitted", "loss", "exact")
    yield trainer.shows("start", *columns)
    for _ in range(100):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            fitted = _features(x, 5) @ trainer["weights"]
            loss = torch.nn.functional.mse_loss(fitted, y)
        exact = torch.nn.functional.mse_loss(_features(x, 5) @ trainer["weights"], y).detach()
        loss.backward()
        optimizer.step()
        yield trainer.shows("train", *columns, fitted=fitted, loss=loss, exact=exact)
    with torch.no_grad():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            fitted = _features(x, 5) @ trainer["weights"]
            loss = torch.nn.functional.mse_loss(fitted, y)
        exact = torch.nn.functional.mse_loss(_features(x, 5) @ trainer["weights"], y)
    yield trainer.shows("forward", *columns, fitted=fitted, loss=loss, exact=exact)


def fine_tune_from_run(start: Start) -> Iterator[Snapshot]:
    weights = load_file(FOLDER / "data" / "pretrained-digits.safetensors")
    trainer = Trainer(**{name: weights[name] for name in ("w1", "b1", "w2", "b2")})
    for name in ("w1", "b1"):
        trainer[name].requires_grad_(False)
    optimizer = torch.optim.Adam(trainer.held("w2", "b2"), lr=0.02)

    def arrays(name: str) -> tuple[Tensor, Tensor]:
        with numpy.load(FOLDER / "data" / f"{name}.npz") as file:
            return torch.from_numpy(file["images"]).float(), torch.from_numpy(file["labels"]).long()

    def values(images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        mirrored = images.flip(2).flatten(1) / 16
        features = F.relu(mirrored @ trainer["w1"] + trainer["b1"])
        scores = features @ trainer["w2"] + trainer["b2"]
        found = {"mirrored": mirrored, "features": features, "scores": scores}
        accuracy = (scores.argmax(1) == labels).to(torch.float32).mean()
        return found | {"loss": F.cross_entropy(scores, labels), "accuracy": accuracy}

    names = ("mirrored", "features", "scores", "loss", "accuracy")
    measured = ("test.loss", "test.accuracy")

    def shows(step: str, **found: Tensor) -> Snapshot:
        kind, row = trainer.shows(step, *names, *measured, **found)
        return kind, {name: value for name, value in row.items() if name not in ("w1.grad", "b1.grad")}

    def evaluate() -> Snapshot:
        with torch.no_grad():
            found = values(*arrays("digits-test"))
        return shows("evaluate", **{f"test.{name}": found[name] for name in ("loss", "accuracy")})

    yield shows("start")
    yield evaluate()
    for iteration in range(1, 121):
        optimizer.zero_grad()
        found = values(*arrays("digits"))
        found["loss"].backward()
        optimizer.step()
        yield shows("train", **found)
        if iteration % 40 == 0:
            yield evaluate()


TWINS: Mapping[str, Twin] = {
    "bfloat16": bfloat16,
    "early-stopping": early_stopping,
    "fine-tune-from-run": fine_tune_from_run,
    "micro-batches": micro_batches,
    "plateau": plateau,
}


@pytest.mark.parametrize("name", TWINS)
def test_what_you_read_is_what_ran(name: str) -> None:
    assert_bit_identical(FOLDER / f"{name}.yaml", TWINS[name])
