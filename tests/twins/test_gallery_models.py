"""The gallery's models and optimizers written by hand in PyTorch, equal at every row and bit."""
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

import runner
from tests.configs.long_examples import marked
from tests.twins.trainer import FOLDER, Snapshot, Start, Trainer, Twin, assert_bit_identical


def _double(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def _scalar(number: float) -> Tensor:
    return torch.tensor(number, dtype=torch.float64)


def _cubic() -> tuple[Trainer, Callable[[], dict[str, Tensor]]]:
    trainer = Trainer(coefficients=torch.zeros(4, dtype=torch.float64))
    x = torch.linspace(-1, 1, 41, dtype=torch.float64)
    y, powers = torch.sin(math.pi * x), x[:, None] ** torch.arange(4)

    def forward() -> dict[str, Tensor]:
        predicted = powers @ trainer["coefficients"]
        return {"predicted": predicted, "loss": torch.mean((predicted - y) ** 2)}

    return trainer, forward


def polynomial_sgd(start: Start) -> Iterator[Snapshot]:
    trainer, forward = _cubic()
    optimizer = torch.optim.SGD(trainer.held(), lr=0.8)
    yield trainer.shows("start", "predicted", "loss")
    for _ in range(1000):
        optimizer.zero_grad()
        values = forward()
        values["loss"].backward()
        optimizer.step()
        yield trainer.shows("train", **values)


def polynomial_lbfgs(start: Start) -> Iterator[Snapshot]:
    trainer, forward = _cubic()
    optimizer = torch.optim.LBFGS(
        trainer.held(), line_search_fn="strong_wolfe", tolerance_change=1e-15, tolerance_grad=1e-12
    )
    yield trainer.shows("start", "predicted", "loss")
    yield trainer.minimised(optimizer, forward, "loss")
    yield trainer.shows("forward", **forward())


TEMPERATURE = [66, 70, 69, 68, 67, 72, 73, 70, 57, 63, 70, 78, 67, 53, 67, 75, 70, 81, 76, 79, 75, 76, 58]
DAMAGED = [0, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 1]


def logistic_exact(start: Start) -> Iterator[Snapshot]:
    temperature, damaged = _double(*TEMPERATURE), _double(*DAMAGED)
    trainer = Trainer(weights=_double(0, 0))
    optimizer = torch.optim.SGD(trainer.held(), lr=8)

    def log_odds(degrees: Tensor | float) -> Tensor:
        return trainer["weights"][0] * (degrees - 70) / 10 + trainer["weights"][1]

    yield trainer.shows("start", "loss", "chance_at_31")
    for _ in range(101):
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(log_odds(temperature), damaged)
        chance = torch.sigmoid(log_odds(31)).detach().clone()
        loss.backward()
        optimizer.step()
        yield trainer.shows("train", loss=loss, chance_at_31=chance)


RATINGS = [[5, 4, 1, 1, 3], [4, 5, 2, 1, 3], [1, 1, 5, 4, 2], [2, 1, 4, 5, 3], [3, 3, 3, 3, 3], [5, 5, 1, 2, 4]]


def matrix_factorisation(start: Start) -> Iterator[Snapshot]:
    trainer = Trainer(**start)
    ratings = torch.tensor(RATINGS, dtype=torch.float64)
    optimizer = torch.optim.SGD(trainer.held(), lr=0.005, momentum=0.5)
    yield trainer.shows("start", "guess", "loss")
    for _ in range(501):
        optimizer.zero_grad()
        guess = trainer["people"] @ trainer["films"].T
        loss = torch.sum((guess - ratings) ** 2)
        loss.backward()
        optimizer.step()
        yield trainer.shows("train", guess=guess, loss=loss)


def _rosenbrock(p: Tensor) -> Tensor:
    return (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2


def rosenbrock(start: Start) -> Iterator[Snapshot]:
    names = ("sgd", "momentum", "rmsprop", "adam", "lbfgs")
    trainer = Trainer(**{f"by_{name}": _double(-1.2, 1) for name in names})
    optimizers: dict[str, torch.optim.Optimizer] = {
        "sgd": torch.optim.SGD(trainer.held("by_sgd"), lr=0.001),
        "momentum": torch.optim.SGD(trainer.held("by_momentum"), lr=0.0005, momentum=0.9, nesterov=True),
        "rmsprop": torch.optim.RMSprop(trainer.held("by_rmsprop"), lr=0.002),
        "adam": torch.optim.Adam(trainer.held("by_adam"), lr=0.05),
    }
    lbfgs = torch.optim.LBFGS(trainer.held("by_lbfgs"), line_search_fn="strong_wolfe")
    unseen = [f"{name}_height" for name in names]

    def lbfgs_height() -> dict[str, Tensor]:
        return {"lbfgs_height": _rosenbrock(trainer["by_lbfgs"])}

    yield trainer.shows("start", *unseen)
    height = _rosenbrock(trainer["by_sgd"])
    height.backward()
    yield trainer.shows("backward", *unseen, sgd_height=height)
    for _ in range(1000):
        for name, optimizer in optimizers.items():
            optimizer.zero_grad()
            height = _rosenbrock(trainer[f"by_{name}"])
            height.backward()
            optimizer.step()
            yield trainer.shows("train", *unseen, **{f"{name}_height": height})
        step, row = trainer.minimised(lbfgs, lbfgs_height, "lbfgs_height")
        yield step, dict.fromkeys(unseen) | row


def sharpness_aware(start: Start) -> Iterator[Snapshot]:
    trainer = Trainer(plain=_double(3, 0.5), aware=_double(3, 0.5), held=_double(3, 0.5))
    plain, aware, held = trainer.held()
    descent = torch.optim.SGD([plain], lr=0.1)
    sharpness = torch.optim.SGD([aware], lr=0.1)
    unseen = ("plain_loss", "aware_loss")

    def shows(step: str, **values: Tensor) -> Snapshot:
        step, row = trainer.shows(step, *unseen, **values)
        return step, {name: value for name, value in row.items() if name != "held.grad"}

    def backward(weight: Tensor) -> Tensor:
        loss = (weight.prod() - 1) ** 2 / 2
        loss.backward()
        return loss

    yield shows("start")
    for _ in range(700):
        descent.zero_grad()
        loss = backward(plain)
        descent.step()
        yield shows("train", plain_loss=loss)
        yield shows("backward", aware_loss=backward(aware))
        with torch.no_grad():
            assert aware.grad is not None
            held.copy_(aware)
            aware.copy_(aware + 0.2 * aware.grad / torch.linalg.vector_norm(aware.grad))
        yield shows("assign")
        sharpness.zero_grad()
        yield shows("zero_grad")
        yield shows("backward", aware_loss=backward(aware))
        with torch.no_grad():
            aware.copy_(held)
        yield shows("assign")
        sharpness.step()
        yield shows("step")
        sharpness.zero_grad()
        yield shows("zero_grad")
    for _ in range(100):
        sharpness.zero_grad()
        loss = backward(aware)
        sharpness.step()
        yield shows("train", aware_loss=loss)


def moving_average(start: Start) -> Iterator[Snapshot]:
    trainer = Trainer(w=_double(3, -2, 4))
    average, curvature, target = _double(3, -2, 4), _double(0.2, 1.6, 1.95), _double(1, 2, -1)
    optimizer = torch.optim.SGD(trainer.held(), lr=1)

    def height(at: Tensor) -> Tensor:
        return (curvature * (at - target) ** 2).sum() / 2

    def forward() -> dict[str, Tensor]:
        return {"loss": height(trainer["w"]), "loss_of_average": height(average)}

    def shows(step: str, **values: Tensor) -> Snapshot:
        return trainer.shows(step, "loss", "loss_of_average", average=average, **values)

    yield shows("start")
    for _ in range(20):
        optimizer.zero_grad()
        values = forward()
        values["loss"].backward()
        optimizer.step()
        yield shows("train", **values)
        with torch.no_grad():
            average = 0.9 * average + 0.1 * trainer["w"]
        yield shows("assign")
    yield shows("forward", **forward())


CONCENTRATION = [0.02, 0.02, 0.06, 0.06, 0.11, 0.11, 0.22, 0.22, 0.56, 0.56, 1.10, 1.10]
RATE = [0.76, 0.47, 0.97, 1.07, 1.23, 1.39, 1.59, 1.52, 1.91, 2.01, 2.07, 2.00]


class AdaBelief(torch.optim.Optimizer):
    """Algorithm 2 of Zhuang et al. 2020, written as one writes an optimizer in PyTorch."""

    def __init__(self, parameters: list[Tensor], lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for weight in group["params"]:
                state = self.state[weight]
                t = state["t"] = state.get("t", 0) + 1
                mean, belief = (
                    state.get("mean", torch.zeros_like(weight)),
                    state.get("belief", torch.zeros_like(weight)),
                )
                state["mean"] = mean = beta1 * mean + (1 - beta1) * weight.grad
                state["belief"] = belief = beta2 * belief + (1 - beta2) * (weight.grad - mean) ** 2 + group["eps"]
                scale = torch.sqrt(belief / (1 - beta2**t)) + 1e-8
                weight.copy_(weight - group["lr"] * mean / (1 - beta1**t) / scale)


def own_optimizer(start: Start) -> Iterator[Snapshot]:
    trainer = Trainer(fastest=_scalar(1), half=_scalar(0.2))
    concentration, rate = _double(*CONCENTRATION), _double(*RATE)
    optimizer = AdaBelief(trainer.held(), lr=0.01, betas=(0.9, 0.99), eps=1e-16)
    yield trainer.shows("start", "predicted", "loss")
    for _ in range(401):
        optimizer.zero_grad()
        predicted = trainer["fastest"] * concentration / (trainer["half"] + concentration)
        loss = torch.sum((predicted - rate) ** 2)
        loss.backward()
        optimizer.step()
        yield trainer.shows("train", predicted=predicted, loss=loss)


DISTANCE = [0.387, 0.723, 1.0, 1.524, 5.203, 9.537, 19.19, 30.07]
YEAR = [0.241, 0.615, 1.0, 1.881, 11.86, 29.45, 84.02, 164.8]


def _rate(t: int) -> float:
    """Ten steps up to 0.2, and then half a cosine down in ninety: counted from 1."""
    if t <= 10:
        return 0.2 * (0.1 + (1.0 - 0.1) * (t - 1) / 9)
    return 0.2 * (1 + math.cos(math.pi * (t - 11) / 90)) / 2


def schedule(start: Start) -> Iterator[Snapshot]:
    trainer = Trainer(exponent=_scalar(0), offset=_scalar(0), odometer=_scalar(0))
    distance, year = _double(*DISTANCE), _double(*YEAR)
    optimizer = torch.optim.SGD(trainer.held(), lr=_rate(1))
    yield trainer.shows("start", "predicted", "loss")
    for t in range(1, 101):
        optimizer.param_groups[0]["lr"] = _rate(t)
        optimizer.zero_grad()
        predicted = trainer["exponent"] * torch.log(distance) + trainer["offset"]
        loss = torch.mean((predicted - torch.log(year)) ** 2) - trainer["odometer"]
        loss.backward()
        optimizer.step()
        yield trainer.shows("train", predicted=predicted, loss=loss)


TWINS: Mapping[str, Twin] = {
    "polynomial-sgd": polynomial_sgd,
    "polynomial-lbfgs": polynomial_lbfgs,
    "logistic-exact": logistic_exact,
    "matrix-factorisation": matrix_factorisation,
    "rosenbrock": rosenbrock,
    "sharpness-aware": sharpness_aware,
    "moving-average": moving_average,
    "own-optimizer": own_optimizer,
    "schedule": schedule,
}


@pytest.mark.parametrize("name", marked(TWINS))
def test_what_you_read_is_what_ran(name: str) -> None:
    assert_bit_identical(FOLDER / f"{name}.yaml", TWINS[name])


def test_logistic_regression_converges_to_the_solution_of_newtons_method() -> None:
    inputs = torch.stack([(_double(*TEMPERATURE) - 70) / 10, torch.ones(23, dtype=torch.float64)], 1)
    solution = _double(0, 0)
    for _ in range(20):
        chance = torch.sigmoid(inputs @ solution)
        hessian = (inputs.T * (chance * (1 - chance))) @ inputs
        solution = solution + torch.linalg.solve(hessian, inputs.T @ (_double(*DAMAGED) - chance))
    path = FOLDER / "logistic-exact.yaml"
    written = yaml.safe_load(path.read_text(encoding="utf-8"))["constants"]["solution"]
    torch.testing.assert_close(_double(*written), solution, atol=1e-11, rtol=0)
    *_, last = runner.execute(runner.compile(runner.load(path)))
    torch.testing.assert_close(last["weights"], solution, atol=1e-6, rtol=0)


def test_the_schedule_is_that_of_torch() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.2)
    warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=9)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=90)
    both = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm_up, cosine], milestones=[10])
    for t in range(1, 101):
        assert both.get_last_lr()[0] == pytest.approx(_rate(t), rel=1e-12, abs=1e-15)
        optimizer.step()
        both.step()
