"""The steps of a small config, taken by hand with torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Parameter

from tests.engine.running import Numbers, copied

TWO = """\
parameters: {a: [1.5, -2.0], b: [0.25, 3.0]}
constants: {c: [0.1, 0.7]}
expression: |
  h = a * b + c
  loss = (h ** 2).sum()
"""
"""Two parameters, a value on the way, and an objective."""


class Hand:
    """`TWO` by hand."""

    def __init__(self) -> None:
        self.a = Parameter(torch.tensor([1.5, -2.0]))
        self.b = Parameter(torch.tensor([0.25, 3.0]))
        self.c = torch.tensor([0.1, 0.7])
        self.values: dict[str, Tensor] = {}

    def loss(self) -> Tensor:
        h = self.a * self.b + self.c
        loss = (h**2).sum()
        self.values = {"h": h, "loss": loss}
        return loss

    def row(self, step: str, *, values: bool = False, **others: Tensor) -> tuple[str, Numbers]:
        shown: dict[str, Tensor | None] = {"h": None, "loss": None}
        shown |= {name: copied(value) for name, value in (self.values if values else {}).items()}
        for name, weight in (("a", self.a), ("b", self.b)):
            shown[name] = copied(weight)
            shown[f"{name}.grad"] = copied(weight.grad)
        return step, {**shown, **others}


SEVERAL = """\
optimizers:
  one: {sgd: {lr: 0.1, momentum: 0.9}, parameters: [a]}
  two: {adam: {lr: 0.2}, parameters: [b]}
"""


def optimizers_of(hand: Hand) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    return torch.optim.SGD([hand.a], lr=0.1, momentum=0.9), torch.optim.Adam([hand.b], lr=0.2)


def seed_of(number: int) -> int:
    from runner.plan.streams import stream_seed

    return stream_seed(5, "expression", "", number)


NOISY = """\
seed: 5
parameters: {w: [1.0, 2.0, 3.0, 4.0]}
expression: |
  h = dropout(w * 2, 0.5)
  loss = (h ** 2).mean()
optimizer: {sgd: {lr: 0.1}}
"""
