"""Recurrent networks and dropout: torch's value over all samples at any batch size."""
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import runner
from runner.plan.streams import stream_seed

SAMPLES, HOURS, FEATURES, HIDDEN = 10, 5, 2, 3
CONFIG = """
dtype: float64
parameters: {weights}
data:
  whole: {{columns: {{x: x.npy}}}}
  parts: {{columns: {{x: x.npy}}, batch_size: {size}}}
expression: |
  start = zeros(1, x.shape[0], 3)
{text}
  loss = out.square().mean()
steps: [{{evaluate: whole}}, {{evaluate: parts}}]
"""
CELLS = "  for t in range(5):\n    {call}\n  out = h"
PARAMS = "[wi, wh, bi, bh]"

NETWORKS = {
    "lstm": ("LSTM", f"  out, h, c = lstm(x, [start, start], {PARAMS}, True, 1, 0.0, training, False, True)"),
    "gru": ("GRU", f"  out, h = gru(x, start, {PARAMS}, True, 1, 0.0, training, False, batch_first=True)"),
    "rnn_tanh": ("RNN", f"  out, h = rnn_tanh(x, start, {PARAMS}, True, 1, 0.0, True, False, True)"),
    "time first": (
        "LSTM",
        f"  o, h, c = lstm(x.transpose(0, 1), [start, start], {PARAMS}, True, 1, 0.5, training, False, False)\n"
        "  out = o.transpose(0, 1)",
    ),
    "lstm_cell": (
        "LSTM",
        "  h = start[0]\n  c = start[0]\n"
        + CELLS.format(call="h, c = lstm_cell(x[:, t], [h, c], wi, wh, bi, bh)")
        + "[:, None]",
    ),
    "gru_cell": (
        "GRU",
        "  h = start[0]\n" + CELLS.format(call="h = gru_cell(x[:, t], h, wi, wh, bi, bh)") + "[:, None]",
    ),
    "last state": (
        "LSTM",
        f"  o, h, c = lstm(x, [start, start], {PARAMS}, True, 1, 0.0, False, False, True)\n  out = h[-1][:, None]",
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    numpy.save(tmp_path / "x.npy", numpy.random.RandomState(0).randn(SAMPLES, HOURS, FEATURES))
    return tmp_path


def planned(text: str, module: torch.nn.Module, size: int, folder: Path) -> runner.Plan:
    names = ("wi", "wh", "bi", "bh")
    weights = {name: value.tolist() for name, value in zip(names, module.parameters(), strict=True)}
    text = CONFIG.format(text=text, size=size, weights=str(weights).replace("'", ""))
    return runner.compile(runner.loads(text, base=str(folder)))


@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_recurrent_network_is_exact_at_any_batch_size(folder: Path, name: str, size: int) -> None:
    kind, text = NETWORKS[name]
    torch.manual_seed(1)
    module = getattr(torch.nn, kind)(FEATURES, HIDDEN, batch_first=True, dtype=torch.float64)
    plan = planned(text, module, size, folder)
    assert plan.warnings == ()
    with torch.no_grad():
        output: Tensor = module(torch.from_numpy(numpy.load(folder / "x.npy")))[0]
    expected = output[:, -1:] if "out = h" in text else output
    rows = list(runner.execute(plan))
    for source, row in zip(("whole", "parts"), rows[1:], strict=True):
        torch.testing.assert_close(row[f"{source}.loss"], expected.square().mean())


def test_a_network_over_the_samples_warns(folder: Path) -> None:
    text = f"  out, h = gru(x, zeros(1, 5, 3), {PARAMS}, True, 1, 0.0, False, False, False)"  # dimension 0 is time
    plan = planned(text, torch.nn.GRU(FEATURES, HIDDEN, dtype=torch.float64), 5, folder)
    (warning,) = plan.warnings
    assert warning.message == (
        "`loss` of `parts` depends on how its samples are batched: `gru` is not a mean, sum or extreme over them"
    )


def test_dropout_between_layers_draws_in_evaluate_and_warns(folder: Path) -> None:
    text = f"  out, h = gru(x, start, {PARAMS}, True, 1, 0.5, True, False, True)"
    plan = planned(text, torch.nn.GRU(FEATURES, HIDDEN, dtype=torch.float64), 5, folder)
    assert [warning.message for warning in plan.warnings] == ["`gru` draws random numbers in `evaluate`"]


NETWORK = """
dtype: float64
parameters: {w: {shape: [2], init: [1.0, -0.5]}}
data: {test: {columns: {x: x.npy}, batch_size: SIZE}}
expression: |
  score = dropout(x[:, 0], 0.5, training) @ w
  attended = scaled_dot_product_attention(x, x, x)
  loss = score.mean() + attended.mean()
metrics:
  middle: {whole: score.median()}
  auc: roc_auc(score, x[:, 1, 0] > 0)
steps: [{evaluate: test}]
"""


@pytest.mark.parametrize("size", [1, 3, 10])
def test_dropout_that_is_off_leaves_a_value_for_each_sample(folder: Path, size: int) -> None:
    plan = runner.compile(runner.loads(NETWORK.replace("SIZE", str(size)), base=str(folder)))
    assert plan.warnings == ()
    _, row = runner.execute(plan)
    x = torch.from_numpy(numpy.load(folder / "x.npy"))
    score = x[:, 0] @ torch.tensor([1.0, -0.5], dtype=torch.float64)
    right, wrong = score[x[:, 1, 0] > 0], score[x[:, 1, 0] <= 0]
    torch.testing.assert_close(row["test.middle"], score.median())
    torch.testing.assert_close(row["test.auc"], (right[:, None] > wrong).double().mean())
    torch.testing.assert_close(row["test.loss"], score.mean() + F.scaled_dot_product_attention(x, x, x).mean())


ACCUMULATING = """
dtype: float64
parameters: {w: {shape: [2], init: [1.0, -0.5]}}
data: {train: {columns: {x: x.npy}, batch_size: 4}}
expression: |
  score = dropout(x[:, 0], 0.5, training) @ w
  loss = score.square().mean()
optimizer: {sgd: {lr: 0.1}}
steps:
  - for_each: {data: train, steps: [{train: {accumulate: 3}}]}
"""


def test_micro_batches_with_dropout_weigh_by_their_samples(folder: Path) -> None:
    plan = runner.compile(runner.loads(ACCUMULATING, base=str(folder)))
    assert plan.warnings == ()
    _, row = runner.execute(plan)
    x = torch.from_numpy(numpy.load(folder / "x.npy"))[:, 0]
    w = torch.tensor([1.0, -0.5], dtype=torch.float64, requires_grad=True)
    scores = []
    state = torch.get_rng_state()
    for number, batch in enumerate(x.split(4), start=1):
        torch.manual_seed(stream_seed(0, "expression", "", number))
        scores.append(F.dropout(batch, 0.5, True) @ w)
    torch.set_rng_state(state)
    loss = torch.cat(scores).square().mean()
    loss.backward()
    torch.testing.assert_close(row["score"], torch.cat(scores).detach())
    torch.testing.assert_close(row["loss"], loss.detach())
    torch.testing.assert_close(row["w.grad"], w.grad)
