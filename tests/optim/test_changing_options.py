"""Any hyperparameter may be an expression of `t`: followed as torch follows its `param_groups`, or refused.

One contract for every option of every optimizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

import runner
from runner.catalogue import installed, optimizers
from runner.optim.classes import optimizer_class
from tests.tables import over

STEPS, CHANGE = 6, 3
CONFIG = """
parameters:
  w: {{shape: [2, 3], init: [[0.5, -1.0, 2.0], [0.1, 0.3, -0.7]]}}
  v: {{shape: [3, 2], init: [[0.5, -1.0], [2.0, 0.1], [0.3, -0.7]]}}
expression: loss = ((w @ v) ** 2).sum() + (w.sin() * 3).sum()
optimizer: {{{kind}: {{{options}}}}}
steps: {steps}
"""
BESIDE = {"nesterov": {"momentum": 0.9}, "dampening": {"momentum": 0.9}}
VALUES = {"bool": (False, True), "float": (0, 0.25), "int": (2, 4)}
VALUES_OF = {
    "beta2_decay": (-0.8, -0.3),
    "d": (1, 2),
    "momentum_decay": (0.001, 0.1),
    "eps": (1e-8, 1e-2),
    "t0": (2, 1000000),
    "lr": (0.001, 0.1),
}


def changing() -> list[Any]:
    """Every option that is one number or truth value, from a lesser value to a greater one and back."""
    found = []
    for kind, optimizer in {kind: installed(entry) for kind, entry in optimizers().items()}.items():
        for argument in optimizer.arguments:
            base = argument.type.split("|")[0]
            if base in VALUES and not (kind == "lbfgs" and argument.name in ("history_size", "max_eval")):
                values = VALUES_OF.get(argument.name, VALUES[base])
                for first, then in (values, values[::-1]):
                    found.append(
                        pytest.param(kind, argument.name, first, then, id=f"{kind}-{argument.name}-{first}-{then}")
                    )
    return found


def by_hand(kind: str, options: Mapping[str, Any], name: str, first: Any, then: Any) -> list[Tensor]:
    """The weights after each step of the loop that writes an option into `param_groups`."""
    w = Parameter(torch.tensor([[0.5, -1.0, 2.0], [0.1, 0.3, -0.7]]))
    v = Parameter(torch.tensor([[0.5, -1.0], [2.0, 0.1], [0.3, -0.7]]))
    optimizer = optimizer_class(optimizers()[kind].class_name)([w, v], **{**options, name: first})
    found = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = ((w @ v) ** 2).sum() + (w.sin() * 3).sum()
        loss.backward()
        return loss

    for t in range(1, STEPS + 1):
        for group in optimizer.param_groups:
            group[name] = first if t < CHANGE else then
        closure()
        optimizer.step(closure) if kind == "lbfgs" else optimizer.step()
        found += [w.detach().clone(), v.detach().clone()]
    return found


def text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


@pytest.mark.slow
@over(("kind", "name", "first", "then"), changing(), split=lambda kind, *_: kind)
def test_an_option_that_changes_is_followed_or_refused(kind: str, name: str, first: Any, then: Any) -> None:
    ascent = {"lr": 1e-3} if (kind, name) == ("lbfgs", "maximize") else {}  # at its default the ascent diverges
    beside = BESIDE.get(name, ascent)
    written = {key: text(value) for key, value in beside.items()} | {name: f'"{first} if t < {CHANGE} else {then}"'}
    options = ", ".join(f"{key}: {value}" for key, value in written.items())
    config = runner.loads(CONFIG.format(kind=kind, options=options, steps=STEPS))
    if name == "initial_accumulator_value":
        with pytest.raises(runner.ConfigError, match="reads `initial_accumulator_value` once, before the first step"):
            runner.compile(config)
        return
    try:
        expected = by_hand(kind, beside, name, first, then)
    except KeyError:
        with pytest.raises(runner.RunError, match=f"`{name}` is on at t = {CHANGE}, and `.*` keeps no `") as caught:
            list(runner.execute(runner.compile(config)))
        assert caught.value.problems[0].path == f"optimizer.{kind}.{name}"
        return
    rows = list(runner.execute(runner.compile(config)))[1:]
    found = [row[weight] for row in rows for weight in ("w", "v")]
    assert all(one is not None and torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_an_option_has_to_be_on_in_the_first_step_of_each_parameter() -> None:
    text = """
parameters: {w: [1.0, 2.0], v: [1.0, 2.0]}
expression: |
  a = (w ** 2).sum()
  loss = a + (v ** 2).sum()
optimizer: {adam: {lr: "0.1 * (t > 1)", amsgrad: "t < 2 or t > 4"}}
steps:
  - repeat: {times: TIMES, steps: [zero_grad, {backward: a}, step]}
  - repeat: {times: 4, steps: [zero_grad, {backward: loss}, step]}
"""
    assert len(list(runner.execute(runner.compile(runner.loads(text.replace("TIMES", "0")))))) == 13
    with pytest.raises(
        runner.RunError, match="`amsgrad` is on at t = 5, and `Adam` keeps no `max_exp_avg_sq`"
    ) as caught:
        list(runner.execute(runner.compile(runner.loads(text.replace("TIMES", "2")))))
    assert (caught.value.problems[0].line, caught.value.problems[0].column) == (
        6,
        text.splitlines()[5].index('"t < 2') + 1,
    )


@pytest.mark.parametrize(
    "optimizer",
    [
        'rmsprop: {momentum: "0.9 * (t > 1000)"}',
        'adam: {amsgrad: "t < 0"}',
        'adam: {fused: "t > 100"}',
        "rmsprop: {momentum: off}",
    ],
)
def test_an_option_that_is_never_on_is_none(optimizer: str) -> None:
    config = f"""
parameters: {{w: {{shape: [3], init: ones, dtype: complex64}}}}
constants: {{off: 0}}
expression: loss = w.abs().sum()
optimizer: {{{optimizer}}}
steps: 5
"""
    assert len(list(runner.execute(runner.compile(runner.loads(config))))) == 6
