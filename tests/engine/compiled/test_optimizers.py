"""Every optimizer that compiles gives what torch.optim gives, over the steps of a region and from one to the next."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

import runner
from runner.engine import initial_state
from runner.engine.compiled import machine_code
from runner.engine.compiled.updates import STEP, Changing, torch_update
from runner.plan.checks.engines.compilable import decides
from tests.engine.compiled.plain import traced, without_compiler
from tests.engine.running import compiled, numbers

STEPS = 12
OPTIONS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "plain": ("SGD", {"lr": 0.1}),
    "momentum": ("SGD", {"lr": 0.1, "momentum": 0.9}),
    "nesterov": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "dampening": ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "maximize": True}),
    "adam": ("Adam", {"lr": 0.05}),
    "amsgrad": ("Adam", {"lr": 0.05, "amsgrad": True, "weight_decay": 0.1, "betas": (0.8, 0.95)}),
    "adamw": ("AdamW", {"lr": 0.05, "weight_decay": 0.1, "maximize": True}),
    "nadam": ("NAdam", {"lr": 0.05, "momentum_decay": 0.01}),
    "decoupled": ("NAdam", {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    "radam": ("RAdam", {"lr": 0.05, "weight_decay": 0.1}),
    "adamax": ("Adamax", {"lr": 0.05, "weight_decay": 0.1}),
    "adagrad": ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.2}),
    "adadelta": ("Adadelta", {"lr": 1.0, "weight_decay": 0.1}),
    "rmsprop": ("RMSprop", {"lr": 0.01}),
    "centered": ("RMSprop", {"lr": 0.01, "centered": True, "momentum": 0.5, "weight_decay": 0.1}),
    "rprop": ("Rprop", {"lr": 0.05}),
    "asgd": ("ASGD", {"lr": 0.05, "lambd": 0.1, "t0": 4.0, "weight_decay": 0.1}),
    "muon": ("Muon", {"lr": 0.05, "weight_decay": 0.1}),
}
"""Each trains parameters of its own, all of them in one step: a matrix and, but for Muon, a number."""

SCHEDULED: Mapping[str, str] = {"momentum": "0.1 / t", "adamw": "0.05 / t", "asgd": "0.05 / t", "adagrad": "0.1 / t"}
"""The learning rates that change."""


def text_of(scheduled: bool) -> str:
    parameters, terms, optimizers = [], [], []
    for name, (kind, options) in OPTIONS.items():
        parameters.append(f"  {name}_w: {{shape: [3, 2], init: normal}}")
        held, factor = f"{name}_*", "1"
        if kind != "Muon":
            parameters.append(f"  {name}_s: 1.5")
            factor = f"{name}_s"
        terms.append(f"(({factor} * tanh(x @ {name}_w) - y) ** 2).mean()")
        given = {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
        if scheduled and name in SCHEDULED:
            given["lr"] = SCHEDULED[name]
        written = ", ".join(f"{key}: {str(value).lower()}" for key, value in given.items())
        optimizers.append(f"  {name}: {{{kind.lower()}: {{{written}}}, parameters: ['{held}']}}")
    return "\n".join(
        [
            "engine: compile\nseed: 3\nparameters:",
            *parameters,
            "constants: {x: {shape: [8, 3], init: normal}, y: {shape: [8, 2], init: normal}}",
            "expression: |\n  loss = " + " + ".join(terms),
            "optimizers:",
            *optimizers,
            f"steps: {STEPS}\nlog: {{state: true}}\n",
        ]
    )


def by_hand(name: str, plan: runner.Plan, scheduled: bool) -> list[dict[str, Tensor]]:
    """The steps of one optimizer with `torch.optim`: weights and state after each."""
    state = initial_state(plan)
    x, y = state.constants["x"], state.constants["y"]
    kind, options = OPTIONS[name]
    p = {key: Parameter(value.detach()) for key, value in state.parameters.items() if key.startswith(f"{name}_")}
    optimizer = getattr(torch.optim, kind)(list(p.values()), **options)
    rows = []
    for t in range(1, STEPS + 1):
        if scheduled and name in SCHEDULED:
            optimizer.param_groups[0]["lr"] = float(SCHEDULED[name].partition("/")[0]) / t
        optimizer.zero_grad()
        ((p.get(f"{name}_s", torch.tensor(1)) * torch.tanh(x @ p[f"{name}_w"]) - y) ** 2).mean().backward()
        optimizer.step()
        row = {key: value.detach().clone() for key, value in p.items()}
        for key, value in p.items():
            kept = {entry: found for entry, found in optimizer.state[value].items() if found is not None}
            row |= {f"{key}.{entry}": found.clone() for entry, found in kept.items()}
        rows.append(row)
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("scheduled", [False, True], ids=["constant rates", "changing rates"])
def test_optimizers_agree_with_torch(scheduled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    without_compiler(monkeypatch)
    agree(scheduled, monkeypatch)


@pytest.mark.slow
def test_the_compiler_takes_every_optimizer(monkeypatch: pytest.MonkeyPatch) -> None:
    traced(monkeypatch)
    agree(True, monkeypatch)


def agree(scheduled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold every optimizer to torch's."""
    monkeypatch.setattr(machine_code, "LONGEST", 5)
    plan = compiled(text_of(scheduled))
    found = [numbers(row) for row in runner.execute(plan)][1:]
    assert len(found) == STEPS
    for name in OPTIONS:
        for place, wanted in enumerate(by_hand(name, plan, scheduled)):
            assert len(wanted) >= 1
            for key, value in wanted.items():
                where = f"{key} after step {place + 1}"
                rtol, atol = (1e-3, 1e-3) if name == "muon" else (6.5e-6, 1e-6)  # Muon computes in bfloat16
                torch.testing.assert_close(
                    found[place][key], value, rtol=rtol, atol=atol, msg=lambda told, where=where: f"{where}: {told}"
                )


SCHEDULABLE = [
    (kind, option)
    for kind in sorted({kind for kind, _ in OPTIONS.values()})
    for option, told in inspect.signature(getattr(torch.optim, kind)).parameters.items()
    if isinstance(told.default, (int, float)) and not isinstance(told.default, bool)
]


def after_a_step(kind: str) -> tuple[Parameter, dict[str, Any], dict[str, Tensor]]:
    """A weight with its gradient, after one step of a class of torch: the options of its group, and its state."""
    weight = Parameter(torch.ones(3, 3))
    weight.grad = torch.ones(3, 3)
    used = {name: 0.5 for name in ("momentum", "weight_decay", "dampening") if (kind, name) in SCHEDULABLE}
    optimizer = getattr(torch.optim, kind)([weight], **used)
    optimizer.step()
    options, state = dict(optimizer.param_groups[0]), optimizer.state[weight]
    options.pop("params")
    entries = {name: torch.as_tensor(value) for name, value in state.items() if value is not None and name != STEP}
    return weight, options, entries


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "option"), SCHEDULABLE)
def test_what_may_change_is_what_the_compiler_takes_as_a_tensor(kind: str, option: str) -> None:
    weight, options, entries = after_a_step(kind)
    update = torch_update(kind, options, [Changing(option, None)])
    one = torch.ones((), dtype=torch.float64)
    torch.compiler.reset()
    traced = torch.compile(update, fullgraph=True, backend="eager")

    def take() -> None:
        traced([weight.detach()], [weight.grad], [entries], [one], [one * options[option]])

    if decides(kind.lower(), option):
        with pytest.raises(torch._dynamo.exc.Unsupported, match="Data-dependent branching"):
            take()
    else:
        take()
