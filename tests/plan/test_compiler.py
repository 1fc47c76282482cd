"""A config becomes a plan: resolved, checked, small and large alike."""

from __future__ import annotations

import dataclasses
import sys

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import runner
from runner.errors import EngineError
from runner.plan import PlanLimits
from runner.plan.program.instructions import Action
from runner.plan.tensors import examples
from tests.effort import tried
from tests.engine.running import compiled
from tests.tables import over

TEXT = """\
name: example
seed: 5
dtype: float64
parameters:
  w: {shape: [n, 2], init: normal}
  b: {shape: [2], init: zeros, dtype: float32}
  frozen: {shape: [2], init: ones, requires_grad: false}
constants: {n: 3, x: {shape: [4, n], init: uniform}, table: [0.5, 0.25], many: {shape: [2, 2], init: ones}}
expression: |
  h = x @ w + b
  a = (h * frozen).sum()
  loss = a ** 2 + many.sum() * table[iteration - 1]
metrics: {m: a * 2}
optimizer: {adam: {lr: 0.1}}
steps: [train, backward: a, {forward: h, when: a > 0}]
"""


def test_a_plan_is_resolved() -> None:
    plan = compiled(TEXT)
    assert (plan.name, plan.seed, plan.dtype, plan.device) == ("example", 5, torch.float64, "cpu")
    assert plan.scalars == {"n": 3}
    assert plan.tables == {"table": (0.5, 0.25)}
    assert plan.parameters == ("w", "b", "frozen")
    assert plan.trainable == ("w", "b")
    assert {name: (tensor.role, tensor.shape, tensor.dtype) for name, tensor in plan.tensors.items()} == {
        "w": ("parameter", (3, 2), torch.float64),
        "b": ("parameter", (2,), torch.float32),
        "frozen": ("parameter", (2,), torch.float64),
        "x": ("constant", (4, 3), torch.float64),
        "table": ("constant", (2,), torch.float64),
        "many": ("constant", (2, 2), torch.float64),
    }
    assert plan.objectives == {"loss": ("w", "b"), "a": ("w", "b"), "h": ("w", "b")}
    assert [(column.name, column.role, column.shape, column.dtype) for column in plan.columns] == [
        ("h", "value", (4, 2), torch.float64),
        ("a", "value", (), torch.float64),
        ("loss", "value", (), torch.float64),
        ("m", "value", (), torch.float64),
        ("w", "weight", (3, 2), torch.float64),
        ("w.grad", "gradient", (3, 2), torch.float64),
        ("b", "weight", (2,), torch.float32),
        ("b.grad", "gradient", (2,), torch.float32),
        ("frozen", "weight", (2,), torch.float64),
    ]
    assert [item.path for item in plan.program if isinstance(item, Action)] == ["1.train", "2.backward", "3.forward"]
    assert plan.warnings == ()
    assert not plan.random


def test_a_plan_is_frozen() -> None:
    plan = compiled(TEXT)
    with pytest.raises(dataclasses.FrozenInstanceError, match="seed"):
        plan.seed = 1  # type: ignore[misc]


def test_a_plan_keeps_no_memory_of_examples() -> None:
    plan = compiled(TEXT)
    examples = [node.meta["example"] for node in plan.lowered.graph.nodes if "example" in node.meta]
    assert all(example.is_meta for example in examples if isinstance(example, torch.Tensor))


def test_a_small_plan_needs_no_fake_tensors() -> None:
    compiled(TEXT)
    assert "torch._dynamo" not in sys.modules or "torch._subclasses.fake_tensor" in sys.modules


@pytest.mark.slow
def test_planning_without_memory_gives_the_same_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    real = compiled(TEXT)
    monkeypatch.setattr(examples, "SMALL", 64)
    fake = compiled(TEXT)
    assert fake.columns == real.columns
    assert fake.objectives == real.objectives
    assert fake.tables == real.tables
    assert fake.estimates == real.estimates
    one, other = (list(runner.execute(plan)) for plan in (real, fake))
    for left, right in zip(one, other, strict=True):
        assert all(a is b or torch.equal(a, b) for a, b in zip(left.values, right.values, strict=True))


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
def test_values_too_large_to_compute_while_planning_are_planned_from_their_shapes() -> None:
    plan = compiled("parameters: {x: 1.0}\nexpression: f = (ones(6000, 6000) * x).sum()\nsteps: [backward]\n")
    assert plan.estimates.values > examples.ROOM
    assert plan.lowered.values["f"] is not None


def test_a_shape_that_fake_tensors_do_not_know_is_planned_on_real_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "SMALL", 0)
    plan = compiled("parameters: {x: {shape: [3], init: ones}}\nexpression: f = x[x > 0].sum()\nsteps: [backward]\n")
    assert plan.columns[0].name == "f"


def test_faults_of_a_config_come_before_what_its_engine_cannot_do() -> None:
    text = "engine: compile\nlog: {every: 0}\nparameters: {x: 1.0}\nexpression: f = x * x\n"
    steps = "optimizer: {lbfgs: {lr: 0.1}}\nsteps: [{repeat: {times: 2, steps: [train]}}]\n"
    with pytest.raises(runner.ConfigError, match="expected at least 1, found 0") as caught:
        compiled(text + steps)
    assert type(caught.value) is runner.ConfigError
    with pytest.raises(EngineError, match="lbfgs"):
        compiled(text.replace("log: {every: 0}\n", "") + steps)


def test_a_plan_knows_whether_it_draws_random_numbers() -> None:
    assert compiled("{parameters: {x: 1.0}, expression: 'dropout(x, 0.5)'}").random
    assert compiled("{parameters: {x: 1.0}, expression: x, steps: [backward, assign: {x: 'randn(())'}]}").random
    assert not compiled("{parameters: {x: {shape: [2], init: normal}}, expression: x.sum()}").random


@over(
    ("text", "reached"),
    [
        ("loss = x * y", ("x", "y")),
        ("loss = x * y.detach()", ("x",)),
        ("loss = x * (y > 0)", ("x",)),
        ("loss = x * y.long()", ("x",)),
        ("loss = where(y > 0, x, y)", ("x", "y")),
        ("loss = x + grad(y ** 2, y)", ("x", "y")),
        ("h = y * 2\n  loss = x * 2", ("x",)),
    ],
)
def test_a_plan_knows_which_parameters_reach_an_objective(text: str, reached: tuple[str, ...]) -> None:
    plan = compiled(
        f"parameters: {{x: 1.0, y: 2.0}}\nexpression: |\n  {text}\nsteps: [backward, assign: {{y: y * 1}}]\n"
    )
    assert plan.objectives["loss"] == reached
    (row,) = [row for row in runner.execute(plan) if row.step == "backward"]
    assert tuple(name for name in ("x", "y") if row[f"{name}.grad"] is not None) == reached


def test_shapes_that_depend_on_data_are_told_as_varying() -> None:
    plan = compiled('{parameters: {x: [1.0, -1.0]}, expression: "p = x[x > 0]\\nf = p.sum()"}')
    assert [(column.name, column.shape) for column in plan.columns][:2] == [("p", None), ("f", ())]


@pytest.mark.parametrize("device", ["cuda:63", "mps"])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has mps")
    with pytest.raises(runner.ConfigError, match=f"this machine has no device `{device}`"):
        compiled(f"{{device: {device}, parameters: {{x: 1}}, expression: x}}")


def test_too_many_operations_are_refused() -> None:
    text = "parameters: {x: 1.0}\nexpression: |\n  h = x\n  for i in range(90):\n    h = h * 2 + i\n  f = h\n"
    config = runner.loads(text)
    with pytest.raises(runner.ConfigError, match="more than 100 operations"):
        runner.compile(config, limits=PlanLimits(nodes=100))
    assert runner.compile(config)


def test_a_view_is_counted_as_what_it_shows() -> None:
    with pytest.raises(runner.ConfigError, match=r"the result has shape \(10000000000000,\): 36.4 TiB"):
        compiled("{parameters: {x: 1.0}, expression: 'x + ones(1).expand(10 ** 13).sum()'}")


@settings(max_examples=tried(150), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.text("xyw+-*/@()[]., 0123456789=<>\n:_'\"%abcsumdetrlgn", max_size=40)
    | st.lists(
        st.sampled_from(
            [
                "x",
                "w",
                "+",
                "*",
                "@",
                "(",
                ")",
                "[",
                "]",
                ",",
                "0",
                "2",
                "1e9",
                ".sum()",
                ".T",
                "relu(",
                "sum(",
                "x[0]",
                "=",
                "\n",
                "for i in range(3):\n  ",
                "h",
                "grad(",
                "None",
                "...",
                ":",
                "-1",
                "zeros(",
                "cat([",
                "])",
                "chunk(x, 2)",
                "if",
                "else",
                "and",
                "not ",
                "iteration",
                "training",
                "dim=",
                "float64",
            ]
        ),
        max_size=14,
    ).map("".join)
)
def test_any_text_as_an_expression_gives_a_plan_or_a_config_error(text: str) -> None:
    import yaml

    config = {"parameters": {"x": [1.0, 2.0], "w": {"shape": [2, 2], "init": "ones"}}, "expression": text}
    try:
        plan = runner.compile(runner.loads(yaml.safe_dump(config)))
    except runner.ConfigError:
        return
    assert plan.columns
