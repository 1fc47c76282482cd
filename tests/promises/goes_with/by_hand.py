"""The model of every capability, written by hand in torch: its numbers are what a run is compared with."""
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy
import torch
from torch import Tensor
from torch.nn import Parameter

from runner.engine.data.orders import order
from runner.plan.streams import stream_seed

SEED = 3
SAMPLES, INPUTS, BATCH = 4000, 20, 800
VALID = 60

Batch = tuple[Tensor, Tensor]
Clip = Callable[[Sequence[Tensor]], object]


def arrays() -> dict[str, numpy.ndarray]:
    """The files of a config: samples to train on, and others to evaluate."""
    random = numpy.random.default_rng(0)
    return {
        "x": random.normal(size=(SAMPLES, INPUTS)).astype("float32"),
        "y": random.normal(size=(SAMPLES, 2)).astype("float32"),
        "x_valid": random.normal(size=(VALID, INPUTS)).astype("float32"),
        "y_valid": random.normal(size=(VALID, 2)).astype("float32"),
    }


def weights() -> dict[str, numpy.ndarray]:
    """The initial weights."""
    random = numpy.random.default_rng(1)
    return {"w": (random.normal(size=(INPUTS, 2)) / 4).round(4), "b": numpy.array([0.125, -0.25])}


def default_objective(hand: Hand, x: Tensor, y: Tensor) -> Tensor:
    return (hand.hidden(x) - y).abs().square().mean()


@dataclass
class Hand:
    """A model and its optimizers, and what was measured of it so far."""

    dtype: torch.dtype = torch.float32  # of data
    of_weights: torch.dtype = torch.float32
    random: bool = False
    objective: Callable[[Hand, Tensor, Tensor], Tensor] = default_objective
    autocast: bool = False
    evaluations: int = 0
    training: bool = True
    iteration: int = 1
    others: dict[str, Tensor] = field(default_factory=dict)
    measured: list[Tensor] = field(default_factory=list)
    parameters: dict[str, Parameter] = field(default_factory=dict)
    optimizers: list[torch.optim.Optimizer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.parameters = {
            name: Parameter(torch.tensor(each, dtype=self.of_weights)) for name, each in weights().items()
        }
        made = {name: torch.from_numpy(each).to(self.dtype) for name, each in arrays().items()}
        self.x, self.y, self.valid = made["x"], made["y"], (made["x_valid"], made["y_valid"])

    @property
    def w(self) -> Parameter:
        return self.parameters["w"]

    @property
    def b(self) -> Parameter:
        return self.parameters["b"]

    def hidden(self, x: Tensor) -> Tensor:
        if self.of_weights.is_complex:
            x = x.to(self.of_weights)
        made = torch.tanh(x @ self.w + self.b)
        if not self.random:
            return made
        return made * torch.nn.functional.dropout(torch.ones(2, dtype=self.dtype), 0.25, self.training)

    def batches(self, passes: int = 1, shuffled: bool = False, begin: int = 0, end: int = SAMPLES) -> Iterator[Batch]:
        """The batches of `train`, in the order of the file or as shuffled."""
        for number in range(1, passes + 1):
            rows = order(SEED, "train", number, SAMPLES) if shuffled else torch.arange(begin, end)
            for chosen in rows.split(BATCH):
                yield self.x[chosen], self.y[chosen]

    def value(self, batch: Batch, seed: int | None = None) -> Tensor:
        """The objective of a batch, as one more evaluation of the run."""
        if seed is None:
            self.evaluations += 1
            seed = self.evaluations
        torch.manual_seed(stream_seed(SEED, "expression", "", seed))
        with torch.autocast("cpu", dtype=torch.bfloat16) if self.autocast else nullcontext():
            return self.objective(self, *batch)

    def backward(self, batch: Batch, scale: float | None = None) -> Tensor:
        loss = self.value(batch)
        (loss if scale is None else loss * scale).backward()
        return loss.detach()

    def train(self, batch: Batch, clip: Clip | None = None) -> None:
        """One training step, measured."""
        if isinstance(self.optimizers[0], torch.optim.LBFGS):
            return self._search(batch)
        self.zero_grad()
        self.measured.append(self.backward(batch))
        if clip is not None:
            clip(list(self.parameters.values()))
        return self.step(batch)

    def _search(self, batch: Batch) -> None:
        self.evaluations += 1
        found: list[Tensor] = []
        self.optimizers[0].step(self._again(batch, found))
        self.measured.append(found[0].detach())

    def zero_grad(self) -> None:
        for each in self.parameters.values():
            each.grad = None

    def step(self, batch: Batch) -> None:
        """One step of each optimizer; that of L-BFGS evaluates the objective of `batch` again."""
        for optimizer in self.optimizers:
            if isinstance(optimizer, torch.optim.LBFGS):
                found: list[Tensor] = []
                optimizer.step(self._again(batch, found))
                self.measured.append(found[0].detach())
            else:
                optimizer.step()

    def _again(self, batch: Batch, found: list[Tensor]) -> Callable[[], Tensor]:
        def again() -> Tensor:
            self.zero_grad()
            found.append(self.value(batch, self.evaluations))
            found[-1].backward()
            return found[-1]

        return again

    def evaluate(self, objective: Callable[[Hand, Tensor, Tensor], Tensor] | None = None) -> Tensor:
        """The objective over `valid` as one batch, measured."""
        self.training = False
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.autocast):
            value = (objective or self.objective)(self, *self.valid)
        self.training = True
        self.measured.append(value)
        return value

    def set_rate(self, rate: float) -> None:
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            group["lr"] = rate

    def state_of(self, parameter: Parameter) -> dict[str, Any]:
        return next(each.state[parameter] for each in self.optimizers if parameter in each.state)
