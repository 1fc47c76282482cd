"""Any small config gives, row for row and bit for bit, what a naive interpreter of the language gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import Parameter

import runner
from tests.engine.running import numbers, same

NAMES = ("a", "b", "c")

# An expression is a tree: a name, a number, or (operation, …); it is written out for the config and computed here.


def text_of(tree: Any) -> str:
    match tree:
        case str() | float():
            return str(tree)
        case (("+" | "-" | "*") as sign, left, right):
            return f"({text_of(left)} {sign} {text_of(right)})"
        case (name, inner):
            return f"{name}({text_of(inner)})"
    raise AssertionError(tree)


def value_of(tree: Any, names: dict[str, Any]) -> Any:
    match tree:
        case str():
            return names[tree]
        case float():
            return tree
        case ("+", left, right):
            return value_of(left, names) + value_of(right, names)
        case ("-", left, right):
            return value_of(left, names) - value_of(right, names)
        case ("*", left, right):
            return value_of(left, names) * value_of(right, names)
        case ("tanh", inner):
            return torch.tanh(value_of(inner, names))
        case ("sin", inner):
            return torch.sin(value_of(inner, names))
        case ("square", inner):
            return torch.square(value_of(inner, names))
        case ("mean", inner):
            return torch.mean(value_of(inner, names))
    raise AssertionError(tree)


LEAVES = st.sampled_from(NAMES)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.tuples(st.sampled_from("+-*"), inner, inner | st.sampled_from([0.5, 2.0, -1.0]))
        | st.tuples(st.sampled_from(["tanh", "sin"]), inner)
    ),
    max_leaves=5,
)

STEPS: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from(
        [
            "backward",
            "forward",
            "step",
            "zero_grad",
            "train",
            {"zero_grad": {"set_to_none": False}},
            {"backward": "h"},
            {"forward": "h"},
            {"backward": {"parameters": ["a"]}},
            {"train": {"optimizer": "one"}},
            {"train": {"accumulate": 3, "clip_grad_norm": 0.5}},
            {"train": {"objective": "h"}},
            {"step": "two"},
            {"clip_grad_norm": 0.25},
            {"clip_grad_value": 0.125},
            {"assign": {"a": "b", "b": "a"}},
            {"assign": {"c": "c * 0.5 + iteration"}},
            {"train": None, "every": 2},
            {"backward": None, "when": "iteration > 1"},
            {"train": None, "when": "a.sum() < b.sum()"},
            "stop",
            {"stop": None, "when": "iteration == 2"},
        ]
    ),
    lambda inner: st.builds(
        lambda times, steps: {"repeat": {"times": times, "steps": steps}},
        st.integers(0, 3),
        st.lists(inner, min_size=1, max_size=4),
    ),
    max_leaves=8,
)


def outside(step: Any) -> Any:
    """A step as it may stand outside a loop."""
    key = step if isinstance(step, str) else next(iter(step))
    if key == "stop" or (isinstance(step, dict) and "every" in step):
        return "backward"
    return step


class Stop(Exception):
    pass


@dataclass
class Interpreter:
    """The language, said in torch as plainly as possible."""

    weights: dict[str, Parameter]
    inner: Any
    one: torch.optim.Optimizer
    two: torch.optim.Optimizer
    held: dict[str, list[str]]
    rows: list[tuple[str, int, dict[str, Tensor | None]]] = field(default_factory=list)

    def compute(self, objective: str | None) -> tuple[Tensor, dict[str, Tensor]]:
        h = torch.mean(torch.tanh(value_of(self.inner, dict(self.weights))))
        if objective == "h":
            return h, {"h": h}
        loss = torch.square(h) + torch.mean(self.weights["a"] * self.weights["b"]) + torch.mean(self.weights["c"])
        return loss, {"h": h, "loss": loss}

    def row(self, step: str, iteration: int, values: dict[str, Any] | None = None) -> None:
        shown: dict[str, Tensor | None] = {"h": None, "loss": None}
        shown |= {name: value.detach().clone() for name, value in (values or {}).items()}
        for name, weight in self.weights.items():
            shown[name] = weight.detach().clone()
            shown[f"{name}.grad"] = None if weight.grad is None else weight.grad.clone()
        self.rows.append((step, iteration, shown))

    def run(self, steps: list[Any], iteration: int = 1, loop: bool = False) -> None:
        for step in steps:
            written = {step: None} if isinstance(step, str) else step
            key, argument = next(iter(written.items()))
            if "every" in written and iteration % written["every"]:
                continue
            if written.get("when") == "iteration > 1" and not iteration > 1:
                continue
            if written.get("when") == "iteration == 2" and iteration != 2:
                continue
            if written.get("when") == "a.sum() < b.sum()" and not self.weights["a"].sum() < self.weights["b"].sum():
                continue
            if key == "stop":
                raise Stop
            getattr(self, f"do_{key}")(argument, iteration)

    def do_repeat(self, argument: Any, iteration: int) -> None:
        try:
            for inner in range(1, argument["times"] + 1):
                self.run(argument["steps"], inner, True)
        except Stop:
            pass

    def do_forward(self, argument: Any, iteration: int) -> None:
        with torch.no_grad():
            _, values = self.compute(argument)
        self.row("forward", iteration, values)

    def do_backward(self, argument: Any, iteration: int) -> None:
        inputs = [self.weights["a"]] if isinstance(argument, dict) else None
        objective, values = self.compute(argument if isinstance(argument, str) else None)
        objective.backward(inputs=inputs)
        self.row("backward", iteration, values)

    def do_step(self, argument: Any, iteration: int) -> None:
        if argument != "two":
            self.one.step()
        self.two.step()
        self.row("step", iteration)

    def do_zero_grad(self, argument: Any, iteration: int) -> None:
        for optimizer in (self.one, self.two):
            optimizer.zero_grad(set_to_none=argument is None)
        self.row("zero_grad", iteration)

    def do_train(self, argument: Any, iteration: int) -> None:
        argument = argument or {}
        named = "optimizer" in argument
        inputs = [self.weights[name] for name in self.held["one"]] if named else None
        for weight in inputs or self.weights.values():
            weight.grad = None
        times, losses = argument.get("accumulate", 1), []
        for _ in range(times):
            objective, values = self.compute(argument.get("objective"))
            (objective / times).backward(inputs=inputs)
            losses.append(objective.detach())
        values["h" if argument.get("objective") else "loss"] = sum(losses[1:], losses[0]) / times
        if "clip_grad_norm" in argument:
            torch.nn.utils.clip_grad_norm_(list(self.weights.values()), argument["clip_grad_norm"])
        self.one.step()
        if not named:
            self.two.step()
        self.row("train", iteration, values)

    def do_clip_grad_norm(self, argument: float, iteration: int) -> None:
        torch.nn.utils.clip_grad_norm_(list(self.weights.values()), argument)
        self.row("clip_grad_norm", iteration)

    def do_clip_grad_value(self, argument: float, iteration: int) -> None:
        if any(weight.grad is not None for weight in self.weights.values()):
            torch.nn.utils.clip_grad_value_(list(self.weights.values()), argument)
        self.row("clip_grad_value", iteration)

    def do_assign(self, argument: Any, iteration: int) -> None:
        with torch.no_grad():
            old = {name: weight.detach().clone() for name, weight in self.weights.items()}
            if "a" in argument:
                self.weights["a"].copy_(old["b"])
                self.weights["b"].copy_(old["a"])
            else:
                self.weights["c"].copy_(old["c"] * 0.5 + iteration)
        self.row("assign", iteration)


OPTIMIZERS = st.sampled_from(
    [
        ("sgd", torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
        ("adam", torch.optim.Adam, {"lr": 0.05}),
        ("rprop", torch.optim.Rprop, {"lr": 0.1}),
    ]
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    tree=TREES,
    steps=st.lists(STEPS, min_size=1, max_size=6),
    shape=st.sampled_from([[], [1], [3], [2, 2]]),
    dtype=st.sampled_from(["float32", "float64"]),
    first=OPTIMIZERS,
    second=OPTIMIZERS,
    data=st.integers(0, 1000),
)
def test_any_small_config_is_what_a_naive_interpreter_gives(
    tree: Any, steps: list[Any], shape: list[int], dtype: str, first: Any, second: Any, data: int
) -> None:
    steps = ["forward", *map(outside, steps)]
    values = torch.rand([3, *shape], generator=torch.Generator().manual_seed(data), dtype=torch.float64)
    values = values.to(getattr(torch, dtype))
    config = {
        "dtype": dtype,
        "parameters": {
            name: {"shape": shape, "init": value.tolist()} for name, value in zip(NAMES, values, strict=True)
        },
        "expression": f"h = mean(tanh({text_of(tree)}))\nloss = square(h) + mean(a * b) + mean(c)\n",
        "optimizers": {
            "one": {first[0]: first[2], "parameters": ["a", "b"]},
            "two": {second[0]: second[2], "parameters": ["c"]},
        },
        "steps": steps,
    }
    text = yaml.safe_dump(config, sort_keys=False)
    try:
        plan = runner.compile(runner.loads(text))
    except runner.ConfigError as error:
        known = ("does not depend on", "needs one element", "no trainable parameter reaches")
        if not all(any(reason in problem.message for reason in known) for problem in error.problems):
            raise
        return
    rows = list(runner.execute(plan))
    weights = {name: Parameter(value.clone()) for name, value in zip(NAMES, values, strict=True)}
    interpreter = Interpreter(
        weights,
        tree,
        first[1]([weights["a"], weights["b"]], **first[2]),
        second[1]([weights["c"]], **second[2]),
        {"one": ["a", "b"], "two": ["c"]},
    )
    interpreter.run(steps)
    assert [(row.step, row.iteration) for row in rows[1:]] == [
        (step, iteration) for step, iteration, _ in interpreter.rows
    ]
    for row, (step, _, wanted) in zip(rows[1:], interpreter.rows, strict=True):
        found = numbers(row)
        wrong = [name for name in found if name in wanted and not same(found[name], wanted[name])]
        assert not wrong, f"{row.path} ({step}): {[(name, found[name], wanted[name]) for name in wrong]}"
