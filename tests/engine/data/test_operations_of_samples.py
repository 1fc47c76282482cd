"""`evaluate` in batches: which expressions keep samples apart, beside torch over all of them, and which warn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import runner
from tests.tables import over

CONFIG = """
dtype: float64
parameters: {{w: {{shape: [4, 3], init: {w}}}}}
data: {{test: {{columns: {{x: x.npy, y: y.npy}}, batch_size: {size}}}}}
expression: |
  scores = x @ w
  loss = {text} + 0 * w.sum()
metrics: {{largest: y.amax()}}
steps: [{{evaluate: test}}]
"""
SAMPLES = 10
Value = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

SEPARATE: dict[str, Value] = {
    "(scores.softmax(1) * one_hot(y, 3)).mean()": lambda x, y, w, s: (s.softmax(1) * F.one_hot(y, 3)).mean(),
    "-scores.log_softmax(1).gather(1, y.unsqueeze(1)).mean()": lambda x, y, w, s: F.cross_entropy(s, y),
    "addmm(w[0], x, w).square().mean()": lambda x, y, w, s: (w[0] + s).square().mean(),
    "(scores - w[0].expand(x.shape[0], -1)).abs().mean()": lambda x, y, w, s: (s - w[0]).abs().mean(),
    "cosine_similarity(scores, w[:1]).mean()": lambda x, y, w, s: F.cosine_similarity(s, w[:1]).mean(),
    "cdist(x, w.T).amin(1).mean()": lambda x, y, w, s: torch.cdist(x, w.T).amin(1).mean(),
    "topk(scores, 2)[0].sum(1).mean()": lambda x, y, w, s: s.topk(2)[0].sum(1).mean(),
    "sort(scores, 1)[0][:, 0].amax()": lambda x, y, w, s: s.min(1)[0].amax(),
    "scores.repeat(1, 2).repeat_interleave(2, dim=1).mean()": lambda x, y, w, s: s.mean(),
    "glu(x).mean()": lambda x, y, w, s: F.glu(x).mean(),
    "triplet_margin_loss(x, x.flip(1), x.roll(1, 1))": lambda x, y, w, s: F.triplet_margin_loss(
        x, x.flip(1), x.roll(1, 1)
    ),
    "multi_margin_loss(scores, y)": lambda x, y, w, s: F.multi_margin_loss(s, y),
    "det(x.unflatten(1, (2, 2))).mean()": lambda x, y, w, s: torch.linalg.det(x.reshape(-1, 2, 2)).mean(),
    "fft.rfft(x).abs().mean()": lambda x, y, w, s: torch.fft.rfft(x).abs().mean(),
    "special.expit(scores).mean()": lambda x, y, w, s: s.sigmoid().mean(),
    "(index_select(w, 0, y).sum(1) * x[:, 0]).mean()": lambda x, y, w, s: (w[y].sum(1) * x[:, 0]).mean(),
    "quantile(scores, 0.5, 1).mean()": lambda x, y, w, s: s.median(1)[0].mean(),
    "quantile(scores, stack([w[0, 0], w[0, 1]]).sigmoid(), 1)[0].mean()": lambda x, y, w, s: torch.quantile(
        s, w[0, :2].sigmoid(), 1
    )[0].mean(),
    "interpolate(x.unsqueeze(1), scale_factor=2.0).mean()": lambda x, y, w, s: x.mean(),
    "adjoint(x).square().sum(0).mean()": lambda x, y, w, s: x.square().sum(1).mean(),
    "x.unsqueeze(1).squeeze(1).square().mean()": lambda x, y, w, s: x.square().mean(),
    "group_norm(x, 2).square().mean()": lambda x, y, w, s: F.group_norm(x, 2).square().mean(),
    "cat(tensors=[x, scores], dim=1).square().mean()": lambda x, y, w, s: torch.cat([x, s], 1).square().mean(),
    "hstack(tensors=[x, x]).square().mean()": lambda x, y, w, s: x.square().mean(),
    "matmul(input=x, other=w).square().mean()": lambda x, y, w, s: s.square().mean(),
    "addmm(input=w[0], mat1=x, mat2=w).square().mean()": lambda x, y, w, s: (w[0] + s).square().mean(),
    "inner(input=scores, other=w[0]).square().mean()": lambda x, y, w, s: (s @ w[0]).square().mean(),
    "outer(input=x[:, 0], vec2=w[0]).abs().mean()": lambda x, y, w, s: torch.outer(x[:, 0], w[0]).abs().mean(),
    "cdist(x1=x, x2=w.T).mean()": lambda x, y, w, s: torch.cdist(x, w.T).mean(),
    "triplet_margin_loss(anchor=x, positive=x.flip(1), negative=x + 1)": lambda x, y, w, s: F.triplet_margin_loss(
        x, x.flip(1), x + 1
    ),
    "multi_margin_loss(input=scores, target=y)": lambda x, y, w, s: F.multi_margin_loss(s, y),
    "permute(input=x.unsqueeze(1), dims=(0, 2, 1)).mean()": lambda x, y, w, s: x.mean(),
    "kl_div(log_softmax(scores, 1), softmax(x[:, :3], 1), reduction='batchmean')": lambda x, y, w, s: F.kl_div(
        s.log_softmax(1), x[:, :3].softmax(1), reduction="batchmean"
    ),
    "mse_loss(x, x.flip(1), weight=x.abs(), reduction='sum')": lambda x, y, w, s: (
        (x - x.flip(1)).square() * x.abs()
    ).sum(),
    "pad(x, (1, 1)).square().mean()": lambda x, y, w, s: x.square().sum() / (SAMPLES * 6),
}

MIXING = {
    "(x * roll(x, 1, 0)).mean()": "roll",
    "(x * x.flip(1, 0)).mean()": "flip",
    "pad(x, (0, 0, 1, 1)).mean()": "pad",
    "(x * sort(x, 0)[0]).mean()": "sort",
    "gather(scores, 0, y.unsqueeze(1)).mean()": "gather",
    "cdist(x, x).mean()": "cdist",
    "x.repeat(2, 1).square().mean(0).amax()": "repeat",
    "(x @ x.T).mean()": "@",
    "mse_loss(x, x.flip(1), weight=x.abs())": "mse_loss",
    "l1_loss(x, x.flip(1), weight=x.abs())": "l1_loss",
    "group_norm(x.unsqueeze(0), 1).square().amax(2).mean()": "group_norm",
    "kl_div(log_softmax(w[0], 0).unsqueeze(0), softmax(scores, 1), reduction='batchmean')": "kl_div",
}


def arrays() -> tuple[Tensor, Tensor, Tensor]:
    random = numpy.random.RandomState(3)
    x, y = random.randn(SAMPLES, 4), random.randint(0, 3, SAMPLES)
    return torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(random.randn(4, 3))


def planned(text: str, size: int, folder: Path) -> runner.Plan:
    x, y, w = arrays()
    numpy.save(folder / "x.npy", x.numpy())
    numpy.save(folder / "y.npy", y.numpy())
    return runner.compile(runner.loads(CONFIG.format(text=text, size=size, w=w.tolist()), base=str(folder)))


@pytest.mark.parametrize("size", [1, 3, 4])
@over("text", list(SEPARATE))
def test_an_expression_that_keeps_samples_apart_is_exact_at_any_batch_size(
    text: str, size: int, tmp_path: Path
) -> None:
    plan = planned(text, size, tmp_path)
    assert plan.warnings == ()
    x, y, w = arrays()
    _, row = runner.execute(plan)
    torch.testing.assert_close(row["test.loss"], SEPARATE[text](x, y, w, x @ w))


@pytest.mark.parametrize("size", [1, 3])
def test_a_batch_of_one_sample_loses_its_dimension_with_squeeze_and_warns(size: int, tmp_path: Path) -> None:
    (warning,) = planned("x.unsqueeze(2).squeeze().amax(-1).mean()", size, tmp_path).warnings
    assert warning.message.endswith("`squeeze` is not a mean, sum or extreme over them")
    assert planned("x.unsqueeze(2).squeeze().amax(-1).mean()", 5, tmp_path).warnings == ()


@over("text", list(MIXING))
def test_an_expression_that_mixes_samples_warns_at_the_operation(text: str, tmp_path: Path) -> None:
    (warning,) = planned(text, 5, tmp_path).warnings
    what = f"`{MIXING[text]}` is not a mean, sum or extreme over them"
    assert warning.message == f"`loss` of `test` depends on how its samples are batched: {what}"
