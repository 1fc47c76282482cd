"""Each kind of step reports the first value that it makes not finite: optimizers, assignments, batches, L-BFGS."""

from __future__ import annotations

import math
from pathlib import Path

import numpy
import pytest
import torch

import runner
from runner.errors import DataWarning
from tests.engine.running import compiled, numbers, same
from tests.engine.watch.stopping import stopped
from tests.tables import over

# weights, where the gradients are finite


@pytest.mark.parametrize(
    ("optimizer", "kind"),
    [
        ("{sgd: {lr: 1e38}}", "sgd"),
        ("{rmsprop: {lr: 3e38}}", "rmsprop"),
        ("{lbfgs: {lr: 3e39, max_iter: 1}}", "lbfgs"),
        ('{rule: {update: "param = param - 1e38 * grad"}}', "rule"),
    ],
)
def test_a_weight_is_told_with_its_optimizer(optimizer: str, kind: str) -> None:
    text = f"""\
dtype: float32
parameters: {{x: [1.0, -30.0, 40.0], y: 1.0}}
expression: f = (x ** 2).sum() + y
optimizer: {optimizer}
steps: [train]
"""
    found = stopped(text)
    weight = numbers(found.last)["x"]
    assert weight is not None
    spoilt = (~torch.isfinite(weight)).nonzero()
    assert found.problem.message.startswith(
        f"`x` is {float(weight[spoilt[0]])} at {spoilt[0].tolist()}, after step 1 of `{kind}`: "
    )
    assert found.problem.message.endswith(f"{len(spoilt)} inf of 3 elements (row 1, train)")
    assert found.problem.path == "optimizer"


def test_the_second_optimizer_is_named_with_its_own_count() -> None:
    text = """\
parameters: {x: 1.0, y: 1.0}
expression: f = x + 100 * y
optimizers:
  slow: {sgd: {lr: 0.1}, parameters: [x]}
  fast: {sgd: {lr: 1e37 * 10 ** (t - 2)}, parameters: [y]}
steps: [backward, {step: slow}, {repeat: {times: 4, steps: [{step: fast}]}}]
"""
    found = stopped(text)
    assert found.problem.path == "optimizers.fast"
    assert found.problem.message == "`y` is -inf, after step 2 of `sgd` (row 4, 3.repeat[2].step)"
    assert found.marked.startswith("{sgd: {lr: 1e37")


# every kind of step

STEPS = {
    "forward": ("steps: [forward]\n", "log(x)", "forward", "h"),
    "backward": ("steps: [backward]\n", "log(x)", "backward", "h"),
    "train": ("steps: [train]\n", "log(x)", "train", "h"),
    "train with clipping": ("steps: [{train: {clip_grad_value: 1}}]\n", "log(x)", "train", "h"),
    "assign": ("steps: [{assign: {x: log(x)}}, forward]\n", "log(x)", "assign", "x"),
    "assign of a gradient": ("steps: [{assign: {x.grad: log(x)}}, forward]\n", "log(x)", "assign", "x.grad"),
    "assign with random numbers": (
        "steps: [{assign: {y: rand(2), x: log(rand(2) - 2)}}, forward]\n",
        "log(rand(2) - 2)",
        "assign",
        "x",
    ),
    "assign of a number": ("steps: [{assign: {x: 0.0, y: inf}}, forward]\n", "inf", "assign", "y"),
}  # fmt: skip


@over("name", STEPS)
def test_each_kind_of_step_tells_its_own(name: str) -> None:
    steps, operation, path, told = STEPS[name]
    text = f"""\
parameters: {{x: [-1.0, 2.0], y: [1.0, 1.0]}}
expression: |
  h = log(x)
  f = (h * y).sum()
optimizer: {{sgd: {{lr: 0.1}}}}
{steps}"""
    found = stopped(text)
    assert found.marked == operation
    assert found.problem.message.startswith(f"`{told}` is ")
    assert found.problem.message.endswith(f" (row 1, {'1.' if 'assign' in path else ''}{path})")
    assert found.last.step == path


def test_what_an_assign_writes_in_a_narrower_dtype_is_looked_at() -> None:
    text = """\
parameters: {x: {shape: [2], init: 1.0, dtype: float16}, y: 1.0}
expression: f = x.sum() * y
steps: [{assign: {x: "tensor([1.0, 70000.0])"}}, forward]
"""
    found = stopped(text)
    assert found.problem.message == "`x` is inf at [1], written as float16: 1 inf of 2 elements (row 1, 1.assign)"
    assert found.problem.path == "steps.0.assign.x"


def test_a_norm_that_overflows_is_told_though_the_gradients_are_finite() -> None:
    text = """\
parameters: {x: {shape: [4], init: 0.0}}
expression: f = (x * 3e38).mean()
optimizer: {sgd: {lr: 1e-38}}
steps: [%s]
"""
    for step, row, path in (
        ("{train: {clip_grad_norm: 1}}", 1, "train"),
        ("backward, {clip_grad_norm: 1}", 2, "2.clip_grad_norm"),
    ):
        found = stopped(text % step)
        assert found.problem.message == f"`total_norm` is inf, and the gradients are finite (row {row}, {path})"
        assert found.problem.path.startswith("steps.")
        norm = numbers(found.last)["total_norm"]
        assert norm is not None
        assert norm.item() == math.inf


def test_an_initial_weight_is_told_before_the_first_step() -> None:
    text = """\
parameters: {x: [1.0, 0.5], w: {shape: [2], init: {expression: "tensor([1.0, nan])"}}}
expression: f = (x * w).sum()
steps: [backward]
"""
    found = stopped(text)
    assert [row.step for row in found.rows] == ["start"]
    assert found.problem.message == "`w` is nan at [1], an initial value: 1 nan of 2 elements (row 0, start)"
    assert found.problem.path == "parameters.w"


def test_a_frozen_parameter_may_hold_an_infinity() -> None:
    text = """\
parameters: {x: 1.0, best: {init: .inf, requires_grad: false}}
expression: f = x ** 2
optimizer: {sgd: {lr: 0.1}}
steps:
  - repeat: {times: 3, steps: [train, {assign: {best: "minimum(best, f)"}}, {assign: {best: best / 0}}]}
"""
    assert len(list(runner.execute(compiled(text)))) == 10


def test_a_constant_that_is_nan_is_named() -> None:
    text = """\
parameters: {x: 1.0}
constants: {c: [1.0, nan]}
expression: f = (x * c).sum()
steps: [backward]
"""
    found = stopped(text)
    assert found.problem.message == "`f` is nan, from the constant `c` (row 1, backward)"
    assert found.problem.path == "constants.c"


# batches

PEOPLE = """\
parameters: {w: 0.5}
data:
  train: {file: a.npz, columns: {x: x}, batch_size: 2%s}
expression: |
  h = log(x)
  loss = (w * h).reshape(x.shape[0]).mean()
optimizer: {sgd: {lr: 0.1}}
steps: %s
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    x = numpy.array([1.0, 2.0, 3.0, 4.0, -5.0], dtype="float32")
    numpy.savez(tmp_path / "a.npz", x=x)
    return tmp_path


def test_the_batch_that_is_current_is_the_one_that_is_looked_into(folder: Path) -> None:
    found = stopped(PEOPLE % ("", "{epochs: 1}"), folder)  # its last batch has one sample, and a graph of its own
    assert found.marked == "log(x)"
    assert found.problem.message == "`h` is nan, from `log(x)` (row 3, for_each[3].train)"
    assert [row.number for row in found.rows] == [0, 1, 2, 3]


@pytest.mark.parametrize("accumulate", [2, 4])
def test_each_micro_batch_of_a_step_is_looked_at(folder: Path, accumulate: int) -> None:
    text = PEOPLE % (
        ", drop_last: false",
        f"[{{repeat: {{times: 3, steps: [{{train: {{accumulate: {accumulate}}}}}]}}}}]",
    )
    found = stopped(text, folder)
    assert found.marked == "log(x)"
    row = 2 if accumulate == 2 else 1
    assert found.problem.message == f"`h` is nan, from `log(x)` (row {row}, repeat[{row}].train)"


def test_evaluate_is_told_in_the_batch_that_made_it_so(folder: Path) -> None:
    found = stopped(PEOPLE % ("", "[{evaluate: train}, forward]"), folder)
    assert found.marked == "log(x)"
    assert found.problem.message == "`train.loss` is nan, from `log(x)` (row 1, 1.evaluate)"
    mean = numbers(found.last)["train.loss"]
    assert mean is not None
    assert mean.isnan()


@pytest.mark.parametrize(
    ("steps", "told", "row"),
    [
        (
            "{epochs: 1}",
            "`h` is nan at [1], from sample 3 of `x` in `train`: 1 nan of 2 elements",
            "(row 2, for_each[2].train)",
        ),
        ("[{evaluate: train}, forward]", "`train.loss` is nan, from sample 3 of `x` in `train`", "(row 1, 1.evaluate)"),
    ],
)
def test_a_sample_that_is_nan_is_named(tmp_path: Path, steps: str, told: str, row: str) -> None:
    numpy.savez(tmp_path / "a.npz", x=numpy.array([1.0, 2.0, 3.0, numpy.nan, 5.0], dtype="float32"))
    with pytest.warns(DataWarning, match="sample 3 of `x`"):
        found = stopped(PEOPLE % ("", steps), tmp_path)
    assert found.problem.path == "data.train.columns.x"
    assert found.problem.message == f"{told} {row}"


# L-BFGS

LBFGS = """\
parameters: {x: [%s]}
expression: |
  f = log(x).square().sum()
optimizer: {lbfgs: {lr: %s, max_iter: 4%s}}
steps: %s
"""


@pytest.mark.parametrize("steps", ["[train]", "[backward, step]"])
def test_the_first_evaluation_of_lbfgs_is_looked_at(steps: str) -> None:
    found = stopped(LBFGS % ("-1.0, 2.0", "1", "", steps))
    assert found.marked == "log(x)"
    assert found.problem.message.startswith("`f` is nan, from `log(x)` (row 1, ")


@pytest.mark.parametrize("steps", ["[train]", "[forward, backward, step]"])
def test_what_lbfgs_leaves_is_looked_at(steps: str) -> None:
    found = stopped(LBFGS % ("9.0", "100", "", steps))  # leaps to where the logarithm is nan
    assert found.problem.message.startswith("`x.grad` is nan, in a later evaluation of the step (row ")
    assert found.last.step == steps.strip("[]").split(", ")[-1]
    first = numbers(found.last)["f"]
    assert first is not None
    assert first.isfinite()


def test_a_line_search_may_meet_what_is_not_finite() -> None:
    met: list[bool] = []
    x = torch.nn.Parameter(torch.tensor([9.0]))
    optimizer = torch.optim.LBFGS([x], lr=100, max_iter=4, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        f = torch.log(x).square().sum()
        f.backward()
        met.append(bool(f.isfinite()))
        return f

    optimizer.step(closure)  # type: ignore[arg-type]
    assert not all(met)
    assert x.isfinite()
    text = LBFGS % ("9.0", "100", ", line_search_fn: strong_wolfe", "[train]")
    rows = list(runner.execute(compiled(text)))
    assert same(numbers(rows[-1])["x"], x.detach())
