"""Micro-batches of unequal lengths and weights: the gradient and the row are those of the whole batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest
import torch
from torch.nn.functional import cross_entropy, mse_loss

import runner
from runner.engine.data.orders import order
from runner.engine.steps.micro_batches import shares_of
from tests.engine.compiled.plain import without_compiler
from tests.engine.running import compiled, rows_of, same
from tests.record.stopping import stopped_after
from tests.tables import over

SAMPLES = 10


def write(folder: Path) -> None:
    draw = numpy.random.default_rng(0)
    numpy.savez(
        folder / "d.npz",
        x=draw.normal(size=(SAMPLES, 3)).astype("float32"),
        y=draw.normal(size=(SAMPLES, 3)).astype("float32"),
        t=numpy.array([0, 1, 1, 2, 0, 1, 1, 2, 2, 0]),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path)
    return tmp_path


def data(folder: Path) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(numpy.load(folder / "d.npz")[name]) for name in "xyt"}


def config(loss: str, batch_size: int = 4, accumulate: int = 3, more: str = "", metrics: str = "") -> str:
    metrics = f"metrics:\n  columns: t.sum() + y.sum()\n{metrics}"
    return (
        "parameters: {w: {init: [[0.1, 0.2, -0.3], [0.5, -0.2, 0.1], [0.3, 0.3, -0.1]]}}\n"
        "constants: {cw: [1.0, 5.0, 2.0]}\n"
        f"data: {{train: {{file: d.npz, columns: {{x: x, y: y, t: t}}, batch_size: {batch_size}}}}}\n"
        f"expression: |\n  z = x @ w\n  loss = {loss}\n"
        f"{metrics}optimizer: {{sgd: {{lr: 0.1}}}}\nsteps: [{{train: {{accumulate: {accumulate}}}}}]\n{more}"
    )


OBJECTIVES = {
    "mean": ("mse_loss(z, y)", lambda z, y, t, cw: mse_loss(z, y)),
    "mean and penalty": ("mse_loss(z, y) + (w ** 2).sum()", None),
    "sum": ("((z - y) ** 2).sum()", lambda z, y, t, cw: ((z - y) ** 2).sum()),
    "class weights": ("cross_entropy(z, t, weight=cw)", lambda z, y, t, cw: cross_entropy(z, t, weight=cw)),
    "ignoring": ("cross_entropy(z, t, ignore_index=1)", lambda z, y, t, cw: cross_entropy(z, t, ignore_index=1)),
    "classes": ("cross_entropy(z, t)", lambda z, y, t, cw: cross_entropy(z, t)),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_unequal_micro_batches_give_the_gradient_of_the_whole_batch(folder: Path, name: str) -> None:
    text, loss = OBJECTIVES[name]
    row = rows_of(config(text), folder)[1]
    columns = data(folder)
    w = torch.tensor([[0.1, 0.2, -0.3], [0.5, -0.2, 0.1], [0.3, 0.3, -0.1]], requires_grad=True)
    z, cw = columns["x"] @ w, torch.tensor([1.0, 5.0, 2.0])
    value = mse_loss(z, columns["y"]) + (w**2).sum() if loss is None else loss(z, columns["y"], columns["t"], cw)
    value.backward()
    torch.testing.assert_close(row["w.grad"], w.grad)
    torch.testing.assert_close(row["loss"], value.detach())


def test_each_objective_is_scaled_before_its_backward_bit_for_bit(folder: Path) -> None:
    row = rows_of(config("mse_loss(z, y)"), folder)[1]
    w = torch.tensor([[0.1, 0.2, -0.3], [0.5, -0.2, 0.1], [0.3, 0.3, -0.1]], requires_grad=True)
    columns = data(folder)
    for x, y, share in zip(columns["x"].split(4), columns["y"].split(4), (2, 2, 1), strict=True):
        mse_loss(x @ w, y).backward(torch.tensor(1.0) * share / 5)
    assert same(row["w.grad"], w.grad)


def test_the_row_holds_the_values_of_the_whole_batch(folder: Path) -> None:
    metrics = "  hits: (z.argmax(1) == t).sum()\n  seen: y.mean()\n  least: z.min()\n  root: sqrt(mse_loss(z, y))\n"
    plan = compiled(config("mse_loss(z, y)", metrics=metrics), folder)
    (warning,) = (found for found in plan.warnings if "cw" not in found.message)
    assert warning.message == (
        "`root` of a step that accumulates is the value of its last micro-batch: "
        "`sqrt` is not a mean, sum or extreme over samples"
    )
    assert warning.hint == "write it with means and sums over samples, or `evaluate` it"
    row = list(runner.execute(plan))[1]
    columns, w = data(folder), torch.tensor([[0.1, 0.2, -0.3], [0.5, -0.2, 0.1], [0.3, 0.3, -0.1]])
    z = columns["x"] @ w
    assert row["z"] is not None
    assert row["z"].shape == (SAMPLES, 3)
    torch.testing.assert_close(row["z"], z)
    assert row["hits"] == (z.argmax(1) == columns["t"]).sum()
    torch.testing.assert_close(row["seen"], columns["y"].mean())
    assert row["least"] == z.min()
    torch.testing.assert_close(row["root"], mse_loss(z[8:], columns["y"][8:]).sqrt())


def test_a_group_that_goes_over_the_end_of_a_pass_is_weighted_by_its_own_lengths(folder: Path) -> None:
    text = config("mse_loss(z, y)", accumulate=2).replace("steps: [", "steps: [{train: {accumulate: 2}}, ")
    row = rows_of(text.replace("lr: 0.1", "lr: 0.0"), folder)[2]
    columns, w = data(folder), torch.tensor([[0.1, 0.2, -0.3], [0.5, -0.2, 0.1], [0.3, 0.3, -0.1]])
    both = torch.tensor([8, 9, 0, 1, 2, 3])  # the last two, and the first four of the next pass
    torch.testing.assert_close(row["loss"], mse_loss(columns["x"][both] @ w, columns["y"][both]))


@pytest.mark.parametrize("loss", ["((z - y) ** 2).sum()", "cross_entropy(z, t, weight=cw)"])
def test_a_mean_beside_an_objective_of_another_weighting_is_weighted_by_samples(folder: Path, loss: str) -> None:
    row = rows_of(config(loss, metrics="  seen: y.mean()\n"), folder)[1]
    torch.testing.assert_close(row["seen"], data(folder)["y"].mean())


def test_the_largest_value_of_unequal_micro_batches_warns_as_an_objective(folder: Path) -> None:
    (warning,) = (found for found in compiled(config("z.max()"), folder).warnings if "cw" not in found.message)
    assert "`max` makes `loss` neither a mean nor a sum over samples" in warning.message


def test_an_objective_that_is_no_mean_warns_where_batches_are_unequal(folder: Path) -> None:
    (warning,) = (found for found in compiled(config("z.std()"), folder).warnings if "cw" not in found.message)
    assert warning.message == (
        "the micro-batches of a step that accumulates are weighted by their length: `std` makes `loss` "
        "neither a mean nor a sum over samples"
    )
    assert warning.path == "expression"
    even = compiled(config("z.std()", batch_size=5, accumulate=2), folder)
    assert [found for found in even.warnings if "cw" not in found.message] == []


def test_shares_are_fractions_in_lowest_terms() -> None:
    assert shares_of([4, 4, 4]) == [(1, 3)] * 3
    assert shares_of([4, 4, 2]) == [(2, 5), (2, 5), (1, 5)]
    assert shares_of([0.5, 1.5]) == [(0.5, 2.0), (1.5, 2.0)]


@pytest.mark.parametrize("engine", ["compile"])
def test_an_engine_that_weighs_by_length_refuses_an_objective_weighted_by_classes(folder: Path, engine: str) -> None:
    with pytest.raises(
        runner.ConfigError, match=r"weights micro-batches by their length, and this objective needs weights by its"
    ):
        compiled(config("cross_entropy(z, t, weight=cw)", more=f"engine: {engine}\n"), folder)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own use
@pytest.mark.parametrize("loss", ["mse_loss(z, y)", "((z - y) ** 2).sum()"])
def test_compiled_micro_batches_are_weighted_as_eager_ones(
    folder: Path, loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if loss != "mse_loss(z, y)":  # one in machine code
        without_compiler(monkeypatch)
    metrics = "  hits: (z.argmax(1) == t).sum()\n  seen: y.mean()\n"
    text = config(loss, accumulate=2, metrics=metrics).replace("steps: [", "steps: [{train: {accumulate: 2}}, ")
    eager, made = (rows_of(text + more, folder) for more in ("", "engine: compile\n"))
    for left, right in zip(eager, made, strict=True):
        for name in ("z", "loss", "hits", "seen", "w", "w.grad"):
            torch.testing.assert_close(right[name], left[name], msg=lambda found, name=name: f"{name}: {found}")


PASSES = """\
parameters: {{w: {{init: [0.1, -0.2, 0.3]}}}}
data: {{train: {{file: d.npz, columns: {{x: x, y: y}}, batch_size: {size}, drop_last: {drop}, shuffle: true}}}}
expression: loss = {loss}
metrics: {{seen: y.mean()}}
optimizer: {{adam: {{lr: 0.05}}}}
steps: [{{for_each: {{data: train, epochs: 3, steps: [{{train: {{accumulate: {micro}}}}}, checkpoint]}}}}]
"""
SHORT = {
    "a shorter batch alone": (4, 2, False),
    "a shorter batch in a full group": (4, 3, False),
    "fewer batches than a group has": (4, 20, False),
    "without the shorter batch": (4, 3, True),
    "a group of one": (3, 2, True),
    "batches of one": (1, 4, False),
    "one batch": (SAMPLES, 2, False),
}


def groups_of(size: int, micro: int, drop: bool) -> Iterator[list[torch.Tensor]]:
    """The samples of the micro-batches of each step of three passes."""
    for epoch in (1, 2, 3):
        batches = [batch for batch in order(0, "train", epoch, SAMPLES).split(size) if len(batch) == size or not drop]
        yield from (batches[start : start + micro] for start in range(0, len(batches), micro))


@over("case", SHORT)
@over("mean", [True, False])
def test_a_short_group_at_the_end_of_a_pass_is_taken(case: str, mean: bool, tmp_path: Path) -> None:
    size, micro, drop = SHORT[case]
    write(tmp_path)
    loss = f"(x @ w - y[:, 0]).square().{'mean' if mean else 'sum'}()"
    rows = rows_of(PASSES.format(size=size, micro=micro, drop=str(drop).lower(), loss=loss), tmp_path)[1:]
    columns, w = data(tmp_path), torch.tensor([0.1, -0.2, 0.3], requires_grad=True)
    optimizer = torch.optim.Adam([w], lr=0.05)
    for row, group in zip(rows, groups_of(size, micro, drop), strict=True):
        optimizer.zero_grad()
        taken = sum(map(len, group))
        for batch in group:
            errors = (columns["x"][batch] @ w - columns["y"][batch, 0]).square()
            common = math.gcd(taken, *map(len, group))
            value = errors.mean() * (len(batch) // common) / (taken // common) if mean else errors.sum()
            value.backward()
        assert same(row["w.grad"], w.grad)
        optimizer.step()
        assert same(row["w"], w.detach())
        torch.testing.assert_close(row["seen"], columns["y"][torch.cat(group)].mean())


@pytest.mark.parametrize("rows", [2, 3])
def test_a_run_resumes_beside_a_short_group_to_the_same_bits(rows: int, folder: Path) -> None:
    path = folder / "run.yaml"
    path.write_text(PASSES.format(size=4, micro=2, drop="false", loss="(x @ w - y[:, 0]).square().mean()"))
    resumed = runner.resume(stopped_after(rows, path, folder), allowed_folders=[folder])
    assert resumed.to_arrow().equals(runner.run(path, runs_dir=folder / "whole").to_arrow())
