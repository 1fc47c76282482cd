"""The first value, gradient or weight that is not finite ends the run, and is told with what made it so."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy
import pytest
import torch

import runner
from runner.engine.state import initial_state
from runner.engine.watch.watch import HANDING_ON, Watch
from runner.errors import DataWarning, HealthWarning, Problem
from runner.plan.streams import stream_seed
from tests.engine.running import compiled, numbers, same
from tests.tables import over


@dataclass(frozen=True, slots=True)
class Stopped:
    """A run that ended for what it found."""

    rows: list[runner.Row]
    problem: Problem

    @property
    def marked(self) -> str:
        """The text under the caret."""
        assert self.problem.excerpt is not None
        assert self.problem.column is not None
        return self.problem.excerpt[self.problem.column - 1 :][: self.problem.width]

    @property
    def last(self) -> runner.Row:
        return self.rows[-1]


def stopped(text: str, base: Path | str = ".", *, defers: bool | None = None) -> Stopped:
    plan = compiled(text, base)
    state = initial_state(plan)
    rows: list[runner.Row] = []
    with pytest.raises(runner.RunError, match=r"nan|inf|not finite") as caught:
        rows.extend(runner.execute(plan, state, watch=Watch(plan, state, defers=defers)))
    assert caught.value.exit_code == 1
    (problem,) = caught.value.problems
    return Stopped(rows, problem)


# values: the operation, and the first name that holds what came of it

VALUES = {
    "log of a negative number": (
        "h = log(x - 2)\n  f = h.sum()",
        "log(x - 2)",
        "`h` is nan at [0], from `log(x - 2)`: 1 nan, 1 inf of 3 elements",
    ),
    "a division by zero": ("f = (1 / (x - 1)).sum()", "1 / (x - 1)", "`f` is inf, from `1 / (x - 1)`"),
    "an overflow": (
        "a = exp(100 * x)\n  f = a.mean()",
        "exp(100 * x)",
        "`a` is inf at [0], from `exp(100 * x)`: 3 inf of 3 elements",
    ),
    "an infinity over an infinity comes from the overflow": (
        "a = exp(100 * x)\n  p = a / a.sum()\n  f = p.mean()",
        "exp(100 * x)",
        "`a` is inf at [0], from `exp(100 * x)`: 3 inf of 3 elements",
    ),
    "a method": ("f = (x - 2).sqrt().sum()", "(x - 2).sqrt()", "`f` is nan, from `(x - 2).sqrt()`"),
    "a slice that is masked whole": (
        "s = x.masked_fill(x > 0, -inf)\n  p = softmax(s, dim=0)\n  f = p.sum()",
        "softmax(s, dim=0)",
        "`p` is nan at [0], from `softmax(s, dim=0)`: 3 nan of 3 elements",
    ),
    "an infinity that is written": (
        "s = x.masked_fill(x > 2, inf)\n  f = s.sum()",
        "x.masked_fill(x > 2, inf)",
        "`s` is inf at [2], from `x.masked_fill(x > 2, inf)`: 1 inf of 3 elements",
    ),
    "beside a mask that does no harm": (
        "s = x.masked_fill(x > 2, -inf)\n  p = softmax(s, dim=0)\n  f = -log(p).sum()",
        "log(p)",
        "`f` is inf, from `log(p)`",
    ),
    "an overflow beside an infinity that is written": (
        "s = x.masked_fill(x > 2, inf)\n  e = exp(100 * x)\n  f = s.max() + e.max()",
        "exp(100 * x)",
        "`e` is inf at [0], from `exp(100 * x)`: 3 inf of 3 elements",
    ),
    "within a loop": (
        "h = x\n  for i in range(3):\n    h = h / (h - 3)\n  f = h.sum()",
        "h / (h - 3)",
        "`h` is nan at [2], from `h / (h - 3)`: 1 nan of 3 elements",
    ),
    "one of several values": (
        "a, b = topk(x, 2)\n  c = log(-a)\n  f = c.sum() + b.sum()",
        "log(-a)",
        "`c` is nan at [0], from `log(-a)`: 2 nan of 2 elements",
    ),
    "in a branch": (
        "h = log(-x) if iteration > 1 else x\n  f = h.sum()",
        "log(-x)",
        "`h` is nan at [0], from `log(-x)`: 3 nan of 3 elements",
    ),
    "in the other branch": (
        "h = x if iteration > 2 else (log(-x) if iteration == 2 else x)\n  f = h.sum()",
        "log(-x)",
        "`h` is nan at [0], from `log(-x)`: 3 nan of 3 elements",
    ),
    "in a function": (
        "h = ratio(x, x - 1)\n  f = h.sum()",
        "a / b",
        "`h` is inf at [0], from `a / b`: 1 inf of 3 elements",
    ),
    "in a derivative": (
        "y = sqrt(x - 1).sum()\n  d = grad(y, x)\n  f = d.sum()",
        "grad(y, x)",
        "`d` is inf at [0], from `grad(y, x)`: 1 inf of 3 elements",
    ),
    "with random numbers": (
        "u = rand(64)\n  h = log(u - 0.5)\n  f = h.sum() + x.sum()",
        "log(u - 0.5)",
        "`h` is nan at ",
    ),
}  # fmt: skip


@over("name", VALUES)
def test_a_value_is_told_with_the_operation_that_made_it_so(name: str) -> None:
    statements, operation, message = VALUES[name]
    text = f"""\
parameters: {{x: [1.0, 2.0, 3.0]}}
functions:
  ratio(a, b): a / b
expression: |
  {statements}
steps: [repeat: {{times: 3, steps: [forward]}}]
"""
    found = stopped(text)
    assert found.marked == operation
    assert found.problem.message.startswith(message)
    path = f"repeat[{found.last.iteration}].forward"
    assert found.problem.message.endswith(f" (row {found.last.number}, {path})")
    assert found.problem.path == ("functions.ratio(a, b)" if "function" in name else "expression")


def test_what_is_told_counts_as_torch_does_at_the_draws_of_the_step() -> None:
    text = """\
parameters: {x: 1.0}
expression: |
  u = rand(8, 8)
  h = log(u - 0.5)
  f = h.sum() * x
steps: [forward: u, backward]
"""
    found = stopped(text)
    h = numbers(found.last)["h"]
    assert h is not None
    spoilt = (~torch.isfinite(h)).nonzero()
    count = f"{int(h.isnan().sum())} nan of 64 elements"
    assert (
        found.problem.message == f"`h` is nan at {spoilt[0].tolist()}, from `log(u - 0.5)`: {count} (row 2, 2.backward)"
    )
    assert found.marked == "log(u - 0.5)"


def seed_whose_draws(*wanted: bool) -> int:
    """A seed for which `rand(1) < 0.5` is true, or not, in the first evaluations of a run."""

    def draws(seed: int) -> list[bool]:
        generators = (
            torch.Generator().manual_seed(stream_seed(seed, "expression", "", n + 1)) for n in range(len(wanted))
        )
        return [bool(torch.rand(1, generator=generator) < 0.5) for generator in generators]

    return next(seed for seed in range(100) if draws(seed) == list(wanted))


@pytest.mark.parametrize(
    "steps",
    [
        '{backward: {gradient: "rand(1)"}}',
        '{assign: {x: "log(rand(1) - 0.5)", y: "rand(1)"}}, {backward: {gradient: "rand(1)"}}',
    ],
)
def test_what_a_step_draws_later_does_not_mislead(steps: str) -> None:
    text = f"""\
seed: {seed_whose_draws(True, False)}
parameters: {{x: [1.0], y: [1.0]}}
expression: f = x * y * log(rand(1) - 0.5)
steps: [{steps}]
"""
    found = stopped(text)
    assert found.last.number == 1
    assert found.marked == "log(rand(1) - 0.5)"


def test_masks_of_infinities_and_values_that_nothing_needs_are_fine() -> None:
    text = """\
parameters: {x: [1.0, 2.0, 3.0]}
constants: {never: {init: -.inf}}
expression: |
  mask = where(x > 1, x, -inf)
  p = softmax(mask + where(x > 2, never, 0.0), dim=0)
  aside = log(-x)
  f = p.max() + aside.nansum()
optimizer: {sgd: {lr: 0.1}}
steps: 3
"""
    assert len(list(runner.execute(compiled(text)))) == 4


def test_a_finite_value_whose_norm_overflows_is_fine() -> None:
    text = """\
parameters: {x: {shape: [4], init: 3e38}, y: {shape: [], init: 3e38}, z: {shape: [], init: 3e38}}
expression: f = (x * 1e-38).sum() + y * 1e-38 + z * 1e-38
metrics: {m: x * 1, n: y * 1, o: z * 1}
optimizer: {sgd: {lr: 0.1}}
steps: 3
"""
    assert len(list(runner.execute(compiled(text)))) == 4


def test_a_metric_is_looked_at_and_placed_in_its_own_text() -> None:
    text = """\
parameters: {x: [1.0, 2.0]}
expression: f = x.sum()
metrics: {fine: x.max(), m: log(x - 1)}
steps: [forward]
"""
    found = stopped(text)
    assert (found.marked, found.problem.path) == ("log(x - 1)", "metrics.m")
    assert found.problem.message == "`m` is -inf at [0], from `log(x - 1)`: 1 inf of 2 elements (row 1, forward)"


# gradients, where the objective is finite

GRADIENTS = {
    "the square root at zero": ("f = sqrt(x).sum()", "sqrt(x)", "inf at [0]", "1 inf"),
    "behind where": ("f = where(x > 0, sqrt(x), 0.0).sum()", "sqrt(x)", "nan at [0]", "1 nan"),
    "a power": ("h = x ** 0.5\n  f = h.sum()", "x ** 0.5", "inf at [0]", "1 inf"),
    "a norm by hand": ("f = (x[:1] ** 2).sum().sqrt() + x.sum()", "(x[:1] ** 2).sum().sqrt()", "nan at [0]", "1 nan"),
    "an overflow on the way back": ("f = (x[:1] * 1e30 * 1e30).sum()", "x[:1] * 1e30", "inf at [0]", "1 inf"),
    "an innocent consumer beside it": ("h = sqrt(x)\n  f = h.sum() + (x * 3).sum()", "sqrt(x)", "inf at [0]", "1 inf"),
    "in a function": ("f = root(x).sum()", "sqrt(a)", "inf at [0]", "1 inf"),
    "in a branch": ("f = (sqrt(x) if iteration > 1 else x).sum()", "sqrt(x)", "inf at [0]", "1 inf"),
    "of several values": (
        "values, vectors = linalg.eigh(diag(x * 0))\n  f = (vectors * tensor([[1.0, 2.0], [3.0, 4.0]])).sum()",
        "linalg.eigh(diag(x * 0))",
        "nan at [0]",
        "2 nan",
    ),
    "of one of several values": ("a, b = chunk(x, 2)\n  f = sqrt(a).sum() + b.sum()", "sqrt(a)", "inf at [0]", "1 inf"),
}  # fmt: skip


@over("name", GRADIENTS)
def test_a_gradient_is_told_with_the_operation_whose_derivative_made_it_so(name: str) -> None:
    statements, operation, kind, count = GRADIENTS[name]
    text = f"""\
parameters: {{x: [0.0, 2.0]}}
functions:
  root(a): sqrt(a)
expression: |
  {statements}
steps: [repeat: {{times: 3, steps: [zero_grad, backward]}}]
"""
    found = stopped(text)
    assert found.marked == operation
    assert found.problem.message.startswith(f"`x.grad` is {kind}")
    assert f", from the derivative of `{operation}`" in found.problem.message
    assert count in found.problem.message
    gradient = numbers(found.last)["x.grad"]
    assert gradient is not None
    assert not torch.isfinite(gradient).all()


def test_the_gradient_that_an_objective_is_given_is_part_of_what_is_told() -> None:
    text = """\
parameters: {x: [0.0, 4.0]}
constants: {weights: [0.0, 1.0]}
expression: h = sqrt(x)
steps:
  - backward: {gradient: "weights * rand(2)"}
"""
    found = stopped(text)
    assert (found.marked, found.problem.path) == ("sqrt(x)", "expression")
    assert found.problem.message.startswith("`x.grad` is nan at [0], from the derivative of `sqrt(x)`: 1 nan of 2")


@over("spoilt", [math.nan, math.inf, -math.inf])
@over("steps_before", [0, 3])
@over("kind", sorted(HANDING_ON))
def test_a_gradient_that_is_not_finite_makes_its_weight_so(kind: str, steps_before: int, spoilt: float) -> None:
    make = next(getattr(torch.optim, name) for name in dir(torch.optim) if name.lower() == kind)
    momenta = ({"momentum": 0.9}, {"momentum": 0.9, "dampening": 1.0}) if kind == "sgd" else ({"lr": 0.0},)
    for options in ({}, *momenta):
        x = torch.nn.Parameter(torch.ones(2))
        optimizer = make([x], **options)
        for gradient in (*[1.0] * steps_before, spoilt):
            x.grad = torch.tensor([gradient, 1.0])
            optimizer.step()
        assert x.isfinite().tolist() == [False, True]


@over("optimizer", ["{sgd: {lr: 0.1, momentum: 0.9}}", "{adam: {}}", "{rprop: {}}"])
@over("log", ["", "log: {include: [f]}"])
def test_a_gradient_is_told_whether_its_weight_shows_it_or_not(optimizer: str, log: str) -> None:
    text = f"""\
parameters: {{x: [0.5, 1.0], y: 2.0}}
expression: |
  u = rand(2)
  f = sqrt(x * (iteration < 3) * u).sum() + y
optimizer: {optimizer}
steps: [{{repeat: {{times: 4, steps: [train]}}}}]
{log}
"""
    found = stopped(text)
    assert found.marked == "sqrt(x * (iteration < 3) * u)"
    assert found.problem.message == (
        f"`x.grad` is nan at [0], from the derivative of `{found.marked}`: 2 nan of 2 elements (row 3, repeat[3].train)"
    )


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


# what is done about it

DIVERGES = """\
parameters: {x: [3.0, 4.0]}
expression: f = (x ** 4).sum()
optimizer: {sgd: {lr: 10}}
steps: 8
%s
"""


def by_hand() -> list[torch.Tensor]:
    """The weights of DIVERGES before and after each step; its objective is infinite in the third."""
    x = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer = torch.optim.SGD([x], lr=10)
    found = [x.detach().clone()]
    for _ in range(8):
        optimizer.zero_grad()
        (x**4).sum().backward()
        optimizer.step()
        found.append(x.detach().clone())
    return found


def test_stop_ends_after_the_row_that_holds_it() -> None:
    found = stopped(DIVERGES % "")
    weights = by_hand()
    assert [bool((x**4).sum().isinf()) for x in weights[:3]] == [False, False, True]
    assert found.last.number == 3
    assert all(same(row["x"], weight) for row, weight in zip(found.rows, weights[:4], strict=True))


@pytest.mark.parametrize("log", ["{every: 5}", "{include: [f], every: 7}", "{tensors: none}", "{include: [x.grad]}"])
def test_stop_keeps_the_row_and_looks_at_what_is_not_logged(log: str) -> None:
    whole, found = stopped(DIVERGES % ""), stopped(DIVERGES % f"log: {log}")
    assert found.last.path == whole.last.path
    assert found.problem.message.partition(" (row")[0] == whole.problem.message.partition(" (row")[0]


def test_warn_tells_the_first_and_goes_on() -> None:
    with pytest.warns(HealthWarning, match="non-finite: ") as caught:
        rows = list(runner.execute(compiled(DIVERGES % "on_nonfinite: warn")))
    assert len(caught) == 1
    assert stopped(DIVERGES % "").problem.message in str(caught[0].message)
    assert all(same(row["x"], weight) for row, weight in zip(rows, by_hand(), strict=True))


def test_ignore_looks_at_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    original: Callable[..., object] = Watch._look

    def counted(self: Watch, *arguments: object, **named: object) -> object:
        found = original(self, *arguments, **named)
        looks.append("nothing" if found is None else "look")
        return found

    monkeypatch.setattr(Watch, "_look", counted)
    rows = list(runner.execute(compiled(DIVERGES % "on_nonfinite: ignore")))
    assert all(same(row["x"], weight) for row, weight in zip(rows, by_hand(), strict=True))
    assert set(looks) == {"nothing"}
    with pytest.raises(runner.RunError, match="inf"):
        list(runner.execute(compiled(DIVERGES % "")))
    assert "look" in looks


@pytest.mark.parametrize("mode", ["stop", "warn", "ignore"])
def test_looking_changes_no_bit(mode: str) -> None:
    text = f"""\
parameters: {{x: {{shape: [5], init: normal}}, y: 1.0}}
expression: f = (dropout(x, 0.5, training) ** 2).sum() * y
optimizer: {{adam: {{lr: 0.1}}}}
steps: 20
on_nonfinite: {mode}
"""
    rows = list(runner.execute(compiled(text)))
    others = list(runner.execute(compiled(text.replace(mode, "ignore"))))
    assert all(same(row["x"], other["x"]) for row, other in zip(rows, others, strict=True))


def test_the_replay_leaves_random_streams_and_gradients_alone() -> None:
    text = """\
parameters: {x: [0.0, 1.0, 2.0], y: 1.0}
expression: f = (sqrt(x) * dropout(ones(3), 0.5, training)).sum() + y * rand(1)
steps: [repeat: {times: 5, steps: [backward]}]
on_nonfinite: %s
"""
    state = torch.get_rng_state()
    with pytest.warns(HealthWarning, match="`x.grad` is (inf|nan) at "):
        rows = list(runner.execute(compiled(text % "warn")))
    assert torch.equal(state, torch.get_rng_state())
    others = list(runner.execute(compiled(text % "ignore")))
    for row, other in zip(rows, others, strict=True):
        assert all(same(left, right) for left, right in zip(row.values, other.values, strict=True))


# rows that are looked at together, as on a device that would be waited for


def test_a_block_of_rows_tells_the_row_and_the_tensor() -> None:
    at_once, later = stopped(DIVERGES % ""), stopped(DIVERGES % "", defers=True)
    assert later.problem.message == "`f` is not finite (row 3, repeat[3].train)"
    assert (at_once.last.number, later.last.number) == (3, 8)  # found at the end
    assert later.problem.path == "steps"


def test_a_block_ends_after_64_rows() -> None:
    text = DIVERGES.replace("steps: 8", "steps: 500")
    found = stopped(text % "", defers=True)
    assert found.problem.message == "`f` is not finite (row 3, repeat[3].train)"
    assert found.last.number == 65


@pytest.mark.parametrize("log", ["", "log: {every: 1000}"])
def test_a_block_is_bounded_where_rows_are_left_out(log: str) -> None:
    text = DIVERGES.replace("steps: 8", "steps: 5000") % log
    plan = compiled(text)
    state = initial_state(plan)
    with pytest.raises(runner.RunError, match="is not finite"):
        list(runner.execute(plan, state, watch=Watch(plan, state, defers=True)))
    assert state.iterations[0] < 600


def test_a_finite_run_of_all_kinds_of_tensors_passes_in_blocks() -> None:
    text = """\
parameters:
  x: {shape: [2, 3], init: 3e38}
  half: {shape: [3], init: 60000, dtype: float16}
  double: {shape: [2], init: 1e300, dtype: float64}
  none: {shape: [0], init: 1}
  z: {shape: [2], init: {expression: "complex(ones(2), ones(2)) * 3e38"}, dtype: complex64}
expression: f = (x * 1e-38).sum() + (half * 1e-4).sum() + (double * 1e-300).sum() + none.sum() + (z * 1e-38).abs().sum()
metrics: {whole: x * 1, no: none * 1, count: (x > 0).sum(), complex: z * 1}
optimizer: {sgd: {lr: 0.0}}
steps: 3
"""
    for defers in (True, False):
        plan = compiled(text)
        state = initial_state(plan)
        assert len(list(runner.execute(plan, state, watch=Watch(plan, state, defers=defers)))) == 4


@over("defers", [True, False])
@over(
    ("parameter", "rate"),
    [
        ("{shape: [2], init: {expression: 'complex(ones(2), ones(2))'}, dtype: complex64}", 3e38),
        ("{shape: [], init: {expression: 'complex(ones(1), ones(1))[0]'}, dtype: complex64}", 3e38),
        ("{shape: [3], init: 1, dtype: bfloat16}", 3e38),
        ("{shape: [1], init: 1, dtype: bfloat16}", 3e38),
        ("{shape: [2], init: 1, dtype: float16}", 6e4),
        ("{shape: [], init: 1, dtype: float64}", 1e308),
    ],
)
def test_weights_of_every_dtype_are_looked_at(parameter: str, rate: float, defers: bool) -> None:
    text = f"""\
parameters: {{x: {parameter}}}
expression: f = (x * 10).{"real." if "complex" in parameter else ""}sum()
optimizer: {{sgd: {{lr: {rate}}}}}
steps: 1
"""
    found = stopped(text, defers=defers)
    if defers:
        assert found.problem.message == "`x` is not finite (row 1, repeat[1].train)"
    else:
        assert re.match(r"`x` is (nan|-inf|infinite).*, after step 1 of `sgd`", found.problem.message)


@pytest.mark.parametrize("defers", [True, False])
def test_a_checkpoint_is_not_saved_of_what_ends_the_run(defers: bool) -> None:
    text = """\
parameters: {x: [3.0, 4.0]}
expression: f = (x ** 4).sum()
optimizer: {sgd: {lr: 10}}
steps: [{repeat: {times: 8, steps: [train, checkpoint]}}]
"""
    plan = compiled(text)
    state = initial_state(plan)
    watch = Watch(plan, state, defers=defers)
    saved: list[int] = []
    with pytest.raises(runner.RunError, match="`f` is"):
        list(runner.execute(plan, state, checkpoint=lambda tag: saved.append(state.row), watch=watch))
    assert saved == [2, 3]


@pytest.mark.parametrize("logged", ["first", "first, x, k"])
def test_a_weight_is_named_where_a_metric_is_a_part_of_it(logged: str) -> None:
    text = f"""
parameters: {{x: {{shape: [2], init: [-3.0e+38, 2.0]}}, k: 2.0}}
expression: loss = x[0] + (x[1] + k) * 0
metrics: {{first: "x[0]"}}
optimizer: {{adam: {{lr: 3.0e+37}}}}
steps: 2
log: {{include: [{logged}]}}
"""
    with pytest.raises(runner.RunError, match=r"`x` is -inf at \[0\], after step 2 of `adam`"):
        list(runner.execute(compiled(text)))
