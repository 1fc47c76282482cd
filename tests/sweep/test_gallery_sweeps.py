"""The tables of docs/sweeps.md: the sweeps of the gallery, against numpy and loops written by hand."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy
import pandas
import pytest
import torch
import torch.nn.functional as F

from runner.plan.data.selection.order import Order
from runner.plan.streams import stream_seed
from tests.cli.commands import steprun
from tests.sweep.gallery import CONFIGS, PAGE
from tests.sweep.inline import inline

__all__ = ["inline"]

Table = list[list[str]]
Floats = numpy.ndarray[tuple[int, ...], numpy.dtype[numpy.float64]]


def cells(text: str) -> Table:
    """The lines of a printed table, without its heading."""
    return [re.split(r" {2,}", line.strip()) for line in text.splitlines()[1:]]


def shown(name: str, folder: Path) -> tuple[Table, Table]:
    """The table on the page, and the one that its commands print."""
    block = re.search(rf"^```text\n\$ (.*{name}\.yaml)\n\$ (.*)\n((?:.+\n)+)```$", PAGE.read_text(), re.MULTILINE)
    assert block
    sweep, results = (line.split()[1:] for line in block.groups()[:2])
    done = steprun(*sweep, "--sweeps-dir", folder / "sweeps", "--jobs", "1", cwd=CONFIGS.parent)
    assert (done.code, done.err) == (0, "")
    printed = steprun(*results, cwd=folder)
    assert printed.code == 0, printed.err
    return cells(block[3]), cells(printed.out)


def numbers(table: Table, start: int, end: int) -> list[list[float]]:
    return [[float(cell) for cell in row[start:end]] for row in table]


@pytest.mark.slow
def test_the_penalties_are_those_of_ridge_regression(inline: None, tmp_path: Path) -> None:
    page, printed = shown("sweep-folds", tmp_path)
    table = pandas.read_csv(CONFIGS / "data" / "curve.csv")
    x, y = table["x"].to_numpy()[:, None] ** numpy.arange(8), table["y"].to_numpy()
    order, bounds = Order(0, 24).rows(numpy.arange(24)), [round(24 * fold / 5) for fold in range(6)]
    errors: dict[float, list[float]] = {}
    for penalty, (first, last) in itertools.product((1e-4, 1e-3, 1e-2, 1e-1, 1.0), itertools.pairwise(bounds)):
        out = order[first:last]
        kept = numpy.setdiff1d(numpy.arange(24), out)
        hessian = x[kept].T @ x[kept] / len(kept) + penalty * numpy.eye(8)
        w = numpy.linalg.solve(hessian, x[kept].T @ y[kept] / len(kept))
        errors.setdefault(penalty, []).append(float(numpy.mean((x[out] @ w - y[out]) ** 2)))
    expected = sorted((numpy.mean(each), penalty, numpy.std(each, ddof=1)) for penalty, each in errors.items())
    for table_ in (page, printed):
        found = numbers(table_, 0, 3)
        assert [row[0] for row in found] == [penalty for _, penalty, _ in expected]
        numpy.testing.assert_allclose([row[1] for row in found], [mean for mean, _, _ in expected], rtol=2e-5)
        numpy.testing.assert_allclose([row[2] for row in found], [deviation for *_, deviation in expected], rtol=2e-5)


def loss_after(steps: int, rate: float, momentum: float) -> float:
    """The loss of the heavy ball on curvatures 1 and 100, from the eigenvalues of its steps."""
    total = 0.0
    for curvature in (1.0, 100.0):
        values, vectors = numpy.linalg.eig(numpy.array([[1 + momentum - rate * curvature, -momentum], [1.0, 0.0]]))
        w = (vectors * values**steps) @ numpy.linalg.solve(vectors, numpy.ones(2))
        total += curvature * float(w[0].real) ** 2 / 2
    return total


@pytest.mark.slow
def test_the_survivors_are_those_of_the_closed_form(inline: None, tmp_path: Path) -> None:
    page, printed = shown("sweep-random", tmp_path)
    (directory,) = (tmp_path / "sweeps" / "sweep-random").iterdir()
    table = pandas.read_parquet(directory / "points.parquet")
    assert (len(table), table["rate"].between(0.01, 0.03).all(), table["momentum"].between(0.5, 0.95).all()) == (
        *(27, True, True),
    )
    alive = table
    for iteration, kept in ((15, 9), (30, 3)):  # the row of an iteration has the loss before its step
        losses = [loss_after(iteration - 1, row.rate, row.momentum) for row in alive[["rate", "momentum"]].itertuples()]
        alive = alive.iloc[numpy.argsort(losses, kind="stable")[:kept]]
    assert sorted(table.loc[table["status"] == "finished", "point"]) == sorted(alive["point"])
    for row in table[["rate", "momentum", "rows", "objective"]].itertuples():
        steps = {16: 14, 31: 29, 62: 60}[row.rows]
        assert row.objective == pytest.approx(loss_after(steps, row.rate, row.momentum), rel=1e-6, abs=1e-18)
    for one, other in zip(page, printed, strict=True):
        assert (one[0], one[3], one[6]) == (other[0], other[3], other[6])
    for columns in ((1, 3), (4, 6)):
        numpy.testing.assert_allclose(numbers(page, *columns), numbers(printed, *columns), rtol=2e-5)


OPTIMIZERS = {
    "{sgd: {lr: rate, momentum: 0.9}}": lambda held, rate: torch.optim.SGD(held, lr=rate, momentum=0.9),
    "{adam: {lr: rate}}": lambda held, rate: torch.optim.Adam(held, lr=rate),
    "{adamw: {lr: rate, weight_decay: 0.1}}": lambda held, rate: torch.optim.AdamW(held, lr=rate, weight_decay=0.1),
}


def images(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    with numpy.load(CONFIGS / "data" / f"{name}.npz") as file:
        return torch.from_numpy(file["images"]).float().flatten(1) / 16, torch.from_numpy(file["labels"]).long()


def final_loss(optimizer: str, rate: float, seed: int) -> float:
    w, b = torch.zeros(64, 10, requires_grad=True), torch.zeros(10, requires_grad=True)
    stepper = OPTIMIZERS[optimizer]([w, b], rate)  # type: ignore[no-untyped-call]
    x, y = images("digits")
    for epoch in range(1, 4):
        generator = torch.Generator().manual_seed(stream_seed(seed, "shuffle", "train", epoch))
        for rows in torch.randperm(len(x), generator=generator).split(100):
            stepper.zero_grad()
            F.cross_entropy(x[rows] @ w + b, y[rows]).backward()
            stepper.step()
    x, y = images("digits-test")
    return F.cross_entropy(x @ w + b, y).item()


@pytest.mark.slow
def test_the_rates_are_those_of_loops_by_hand(inline: None, tmp_path: Path) -> None:
    page, printed = shown("sweep-learning-rate", tmp_path)
    (directory,) = (tmp_path / "sweeps" / "sweep-learning-rate").iterdir()
    table = pandas.read_parquet(directory / "points.parquet")
    for row in table.itertuples():
        assert row.objective == pytest.approx(final_loss(row.optimizer, row.rate, row.seed), rel=1e-5)
    groups = table.groupby(["optimizer", "rate"])["objective"].agg(["mean", "std"]).sort_values("mean").reset_index()
    for table_ in (page, printed):
        assert [row[0] for row in table_] == list(groups["optimizer"])
        numpy.testing.assert_allclose(numbers(table_, 1, 4), groups[["rate", "mean", "std"]].to_numpy(), rtol=2e-3)
