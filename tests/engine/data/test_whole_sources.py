"""`evaluate` gives the same whatever the batch size, or warns at the operation that keeps it from that."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import torch

import runner
import runner.errors
from tests.engine.running import compiled, rows_of

SAMPLES = 7


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    draw = numpy.random.default_rng(0)
    numpy.savez(
        tmp_path / "d.npz",
        x=draw.normal(size=(SAMPLES, 3)),
        y=draw.normal(size=(SAMPLES, 2)),
        t=numpy.array([0, 1, 1, 0, -1, 1, 1]) % 3,
        some=numpy.array([0, -100, -100, -100, -100, 1, 0]),
        image=draw.normal(size=(SAMPLES, 2, 4, 4)),
        mask=numpy.array([1, 0, 1, 1, 0, 0, 1], bool),
    )
    return tmp_path


def config(metrics: dict[str, str], batch_size: int, head: str = "") -> str:
    listed = "".join(f"  {name}: {text!r}\n" for name, text in metrics.items())
    columns = "{x: x, y: y, t: t, some: some, image: image, mask: mask}"
    return (
        "parameters: {w: {shape: [3, 3], init: {normal: {}}}, k: {shape: [3, 2, 3, 3], init: {normal: {}}}}\n"
        "constants: {cw: [1.0, 5.0, 2.0]}\n"
        f"data: {{whole: {{file: d.npz, columns: {columns}}},\n"
        f"  parts: {{file: d.npz, columns: {columns}, batch_size: {batch_size}}}}}\n{head}"
        "expression: |\n  z = x @ w\n  seen = t.sum() + some.sum() + mask.sum() + y.sum() + image.sum()\n"
        "  loss = cross_entropy(z, t) + 0 * seen.detach() + 0 * k.sum()\n"
        f"metrics:\n{listed}steps: [{{evaluate: whole}}, {{evaluate: parts}}]\n"
    )


def batching(plan: runner.Plan) -> list[runner.errors.Problem]:
    return [problem for problem in plan.warnings if "is not used" not in problem.message]


EXACT = {
    "mean": "((z[:, :2] - y) ** 2).mean()",
    "mse": "mse_loss(z[:, :2], y)",
    "mean_and_penalty": "mse_loss(z[:, :2], y) + 0.1 * (w ** 2).sum()",
    "by_column": "(z[:, :2] - y).abs().mean(0)",
    "summed": 'cross_entropy(z, t, reduction="sum")',
    "count": "((z.argmax(1) == t) & mask).sum()",
    "class_weighted": "cross_entropy(z, t, weight=cw)",
    "class_weighted_and_penalty": "2 * cross_entropy(z, t, weight=cw) + (w ** 2).sum() / 3",
    "two_weightings": "cross_entropy(z, t, weight=cw) + cross_entropy(z, t) + mse_loss(z[:, :2], y)",
    "smoothed": "cross_entropy(z, t, weight=cw, label_smoothing=0.1)",
    "ignoring": "cross_entropy(z, some)",
    "ignoring_one": "nll_loss(log_softmax(z, 1), t, ignore_index=1)",
    "root": "sqrt(((z[:, :2] - y) ** 2).mean())",
    "precision": "((z.argmax(1) == t) & mask).sum() / (mask.sum() + 1)",
    "masked_mean": "(mask * (z[:, 0] - y[:, 0]) ** 2).sum() / mask.sum()",
    "product_of_means": "z.mean() * z.mean()",
    "largest": "z.max()",
    "smallest_column": "z.amin(0)",
    "range": "z.max() - z.min()",
    "some_of_them": "(z > 1).any()",
    "divided_by_length": "((z[:, :2] - y) ** 2).sum() / x.shape[0]",
    "divided_by_elements": "((z[:, :2] - y) ** 2).sum() / y.numel()",
    "network": "relu(F.conv2d(image, k, padding=1)).flatten(1).mean(1).sum()",
    "attention": "(softmax(z.unsqueeze(2) @ z.unsqueeze(1), 2) @ z.unsqueeze(2)).mean()",
    "einsum": "einsum('ni,ij,nj->n', x, w, z).mean()",
    "gram": "(z.T @ z).trace()",
    "gradient": "grad(mse_loss(z[:, :2], y), w).pow(2).sum()",
    "transposed": "z.T.mean(1).sum()",
    "normalised": "layer_norm(z, [3]).abs().mean()",
    "joined": "torch.cat([z, y], 1).abs().mean()",
    "reshaped": "z.reshape(x.shape[0], 3, 1).mean()",
    "kl": 'kl_div(log_softmax(z, 1), softmax(x, 1), reduction="batchmean")',
}


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 6])
def test_what_an_expression_shows_how_to_pool_is_exact_at_any_batch_size(folder: Path, batch_size: int) -> None:
    plan = compiled(config(EXACT, batch_size), folder)
    assert [problem.message for problem in batching(plan)] == []
    _, whole, parts = runner.execute(plan)
    for name in ("loss", *EXACT):
        expected, found = whole[f"whole.{name}"], parts[f"parts.{name}"]
        torch.testing.assert_close(found, expected, msg=lambda text, name=name: f"{name}: {text}")


MIXING = {
    "std": ("z.std()", "`std` is not a mean, sum or extreme over them"),
    "centred": ("((z - z.mean(0)) ** 2).mean()", "`-` is not a mean, sum or extreme over them"),
    "median": ("z.median()", "`median` is not a mean, sum or extreme over them"),
    "log_of_sum": ("z.logsumexp(0).sum()", "`logsumexp` is not a mean, sum or extreme over them"),
    "pairs": ("(z @ z.T).mean()", "`@` is not a mean, sum or extreme over them"),
    "outer": ("(z[:, 0] - y[:, :1]).mean()", "`-` is not a mean, sum or extreme over them"),
    "first": ("z[0].sum()", "`[…]` is not a mean, sum or extreme over them"),
    "batch_norm": ("batch_norm(z, None, None, training=True).abs().mean()", "`batch_norm` is not a mean"),
    "per_length": ("z.mean() * x.shape[0]", "`*` is not a mean, sum or extreme over them"),
}


@pytest.mark.parametrize("name", MIXING)
def test_what_mixes_samples_warns_at_its_place(folder: Path, name: str) -> None:
    text, said = MIXING[name]
    (problem,) = batching(compiled(config({name: text}, 5), folder))
    assert problem.message.startswith(f"`{name}` of `parts` depends on how its samples are batched: ")
    assert said in problem.message
    assert problem.hint == f'write `metrics: {{{name}: {{whole: "{text}"}}}}`'
    assert problem.path == f"metrics.{name}"
    assert problem.excerpt is not None
    marked = problem.excerpt[problem.column - 1 : problem.column - 1 + problem.width] if problem.column else ""
    assert marked in text


def test_a_draw_warns_once_however_it_is_batched(folder: Path) -> None:
    for size in (5, SAMPLES):
        (problem,) = batching(compiled(config({"noise": "(z + randn_like(z)).mean()"}, size), folder))
        assert problem.message == "`randn_like` draws random numbers in `evaluate`"
        assert problem.path == "metrics.noise"


def test_a_source_that_is_one_batch_warns_of_nothing(folder: Path) -> None:
    metrics = {name: text for name, (text, _) in MIXING.items()}
    assert batching(compiled(config(metrics, SAMPLES), folder)) == []


def test_a_last_batch_that_an_expression_does_not_take_is_told(folder: Path) -> None:
    with pytest.raises(runner.ConfigError, match=r"with a batch of 1 of `parts` in `evaluate`"):
        compiled(config({"pairs": "x[1:2].reshape(1, 3).sum()"}, 2), folder)


def test_a_value_of_each_sample_is_no_mean(folder: Path) -> None:
    numpy.savez(folder / "d.npz", x=numpy.ones((6, 3)))
    text = (
        "parameters: {w: {shape: [3], init: zeros}}\ndata: {d: {file: d.npz, columns: {x: x}, batch_size: 2}}\n"
        "expression: loss = (x @ w).mean()\nmetrics: {each: x @ w}\nsteps: [{evaluate: d}]\n"
    )
    (problem,) = compiled(text, folder).warnings
    assert "`each` of `d` depends on how its samples are batched" in problem.message
    assert problem.hint == 'say how: `metrics: {each: {mean: "x @ w"}}`'


def test_batches_that_are_ignored_whole_count_for_nothing(folder: Path) -> None:
    _, whole, parts = rows_of(config({"ignoring": "cross_entropy(z, some)"}, 2), folder)
    assert parts["parts.ignoring"] is not None
    assert bool(parts["parts.ignoring"].isfinite())
    torch.testing.assert_close(parts["parts.ignoring"], whole["whole.ignoring"])


def test_a_plain_mean_keeps_its_bits(folder: Path) -> None:
    """The mean of batches weighted by their length, in float64, as it has always been."""
    plan = compiled(config({"mse": "mse_loss(z[:, :2], y)"}, 3), folder)
    row = list(runner.execute(plan))[2]
    state = runner.execute(plan)
    start = next(iter(state))
    x, y = (torch.from_numpy(numpy.load(folder / "d.npz")[name]).float() for name in "xy")
    parts = [
        torch.nn.functional.mse_loss((a @ start["w"])[:, :2], b) for a, b in zip(x.split(3), y.split(3), strict=True)
    ]
    total = sum(part.double() * length for part, length in zip(parts, (3, 3, 1), strict=True))
    assert torch.equal(row["parts.mse"], (total / SAMPLES).float())
