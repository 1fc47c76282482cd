"""What is seldom meant is a warning at its place, in the plan and in the manifest; what is meant is none."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

import runner
from tests.manifests import manifest_fields
from tests.tables import over

DATA = "a,b,y\n0.01,-0.28,0\n1.29,1.01,1\n-2.71,-1.89,2\n-0.17,-0.42,3\n0.21,0.22,4\n2.12,-1.11,5\n"
CONFIG = """\
parameters: {w: {shape: [2, 1], init: ones}, v: {shape: [2], init: ones}, c: {shape: [6, 1], init: ones}}
data: {train: {file: d.csv, columns: {x: [a, b], y: y}, dtype: {x: float32, y: float32}}}
expression: |
  EXPRESSION
  total = loss + 0 * (v.sum() + c.sum() + w.sum() + x.sum() + y.sum())
optimizer: {sgd: {lr: 0.1}}
steps: STEPS
"""


def warned(folder: Path, expression: str, steps: str = "1") -> list[tuple[str, str | None, int | None, int | None]]:
    (folder / "d.csv").write_text(DATA)
    text = CONFIG.replace("EXPRESSION", expression).replace("STEPS", steps)
    (folder / "c.yaml").write_text(text)
    plan = runner.compile(runner.load(folder / "c.yaml"))
    found = [problem for problem in plan.warnings if "every pair" in problem.message or "draws" in problem.message]
    return [(problem.message, problem.hint, problem.line, problem.column) for problem in found]


PAIRS = "(6, 1) against (6,) broadcasts to every pair, (6, 6)"
ONE_SHAPE = "give both one shape: `squeeze(1)` the column, or `unsqueeze(1)` the row"


@over(
    ("expression", "column"),
    [
        ("loss = ((x @ w - y) ** 2).mean()", 12),
        ("loss = (y - x @ w).abs().mean()", 11),
        ("loss = mse_loss(x @ w, y)", 10),
        ("loss = l1_loss(y, x @ w)", 10),
        ("loss = smooth_l1_loss(x @ w, y)", 10),
        ("loss = huber_loss((x @ w).unsqueeze(0).squeeze(0), y)", 10),
        ("loss = torch.sub(linear(x, w.T), y).pow(2).mean()", 10),
        ("loss = (x @ w).mean() + ((x @ w).sign() == y).float().mean()", 28),
    ],
)
def test_a_column_against_a_row_is_told_once_at_its_place(tmp_path: Path, expression: str, column: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = warned(tmp_path, expression)
    ((message, hint, line, at),) = found
    assert message.replace("(6,) against (6, 1)", "(6, 1) against (6,)") == PAIRS
    assert (hint, line, at) == (ONE_SHAPE, 4, column)


@over(
    "expression",
    [
        "loss = ((x @ w - y.unsqueeze(1)) ** 2).mean()",
        "loss = (((x @ w).squeeze(1) - y) ** 2).mean()",
        "loss = mse_loss(x @ v, y)",
        "loss = (y[:, None] - y).abs().mean() + w.sum()",
        "loss = (y.reshape(6, 1) - x @ v).abs().mean()",
        "loss = (x.mean(1, keepdim=True) - y).abs().mean() + w.sum()",
        "loss = (c - y).abs().mean()",
        "loss = ((x @ w) * y).mean()",
        "loss = (x - y[0]).mean() + w.sum()",
    ],
)
def test_pairs_on_purpose_are_not_told(tmp_path: Path, expression: str) -> None:
    assert warned(tmp_path, expression) == []


def test_the_manifest_keeps_it_and_torch_says_nothing_more(tmp_path: Path) -> None:
    assert warned(tmp_path, "loss = mse_loss(x @ w, y)")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = runner.run(tmp_path / "c.yaml", runs_dir=tmp_path / "runs")
    kept = manifest_fields(run.path / "run.json")["warnings"]
    assert sum(PAIRS in warning for warning in kept) == 1
    assert run.tensor("loss")[-1].item() == pytest.approx(_mean_of_pairs(), rel=1e-5)


def _mean_of_pairs() -> float:
    rows = [[float(cell) for cell in line.split(",")] for line in DATA.splitlines()[1:]]
    pairs = [(a + b - row[2]) ** 2 for a, b, _ in rows for row in rows]
    return sum(pairs) / len(pairs)


EVALUATED = "[train, {evaluate: train}]"


@pytest.mark.parametrize(
    ("expression", "message", "hint"),
    [
        (
            "loss = dropout(x @ w, 0.5).sum()",
            "`dropout` draws random numbers in `evaluate`",
            "write `dropout(x @ w, 0.5, training=training)`",
        ),
        (
            "loss = alpha_dropout(x @ w, 0.5, True).sum()",
            "`alpha_dropout` draws random numbers in `evaluate`",
            "write `alpha_dropout(x @ w, 0.5, True, training=training)`",
        ),
        (
            "loss = (x @ w + randn_like(x @ w)).sum()",
            "`randn_like` draws random numbers in `evaluate`",
            "use it only in training: `… if training else …`",
        ),
    ],
)
def test_random_numbers_in_an_evaluation_are_told(tmp_path: Path, expression: str, message: str, hint: str) -> None:
    ((told, advice, line, _),) = warned(tmp_path, expression, EVALUATED)
    assert (told, advice, line) == (message, hint, 4)


@pytest.mark.parametrize(
    ("expression", "steps"),
    [
        ("loss = dropout(x @ w, 0.5, training).sum()", EVALUATED),
        ("loss = (x @ w + (randn_like(x @ w) if training else 0)).sum()", EVALUATED),
        ("loss = torch.dropout(x @ w, 0.5, training).sum()", EVALUATED),
        ("loss = rrelu(x @ w, training=training).sum()", EVALUATED),
        ("loss = dropout(x @ w, 0.5).sum()", "3"),
    ],
)
def test_random_numbers_in_training_alone_are_not_told(tmp_path: Path, expression: str, steps: str) -> None:
    assert warned(tmp_path, expression, steps) == []
