"""`autocast` and the loss scaler, against the same loop written by hand in torch."""
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import mse_loss

import runner
from runner.compare.gradients.check import check_gradients, in_double_precision
from runner.engine import initial_state
from runner.engine.eager import execute
from runner.record.checkpoints.state import Forged, check_state
from runner.record.checkpoints.store import restore_state, state_contents
from tests.engine.running import compiled, numbers, rows_of, same

MODEL = """
seed: 1
parameters: {w: {shape: [4, 8], init: normal}, v: {shape: [8, 1], init: normal}}
constants: {x: {shape: [16, 4], init: normal}, y: {shape: [16, 1], init: normal}}
expression: |
  h = relu(x @ w)
  p = h @ v
  q = (x @ w).mean()
  loss = mse_loss(p, y) + 0.1 * q
"""
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Hand:
    """The model by hand, at the initial values of a run."""

    def __init__(self, text: str, dtype: str) -> None:
        plan = compiled(text)
        state = initial_state(plan)
        self.rows = list(runner.execute(plan))
        self.w, self.v = (Parameter(state.parameters[name].detach().clone()) for name in ("w", "v"))
        self.x, self.y = state.constants["x"], state.constants["y"]
        self.dtype = DTYPES[dtype]

    def forward(self) -> dict[str, Tensor]:
        with torch.autocast("cpu", dtype=self.dtype):
            h = torch.relu(self.x @ self.w)
            p = h @ self.v
            q = (self.x @ self.w).mean()
            return {"h": h, "p": p, "q": q, "loss": mse_loss(p, self.y) + 0.1 * q}

    def check(self, row: runner.Row, values: dict[str, Tensor]) -> None:
        for name, value in {**values, "w": self.w, "v": self.v}.items():
            assert same(row[name], value.detach()), (row, name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_expression_runs_under_autocast_and_its_backward_outside(dtype: str) -> None:
    text = f"{MODEL}autocast: {dtype}\noptimizer: {{adam: {{lr: 0.1}}}}\nsteps: 6\n"
    hand = Hand(text, dtype)
    optimizer = torch.optim.Adam([hand.w, hand.v], lr=0.1)
    for row in hand.rows[1:]:
        optimizer.zero_grad()
        values = hand.forward()
        values["loss"].backward()
        optimizer.step()
        hand.check(row, values)
        assert same(row["w.grad"], hand.w.grad)
    assert hand.rows[1]["h"].dtype == DTYPES[dtype]  # type: ignore[union-attr]
    plain = rows_of(text.replace(f"autocast: {dtype}\n", ""))
    assert not same(plain[1]["loss"], hand.rows[1]["loss"])


def test_every_way_to_run_an_expression_is_under_autocast() -> None:
    steps = "steps: [forward, backward, {clip_grad_norm: 0.5}, step, zero_grad, {train: {accumulate: 2}}]\n"
    text = f"{MODEL}autocast: bfloat16\noptimizer: {{sgd: {{lr: 0.1}}}}\n{steps}"
    hand = Hand(text, "bfloat16")
    optimizer = torch.optim.SGD([hand.w, hand.v], lr=0.1)
    hand.check(hand.rows[1], hand.forward())
    values = hand.forward()
    values["loss"].backward()
    hand.check(hand.rows[2], values)
    torch.nn.utils.clip_grad_norm_([hand.w, hand.v], 0.5)
    optimizer.step()
    hand.check(hand.rows[4], {})
    optimizer.zero_grad()
    for _ in range(2):
        values = hand.forward()
        (values["loss"] / 2).backward()
    optimizer.step()
    hand.check(hand.rows[6], {})


def test_lbfgs_evaluates_under_autocast() -> None:
    text = f"{MODEL}autocast: bfloat16\noptimizer: {{lbfgs: {{lr: 0.1, max_iter: 3}}}}\nsteps: 3\n"
    hand = Hand(text, "bfloat16")
    optimizer = torch.optim.LBFGS([hand.w, hand.v], lr=0.1, max_iter=3)
    for row in hand.rows[1:]:

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = hand.forward()["loss"]
            loss.backward()
            return loss

        optimizer.step(closure)
        hand.check(row, {})


def test_metrics_and_assign_are_not_under_autocast() -> None:
    text = f"""{MODEL}metrics: {{whole: (x @ w).mean(), error: (p.float() - y).abs().mean()}}
autocast: bfloat16
optimizer: {{sgd: {{lr: 0.1}}}}
steps: [train, {{assign: {{w: w * 2 + (x.T @ x @ w) * 0}}}}, {{expect: {{(x @ w).sum(): (x @ w).sum()}}}}]
"""
    hand = Hand(text, "bfloat16")
    row = hand.rows[1]
    values = hand.forward()
    assert same(row["whole"], (hand.x @ hand.w).mean().detach())
    assert same(row["error"], (values["p"].float() - hand.y).abs().mean().detach())
    trained = row["w"]
    assert trained is not None
    assert same(hand.rows[2]["w"], trained * 2 + (hand.x.T @ hand.x @ trained) * 0)


def test_objectives_are_under_autocast() -> None:
    text = """
seed: 2
autocast: bfloat16
parameters: {w: {shape: [3, 3], init: normal}}
constants: {x: {shape: [5, 3], init: normal}}
expression: h = x @ w
objectives: {loss: {sum: "(h @ w).square()", over: "(x @ x.T).abs()"}}
optimizer: {sgd: {lr: 0.1}}
steps: 2
"""
    plan = compiled(text)
    state = initial_state(plan)
    w, x = Parameter(state.parameters["w"].detach().clone()), state.constants["x"]
    optimizer = torch.optim.SGD([w], lr=0.1)
    for row in list(runner.execute(plan))[1:]:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            h = x @ w
            loss = (h @ w).square().sum() / (x @ x.T).abs().sum()
        loss.backward()
        optimizer.step()
        assert same(row["loss"], loss.detach())
        assert same(row["w"], w.detach())


def test_derivatives_within_the_expression_are_under_autocast() -> None:
    text = """
seed: 2
autocast: bfloat16
parameters: {w: {shape: [3, 3], init: normal}, u: {shape: [3], init: normal}}
expression: |
  f = (tanh(w @ u) ** 2).sum()
  g = grad(f, u)
  loss = (g ** 2).sum() + f
optimizer: {sgd: {lr: 0.1}}
steps: 3
"""
    plan = compiled(text)
    state = initial_state(plan)
    w, u = (Parameter(state.parameters[name].detach().clone()) for name in ("w", "u"))
    optimizer = torch.optim.SGD([w, u], lr=0.1)
    for row in list(runner.execute(plan))[1:]:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            f = (torch.tanh(w @ u) ** 2).sum()
            (g,) = torch.autograd.grad(f, u, create_graph=True)
            loss = (g**2).sum() + f
        loss.backward()
        optimizer.step()
        assert same(row["w"], w.detach())
        assert same(row["u"], u.detach())
        assert same(row["g"], g.detach())


def test_evaluate_is_under_autocast_whatever_the_batches(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("x,y\n" + "".join(f"{n / 7},{n * n / 50}\n" for n in range(11)))
    text = """
autocast: bfloat16
parameters: {w: {shape: [1, 4], init: ones}, v: {shape: [4], init: ones}}
data: {s: {file: s.csv, columns: {x: [x], y: y}BATCH}}
expression: |
  p = (x @ w) @ v
  loss = mse_loss(p, y)
metrics: {off: (p - y).abs().mean()}
steps: [{evaluate: s}]
"""
    whole = rows_of(text.replace("BATCH", ""), tmp_path)[1]
    batched = rows_of(text.replace("BATCH", ", batch_size: 4"), tmp_path)[1]
    x = torch.tensor([[n / 7] for n in range(11)], dtype=torch.float64).float()
    y = torch.tensor([n * n / 50 for n in range(11)], dtype=torch.float64).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        p = (x @ torch.ones(1, 4)) @ torch.ones(4)
        loss = mse_loss(p, y)
    assert same(whole["s.loss"], loss)
    torch.testing.assert_close(batched["s.loss"], loss, rtol=1e-6, atol=0)
    torch.testing.assert_close(batched["s.off"], (p - y).abs().mean(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("size", [40, 6_000])
def test_planning_knows_the_dtypes_under_autocast(size: int) -> None:
    """The larger config is planned with fake tensors."""
    plan = compiled(
        f"""
autocast: bfloat16
parameters: {{w: {{shape: [{size}, {size}], init: zeros}}}}
expression: |
  h = w @ w
  loss = mse_loss(h, w)
  s = softmax(h, 0)
  objective = loss + s.sum() * 0
log: {{tensors: digest}}
"""
    )
    dtypes = {column.name: column.dtype for column in plan.columns}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        w = torch.zeros(2, 2)
        h = w @ w
        loss, s = mse_loss(h, w), torch.softmax(h, 0)
    assert (dtypes["h"], dtypes["loss"], dtypes["s"]) == (h.dtype, loss.dtype, s.dtype)
    assert (h.dtype, loss.dtype) == (torch.bfloat16, torch.float32)


def test_a_costly_operation_is_inferred_in_its_dtype() -> None:
    plan = compiled(
        "autocast: bfloat16\nparameters: {w: {shape: [1600, 1600], init: zeros}}\n"
        "expression: |\n  h = w @ w\n  f = h.mean()\nlog: {tensors: digest}\n"
    )
    assert {column.name: column.dtype for column in plan.columns}["h"] == torch.bfloat16


def test_a_value_that_is_not_finite_is_found_where_autocast_made_it() -> None:
    text = """parameters: {w: [[300.0, 300.0]]}
autocast: float16
expression: |
  h = w @ w.T
  f = h.sum()
optimizer: {sgd: {lr: 0.1}}
steps: 1
"""
    with pytest.raises(runner.RunError, match=r"`w @ w.T` gives inf, from finite values|inf") as caught:
        rows_of(text)
    assert caught.value.problems[0].line == 4
    assert rows_of(text.replace("autocast: float16\n", ""))


def test_an_autocast_that_changes_nothing_is_a_warning() -> None:
    plan = compiled(f"dtype: float64\n{MODEL}autocast: bfloat16\noptimizer: {{sgd: {{lr: 0.1}}}}\nsteps: 1\n")
    (problem,) = plan.warnings
    assert (problem.line, problem.column, problem.path) == (11, 11, "autocast")
    assert problem.message == "`autocast` leaves float64 and complex tensors as they are, and there are no others"
    assert problem.hint == "write `dtype: float32`, or remove `autocast`"


def test_gradients_are_checked_without_autocast() -> None:
    config = runner.loads(f"{MODEL}autocast: bfloat16\noptimizer: {{sgd: {{lr: 0.1}}}}\nsteps: 1\n")
    assert in_double_precision(config)[0] == "~autocast"
    text = f"{MODEL}optimizer: {{sgd: {{lr: 0.1}}}}\nsteps: 1\ndtype: float64\n"
    assert all(report.holds for report in check_gradients(compiled(text)))


SCALED = """autocast: {dtype: float16, loss_scale: {init_scale: 1e7, growth_interval: 3}}
optimizers: {a: {adam: {lr: 0.1}, parameters: [w]}, b: {sgd: {lr: 0.01}, parameters: [v]}}
"""


@pytest.mark.parametrize("clip", [True, False])
def test_a_loss_scaler_is_torchs(clip: bool) -> None:
    train = "{train: {clip_grad_norm: 1.0}}" if clip else "train"
    hand = Hand(f"{MODEL}{SCALED}steps: [{{repeat: {{times: 20, steps: [{train}]}}}}]\n", "float16")
    optimizers = [torch.optim.Adam([hand.w], lr=0.1), torch.optim.SGD([hand.v], lr=0.01)]
    scaler = torch.amp.GradScaler("cpu", init_scale=1e7, growth_interval=3)
    skipped = 0
    for row in hand.rows[1:]:
        assert row["loss_scale"] == scaler.get_scale()
        before = hand.w.detach().clone()
        for optimizer in optimizers:
            optimizer.zero_grad()
        values = hand.forward()
        scaler.scale(values["loss"]).backward()
        for optimizer in optimizers:
            scaler.unscale_(optimizer)
        if clip:
            torch.nn.utils.clip_grad_norm_([hand.w, hand.v], 1.0)
        for optimizer in optimizers:
            scaler.step(optimizer)
        scaler.update()
        skipped += torch.equal(before, hand.w)
        hand.check(row, values)
        assert same(row["w.grad"], hand.w.grad)
    assert 5 < skipped < 15


def test_the_defaults_of_the_loss_scaler_are_torchs() -> None:
    import inspect

    from runner.config.models import LossScale

    torchs = inspect.signature(torch.amp.GradScaler).parameters
    own = {name: field.default for name, field in LossScale.model_fields.items()}
    assert own == {name: torchs[name].default for name in own}


def test_a_loss_scaler_accumulates_and_takes_rules() -> None:
    text = f"""{MODEL}autocast: {{dtype: float16, loss_scale: {{init_scale: 1e6}}}}
optimizer: {{rule: {{update: param = param - 0.01 * grad}}}}
steps: [{{repeat: {{times: 12, steps: [{{train: {{accumulate: 2}}}}]}}}}]
"""
    hand = Hand(text, "float16")
    scaler = torch.amp.GradScaler("cpu", init_scale=1e6)
    optimizer = torch.optim.SGD([hand.w, hand.v], lr=0.01)
    for row in hand.rows[1:]:
        optimizer.zero_grad()
        assert row["loss_scale"] == scaler.get_scale()
        for _ in range(2):
            values = hand.forward()
            (scaler.scale(values["loss"]) / 2).backward()
        scaler.step(optimizer)
        scaler.update()
        torch.testing.assert_close(row["w"], hand.w.detach(), rtol=1e-6, atol=1e-7)


def _saved(text: str) -> Iterator[tuple[runner.Plan, runner.Row, Any]]:
    import io

    plan = compiled(text)
    state = initial_state(plan)
    for row in execute(plan, state):
        file = io.BytesIO()
        torch.save(state_contents(plan, state), file)
        file.seek(0)
        yield plan, row, torch.load(file, weights_only=True)


def test_a_run_with_a_loss_scaler_goes_on_from_every_row_in_the_same_bits() -> None:
    saved = list(_saved(f"{MODEL}{SCALED}steps: 15\n"))
    for number, (plan, _, contents) in enumerate(saved):
        again = initial_state(plan)
        check_state(plan, again, contents)
        again = initial_state(plan)
        restore_state(again, contents, "cpu")
        for row, (_, expected, _) in zip(execute(plan, again), saved[number + 1 :], strict=True):
            assert all(same(value, numbers(expected)[name]) for name, value in numbers(row).items())


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda scale, growth: [], "`loss_scale` is not a list of two tensors"),
        (lambda scale, growth: [1.0, growth], "the scale of the objective is not a tensor of float32"),
        (lambda scale, growth: [scale, scale], "the count of the loss scaler is not a tensor of int32"),
    ],
)
def test_a_forged_loss_scale_is_refused(wrong: Callable[[Any, Any], Any], match: str) -> None:
    plan, _, contents = next(_saved(f"{MODEL}{SCALED}steps: 2\n"))
    with pytest.raises(Forged, match=match):
        check_state(plan, initial_state(plan), {**contents, "loss_scale": wrong(*contents["loss_scale"])})
