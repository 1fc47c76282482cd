"""Promise 1, what you read is what ran: the gallery's examples on tables and sequences, in PyTorch and pandas.

Where numpy or scikit-learn computes a value, it agrees within rounding; all other values agree bit for bit.
"""
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from torch import Tensor
from torch.nn import init

import runner
from runner.plan.data.selection.order import Order
from runner.plan.streams import stream_seed
from tests.twins.trainer import FOLDER, Snapshot, Start, Trainer, Twin, assert_bit_identical, assert_close

Rows = NDArray[np.int64]

_ZERO = torch.zeros((), dtype=torch.float64)


def shuffled(source: str, epoch: int, samples: int) -> Tensor:
    """The order of a source in one pass."""
    return torch.randperm(samples, generator=torch.Generator().manual_seed(stream_seed(0, "shuffle", source, epoch)))


def by_class(labels: pandas.Series[Any]) -> list[Rows]:
    """The rows of each class, in the random order that shares and folds cut."""
    order = Order(0, len(labels)).rows(np.arange(len(labels)))
    return [order[labels.to_numpy()[order] == name] for name in sorted(labels.unique())]


def folds(labels: pandas.Series[Any], of: int = 5) -> list[Rows]:
    """The rows of each fold: those of all classes one after another, dealt in turn."""
    dealt = np.concatenate(by_class(labels))
    return [np.sort(dealt[number::of]) for number in range(of)]


def tabular(start: Start) -> Iterator[Snapshot]:
    table = pandas.read_csv(FOLDER / "data" / "apples.csv")
    held_out = folds(table["variety"])[0]
    train, valid = table.drop(held_out), table.loc[held_out]
    fills = {"firmness": train["firmness"].median(), "sugar": train["sugar"].mean()}
    varieties = sorted(train["variety"].unique())

    def tensors(rows: pandas.DataFrame) -> tuple[Tensor, Tensor]:
        x = pandas.get_dummies(rows.drop(columns="variety").fillna(fills), columns=["orchard"]).to_numpy(float)
        return torch.from_numpy(x).float(), torch.tensor([varieties.index(name) for name in rows["variety"]])

    (x, y), (valid_x, valid_y) = tensors(train), tensors(valid)
    mean, std = x.double().mean(0).float(), x.double().std(0).float()
    torch.manual_seed(stream_seed(0, "init", "w1"))
    w1 = init.kaiming_normal_(torch.empty(7, 32))
    trainer = Trainer(w1=w1, b1=torch.zeros(32), w2=torch.zeros(32, 3), b2=torch.zeros(3))
    optimizer = torch.optim.Adam(trainer.held(), lr=0.01)
    columns = ("scores", "loss", "accuracy", "valid.loss", "valid.accuracy")

    def values(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        scores = F.relu((x - mean) / std @ trainer["w1"] + trainer["b1"]) @ trainer["w2"] + trainer["b2"]
        right = (scores.argmax(1) == y).double().mean()
        return {"scores": scores, "loss": F.cross_entropy(scores, y), "accuracy": right}

    def evaluate() -> Snapshot:
        with torch.no_grad():
            found = values(valid_x, valid_y)
        return trainer.shows("evaluate", *columns, **{f"valid.{name}": found[name] for name in ("loss", "accuracy")})

    yield trainer.shows("start", *columns)
    yield evaluate()
    best, worse = math.inf, 0
    for epoch in range(1, 41):
        for rows in shuffled("train", epoch, len(x)).split(32):
            optimizer.zero_grad()
            found = values(x[rows], y[rows])
            found["loss"].backward()
            optimizer.step()
            yield trainer.shows("train", *columns, **found)
        measured = evaluate()
        yield measured
        loss = measured[1]["valid.loss"]
        assert loss is not None
        best, worse = (loss.item(), 0) if loss < best else (best, worse + 1)
        if worse == 5:
            break


def _split() -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """The machines that are trained on and those that are not, each with its labels; both standardised."""
    table = pandas.read_csv(FOLDER / "data" / "machines.csv")
    train = np.sort(np.concatenate([rows[: round(0.7 * len(rows))] for rows in by_class(table["failed"])]))
    x, y = table.drop(columns="failed").to_numpy(float), table["failed"].to_numpy()
    test = np.setdiff1d(np.arange(len(x)), train)
    x = (x - x[train].mean(0)) / x[train].std(0, ddof=1)
    return x[train], y[train], x[test], y[test]


def imbalanced(start: Start) -> Iterator[Snapshot]:
    x, y, test_x, test_y = map(torch.from_numpy, _split())
    weights = len(y) / (2 * torch.bincount(y).double())
    trainer = Trainer(w=torch.zeros(4, dtype=torch.float64), b=torch.zeros((), dtype=torch.float64))
    optimizer = torch.optim.LBFGS(
        trainer.held(), max_iter=60, line_search_fn="strong_wolfe", tolerance_change=0, tolerance_grad=1e-9
    )
    names = ("loss", "f1", "auc", "accuracy", "missed")
    columns = ("score", "scores", *names, *(f"test.{name}" for name in names))

    def values(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        score = x @ trainer["w"] + trainer["b"]
        scores = torch.stack([torch.zeros_like(score), score], 1)
        measured = {
            "f1": f1_score(y, score.detach() > 0),
            "auc": roc_auc_score(y, score.detach()),
            "accuracy": accuracy_score(y, score.detach() > 0),
            "missed": float(((score <= 0) & (y == 1)).sum()),
        }
        return {
            "score": score,
            "scores": scores,
            "loss": F.cross_entropy(scores, y, weight=weights),
            **{name: torch.tensor(value, dtype=torch.float64) for name, value in measured.items()},
        }

    def shows(kind: str, **found: Tensor) -> Snapshot:
        return trainer.shows(kind, *columns, **found)

    yield shows("start")
    kind, row = trainer.minimised(optimizer, lambda: values(x, y), "loss")
    yield kind, dict.fromkeys(columns) | row
    with torch.no_grad():
        found = values(test_x, test_y)
    yield shows("evaluate", **{f"test.{name}": found[name] for name in names})


def lstm(start: Start) -> Iterator[Snapshot]:
    with np.load(FOLDER / "data" / "tanks.npz") as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    trainer = Trainer(**start)
    module = torch.nn.LSTM(1, 12, batch_first=True)
    for name in ("w_ih", "w_hh", "b_ih", "b_hh"):
        setattr(module, f"{name.replace('w_', 'weight_').replace('b_', 'bias_')}_l0", trainer.weights[name])
    optimizer = torch.optim.Adam(trainer.held(), lr=0.02)
    columns = ("start", "output", "mask", "errors", "loss", "test.loss", "total_norm")

    def values(prefix: str, rows: Tensor) -> dict[str, Tensor]:
        inflow, level, hours = (arrays[f"{prefix}{name}"][rows] for name in ("inflow", "level", "hours"))
        empty = torch.zeros(1, len(rows), 12)
        output, _ = module(inflow[..., None], (empty, empty))
        mask = torch.arange(16) < hours[:, None]
        errors = (output @ trainer["v"] + trainer["c"] - level) ** 2 * mask
        return {"start": empty, "output": output, "mask": mask, "errors": errors}

    def evaluate() -> Snapshot:
        module.eval()
        with torch.no_grad():
            parts = [values("test_", rows) for rows in torch.arange(64).split(24)]
        errors = sum((part["errors"].sum().double() for part in parts), _ZERO).float()
        return trainer.shows("evaluate", *columns, **{"test.loss": errors / arrays["test_hours"].sum()})

    yield trainer.shows("start", *columns)
    yield evaluate()
    for epoch in range(1, 31):
        for batch in shuffled("train", epoch, 192).split(32):
            optimizer.zero_grad()
            parts = [values("", rows) for rows in batch.split(16)]
            hours = sum(part["mask"].sum() for part in parts)
            for part in parts:
                (part["errors"].sum() / hours).backward()
            norm = torch.nn.utils.clip_grad_norm_(trainer.held(), 1)
            optimizer.step()
            found = {name: torch.cat([part[name] for part in parts]) for name in ("output", "mask", "errors")}
            found["start"] = torch.cat([part["start"] for part in parts], 1)
            loss = sum(part["errors"].sum() / hours for part in parts)
            yield trainer.shows("train", *columns, **found, loss=torch.as_tensor(loss), total_norm=norm)
    yield evaluate()


def _digits(name: str) -> tuple[Tensor, Tensor]:
    with np.load(FOLDER / "data" / f"{name}.npz") as file:
        return torch.from_numpy(file["images"]).float().flatten(1) / 16, torch.from_numpy(file["labels"]).long()


def batch_norm(start: Start) -> Iterator[Snapshot]:
    (x, y), (test_x, test_y) = _digits("digits"), _digits("digits-test")
    trainer = Trainer(**start)
    kept = ("running_mean", "running_var")
    for name in kept:
        trainer[name].requires_grad_(False)
    optimizer = torch.optim.Adam([weight for weight in trainer.held() if weight.requires_grad], lr=0.01)
    columns = ("h", "scores", "loss", "accuracy", "test.loss", "test.accuracy")

    def values(x: Tensor, y: Tensor, training: bool) -> dict[str, Tensor]:
        h = x @ trainer["w1"]
        mean, var = (h.mean(0), h.var(0, correction=0)) if training else (trainer[name] for name in kept)
        normalised = trainer["gain"] * (h - mean) / torch.sqrt(var + 1e-5) + trainer["shift"]
        scores = F.relu(normalised) @ trainer["w2"] + trainer["b2"]
        right = (scores.argmax(1) == y).double().mean()
        return {"h": h, "scores": scores, "loss": F.cross_entropy(scores, y), "accuracy": right}

    def shows(kind: str, **found: Tensor) -> Snapshot:
        kind, row = trainer.shows(kind, *columns, **found)
        return kind, {
            name: value for name, value in row.items() if name not in ("running_mean.grad", "running_var.grad")
        }

    def evaluate() -> Snapshot:
        with torch.no_grad():
            parts = [values(*part, training=False) for part in zip(test_x.split(100), test_y.split(100), strict=True)]
        loss, accuracy = (
            sum((part[name].double() * 100 for part in parts), _ZERO) / 500 for name in ("loss", "accuracy")
        )
        return shows("evaluate", **{"test.loss": loss.float(), "test.accuracy": accuracy})

    yield shows("start")
    yield evaluate()
    for epoch in range(1, 6):
        for rows in shuffled("train", epoch, len(x)).split(96):
            optimizer.zero_grad()
            found = values(x[rows], y[rows], training=True)
            found["loss"].backward()
            optimizer.step()
            yield shows("train", **found)
            h = found["h"].detach()
            trainer["running_mean"].copy_((1 - 0.1) * trainer["running_mean"] + 0.1 * h.mean(0))
            trainer["running_var"].copy_((1 - 0.1) * trainer["running_var"] + 0.1 * h.var(0))
            yield shows("assign")
    yield evaluate()


TWINS: Mapping[str, Twin] = {
    "batch-norm": batch_norm,
    "imbalanced": imbalanced,
    "lstm": lstm,
    "tabular": tabular,
}
WITHIN = {"imbalanced": 1e-7}
"""Relative tolerances of the twins that are not in the same bits."""


@pytest.mark.parametrize("name", [name for name in TWINS if name not in WITHIN])
def test_what_you_read_is_what_ran(name: str) -> None:
    assert_bit_identical(FOLDER / f"{name}.yaml", TWINS[name])


@pytest.mark.parametrize("name", WITHIN)
def test_what_you_read_is_what_ran_within_rounding(name: str) -> None:
    assert_close(FOLDER / f"{name}.yaml", TWINS[name], WITHIN[name])


def test_balanced_weights_give_the_model_of_scikit_learn() -> None:
    x, y, test_x, test_y = _split()
    model = LogisticRegression(C=np.inf, class_weight="balanced", tol=1e-12, max_iter=1000).fit(x, y)
    row = list(runner.execute(runner.compile(runner.load(FOLDER / "imbalanced.yaml"))))[-1]
    found = np.append(row["w"].numpy(), row["b"].item())
    np.testing.assert_allclose(found, np.append(model.coef_, model.intercept_), rtol=1e-6)
    scores = model.decision_function(test_x)
    assert row["test.f1"].item() == pytest.approx(f1_score(test_y, scores > 0), rel=1e-12)
    assert row["test.auc"].item() == pytest.approx(roc_auc_score(test_y, scores), rel=1e-12)


def test_batch_norm_by_hand_is_that_of_torch() -> None:
    rows = list(runner.execute(runner.compile(runner.load(FOLDER / "batch-norm.yaml", overrides=["~log"]))))
    module = torch.nn.BatchNorm1d(32)
    for train, assign in [(train, assign) for train, assign in pairwise(rows) if train.step == "train"]:
        module.train()(train["h"])
        torch.testing.assert_close(assign["running_mean"], module.running_mean)
        torch.testing.assert_close(assign["running_var"], module.running_var)
    last = rows[-1]
    with torch.no_grad():
        module.weight.copy_(last["gain"])
        module.bias.copy_(last["shift"])
        x, y = _digits("digits-test")
        scores = F.relu(module.eval()(x @ last["w1"])) @ last["w2"] + last["b2"]
    torch.testing.assert_close(last["test.loss"], F.cross_entropy(scores, y))
    assert last["test.accuracy"].item() == pytest.approx((scores.argmax(1) == y).double().mean().item())
