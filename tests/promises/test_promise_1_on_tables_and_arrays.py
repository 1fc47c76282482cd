"""Promise 1, what you read is what ran: data sets of scikit-learn in three formats, against PyTorch and pandas."""
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from sklearn.datasets import load_digits, load_iris, load_wine
from sklearn.metrics import f1_score
from torch import Tensor
from torch.nn import init

import runner
from runner.plan.data.selection.order import Order
from runner.plan.streams import stream_seed

CONFIG = """\
constants:
  kinds: {kinds}
  features: train.x.shape[1]
  mean: {{init: {{expression: train.x.mean(0)}}}}
  std: {{init: {{expression: "where(train.x.std(0) > 0, train.x.std(0), 1.0)"}}}}

data:
  train:
    file: {file}
    columns: {columns}
    select: {{fold: 0, of: 5, stratify: {target}}}
    batch_size: {batch_size}
    shuffle: true{classes}
  valid:
    file: {file}
    columns: {columns}
    select: {{fold: 0, of: 5, held_out: true, stratify: {target}}}{classes}

parameters:
  w1: {{shape: [features, 24], init: xavier_normal}}
  b1: {{shape: [24], init: zeros}}
  w2: {{shape: [24, kinds], init: xavier_normal}}
  b2: {{shape: [kinds], init: zeros}}

expression: |
  scores = tanh((x - mean) / std @ w1 + b1) @ w2 + b2
  label = scores.argmax(1)
  loss = cross_entropy(scores, y)

metrics:
  accuracy: accuracy(label, y)
  f1: f1(label, y, average="macro", num_classes=kinds)

optimizer: {{adam: {{lr: 0.02}}}}
steps: {{epochs: 12, evaluate: valid, patience: 2}}
log: {{tensors: none}}
"""
LOADERS: dict[str, tuple[Callable[..., Any], int]] = {
    "iris": (load_iris, 16),
    "wine": (load_wine, 16),
    "digits": (load_digits, 128),
}
METRICS = ("loss", "accuracy", "f1")


@dataclass(frozen=True, slots=True)
class Found:
    losses: list[float]  # of each training step
    evaluations: list[tuple[float, ...]]  # after each pass: the METRICS
    weights: dict[str, Tensor]
    best: dict[str, Tensor]
    labels: list[int]  # of all samples, with the best weights


def names_of(bunch: Any) -> list[str]:
    """The text of each class: `setosa`, `class_0`, `digit 0`. Sorted, they have the order of the numbers."""
    return [name if isinstance(name, str) else f"digit {name}" for name in bunch.target_names.tolist()]


def written(folder: Path, name: str, kind: str) -> Path:
    """A data set as a file, and the config that reads it."""
    load, batch_size = LOADERS[name]
    bunch = load()
    file = folder / f"{name}.{kind}"
    fields = {"file": file.name, "batch_size": batch_size, "target": "species", "kinds": "classes(train.y)"}
    fields |= {"columns": '{x: ["*"], y: species}', "classes": "\n    classes: {y: sorted}"}
    if kind == "npz":
        numpy.savez(file, x=bunch.data, y=bunch.target)
        fields |= {"columns": "{x: x, y: y}", "classes": "", "target": "y", "kinds": len(bunch.target_names)}
    else:
        table = pandas.DataFrame(bunch.data, columns=[f"f{place}" for place in range(bunch.data.shape[1])])
        table["species"] = [names_of(bunch)[kind] for kind in bunch.target]
        table.to_csv(file, index=False) if kind == "csv" else table.to_parquet(file, index=False)
    config = folder / f"{name}.yaml"
    config.write_text(CONFIG.format(**fields), encoding="utf-8")
    return config


def by_steprun(config: Path) -> Found:
    run = runner.run(config, runs_dir=config.parent / "runs")
    rows = list(run.rows())
    evaluated = [row for row in rows if row.step == "evaluate"]
    data = LOADERS[config.stem][0]().data
    label = runner.load_model(run.path, at="best").value("label", x=torch.from_numpy(data).float())
    return Found(
        [row["loss"].item() for row in rows if row.step == "train"],
        [tuple(row[f"valid.{name}"].item() for name in METRICS) for row in evaluated],
        dict(run.weights),
        load_file(run.path / "weights-best.safetensors"),
        label.tolist(),
    )


def by_hand(file: Path, name: str) -> Found:
    """The same in PyTorch and pandas."""
    if file.suffix == ".npz":
        with numpy.load(file) as arrays:
            data, target = arrays["x"], arrays["y"]
    else:
        table = pandas.read_csv(file) if file.suffix == ".csv" else pandas.read_parquet(file)
        data = table.drop(columns="species").to_numpy()
        target = pandas.Categorical(table["species"]).codes
    x, y = torch.tensor(data).float(), torch.tensor(target, dtype=torch.int64)

    order = Order(0, len(x)).rows(numpy.arange(len(x)))
    dealt = order[numpy.argsort(y.numpy()[order], kind="stable")]
    held_out = torch.from_numpy(numpy.isin(numpy.arange(len(x)), dealt[::5]))
    (train_x, train_y), (valid_x, valid_y) = (x[~held_out], y[~held_out]), (x[held_out], y[held_out])
    mean, std = train_x.double().mean(0).float(), train_x.double().std(0).float()
    std = torch.where(std > 0, std, 1.0)

    kinds = int(y.max()) + 1
    weights = {"w1": torch.empty(x.shape[1], 24), "b1": torch.zeros(24)}
    weights |= {"w2": torch.empty(24, kinds), "b2": torch.zeros(kinds)}
    for each in ("w1", "w2"):
        torch.manual_seed(stream_seed(0, "init", each))
        init.xavier_normal_(weights[each])
    for weight in weights.values():
        weight.requires_grad_()
    optimizer = torch.optim.Adam(weights.values(), lr=0.02)

    def scores_of(x: Tensor) -> Tensor:
        return torch.tanh((x - mean) / std @ weights["w1"] + weights["b1"]) @ weights["w2"] + weights["b2"]

    found = Found([], [], {}, {}, [])
    best, worse = float("inf"), 0
    for epoch in range(1, 13):
        generator = torch.Generator().manual_seed(stream_seed(0, "shuffle", "train", epoch))
        for rows in torch.randperm(len(train_x), generator=generator).split(LOADERS[name][1]):
            optimizer.zero_grad()
            loss = F.cross_entropy(scores_of(train_x[rows]), train_y[rows])
            loss.backward()
            optimizer.step()
            found.losses.append(loss.item())
        with torch.no_grad():
            scores = scores_of(valid_x)
        label, valid_loss = scores.argmax(1), F.cross_entropy(scores, valid_y).item()
        right = (label == valid_y).double().mean().item()
        found.evaluations.append((valid_loss, right, f1_score(valid_y, label, average="macro")))
        best, worse = (valid_loss, 0) if valid_loss < best else (best, worse + 1)
        if not worse:
            found.best.update({each: weight.detach().clone() for each, weight in weights.items()})
        if worse == 2:
            break
    found.weights.update({each: weight.detach().clone() for each, weight in weights.items()})
    with torch.no_grad():
        weights |= found.best
        found.labels.extend(scores_of(x).argmax(1).tolist())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "parquet", "npz"])
@pytest.mark.parametrize("name", LOADERS)
def test_a_config_of_forty_lines_does_what_pytorch_and_pandas_do(tmp_path: Path, name: str, kind: str) -> None:
    config = written(tmp_path, name, kind)
    assert len(config.read_text(encoding="utf-8").splitlines()) <= 40
    found, expected = by_steprun(config), by_hand(tmp_path / f"{name}.{kind}", name)
    assert found.losses == expected.losses
    assert len(found.evaluations) == len(expected.evaluations)
    for one, other in zip(found.evaluations, expected.evaluations, strict=True):
        assert one[:2] == other[:2]
        assert one[2] == pytest.approx(other[2], rel=1e-12)  # scikit-learn adds in another order
    for weights, by_hand_too in ((found.weights, expected.weights), (found.best, expected.best)):
        assert sorted(weights) == sorted(by_hand_too)
        assert [each for each in weights if not weights[each].equal(by_hand_too[each])] == []
    assert found.labels == expected.labels
