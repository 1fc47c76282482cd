"""The loop of each capability, written by hand over the model of `by_hand.py`."""
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy
import torch
from sklearn.metrics import f1_score
from torch import Tensor
from torch.nn import Parameter

from tests.plan.data.selection.test_order import row_at
from tests.promises.goes_with.by_hand import BATCH, SAMPLES, Hand, arrays


def momentum(parameters: Sequence[Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


def adam(parameters: Sequence[Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.05)


def passes(hand: Hand) -> None:
    for batch in hand.batches(2):
        hand.train(batch)


def parts(hand: Hand) -> None:
    for batch in hand.batches(2):
        hand.zero_grad()
        hand.measured.append(hand.backward(batch))
        hand.step(batch)


def clipped_parts(hand: Hand) -> None:
    for batch in hand.batches(2):
        hand.zero_grad()
        hand.measured.append(hand.backward(batch))
        torch.nn.utils.clip_grad_norm_([hand.w, hand.b], 0.05)
        torch.nn.utils.clip_grad_value_([hand.w, hand.b], 0.02)
        hand.step(batch)


def of_a_gradient(hand: Hand) -> None:
    for batch in hand.batches(2):
        hand.zero_grad()
        loss = hand.value(batch)
        loss.backward(torch.tensor(0.5, dtype=loss.dtype), inputs=[hand.w])
        hand.measured.append(loss.detach())
        hand.step(batch)


def with_forward(hand: Hand) -> None:
    for batch in hand.batches(2):
        hand.train(batch)
        with torch.no_grad():
            hand.measured.append(hand.value(batch))


def accumulated(hand: Hand) -> None:
    for _ in range(5):
        hand.zero_grad()
        for batch in hand.batches():
            hand.backward(batch, scale=1 / 5)
        hand.step(batch)


def clipped(hand: Hand) -> None:
    def clip(parameters: Sequence[Tensor]) -> None:
        torch.nn.utils.clip_grad_norm_(parameters, 0.05)
        torch.nn.utils.clip_grad_value_(parameters, 0.02)

    for batch in hand.batches(2):
        hand.train(batch, clip)


def assigned(hand: Hand) -> None:
    average = hand.w.detach().clone()
    for batch in hand.batches(2):
        hand.train(batch)
        average = 0.9 * average + 0.1 * hand.w.detach()
        with torch.no_grad():
            hand.w.copy_(0.75 * hand.w + 0.25 * average)
    hand.others["average"] = average


def state_assigned(hand: Hand) -> None:
    for batch in hand.batches(2):
        hand.train(batch)
        state = hand.state_of(hand.w)
        state["exp_avg"] = 0.5 * state["exp_avg"]


def evaluated(hand: Hand) -> None:
    for batch in hand.batches(2):
        hand.train(batch)
        hand.evaluate()


def in_batches(hand: Hand) -> None:
    def median(hand: Hand, x: Tensor, y: Tensor) -> Tensor:
        return (hand.hidden(x) - y).abs().median()

    def worst(hand: Hand, x: Tensor, y: Tensor) -> Tensor:
        return (hand.hidden(x) - y).abs().max()

    def of_positive(hand: Hand, x: Tensor, y: Tensor) -> Tensor:
        return ((hand.hidden(x) - y) * (y > 0)).sum() / (y > 0).sum()

    for batch in hand.batches(2):
        hand.train(batch)
        for each in (None, median, worst, of_positive):
            hand.evaluate(each)
    hand.measured = [each for place, each in enumerate(hand.measured) if place % 5]  # without those of `train`


def stopped(hand: Hand) -> None:
    for iteration, batch in enumerate(hand.batches(2), 1):
        hand.train(batch)
        if iteration % 3 == 0:
            hand.evaluate()
        if iteration == 7:
            return


def kept_batch(hand: Hand) -> None:
    for batch in hand.batches():
        hand.train(batch)
        hand.train(batch)


def plateau(hand: Hand) -> None:
    parameter = torch.zeros(1, requires_grad=True)
    rates = torch.optim.SGD([parameter], lr=0.4)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(rates, factor=0.5, patience=0, threshold=0.01)
    hand.set_rate(0.4)
    for batch in hand.batches(2):
        hand.train(batch)
        scheduler.step(float(hand.evaluate()))
        hand.set_rate(rates.param_groups[0]["lr"])


def patient(hand: Hand) -> None:
    best, worse = float("inf"), 0
    for batch in hand.batches(6):
        hand.train(batch)
        found = float(hand.evaluate())
        best, worse = (found, 0) if found < best else (best, worse + 1)
        if worse == 2:
            return


def short_form(hand: Hand) -> None:
    for _ in range(2):
        for batch in hand.batches():
            hand.train(batch)
        hand.evaluate()


def with_slope(hand: Hand, x: Tensor, y: Tensor) -> Tensor:
    plain = (hand.hidden(x) - y).abs().square().mean()
    (slope,) = torch.autograd.grad(plain, hand.w, create_graph=True)
    return plain + 0.1 * slope.abs().square().sum()


def counting(hand: Hand) -> None:
    for iteration, batch in enumerate(hand.batches(2), 1):
        hand.iteration = iteration
        hand.train(batch)


def masked(hand: Hand, x: Tensor, y: Tensor) -> Tensor:
    counts = x[:, 0] > 0
    errors = (hand.hidden(x) - y).abs().square().sum(1)
    return (errors * counts).sum() / counts.sum()


def accumulated_ratio(hand: Hand) -> None:
    count = (hand.x[:, 0] > 0).sum()
    for _ in range(5):
        hand.zero_grad()
        for x, y in hand.batches():
            share = (x[:, 0] > 0).sum() / count
            hand.backward((x, y), scale=float(share))
        hand.step((x, y))


def with_worst(hand: Hand) -> None:
    def worst(hand: Hand, x: Tensor, y: Tensor) -> Tensor:
        return (hand.hidden(x) - y).abs().max()

    def f1(hand: Hand, x: Tensor, y: Tensor) -> Tensor:
        said, so = hand.hidden(x)[:, 0].abs() > 0.5, y[:, 0] > 0
        return torch.tensor(f1_score(so.numpy(), said.numpy()), dtype=torch.float64)

    for batch in hand.batches(2):
        hand.train(batch)
        hand.evaluate()
        hand.evaluate(worst)
        hand.evaluate(f1)


def scheduled(hand: Hand) -> None:
    for t, batch in enumerate(hand.batches(2), 1):
        hand.set_rate(0.1 / t)
        hand.train(batch)


def of_a_parameter(hand: Hand) -> None:
    rate = 0.1
    for batch in hand.batches(2):
        hand.set_rate(rate * 0.5)
        hand.train(batch)
        rate = rate * 0.9


def ruled(hand: Hand) -> None:
    velocities = {name: torch.zeros_like(each) for name, each in hand.parameters.items()}
    for batch in hand.batches(2):
        hand.zero_grad()
        hand.measured.append(hand.backward(batch))
        for name, each in hand.parameters.items():
            velocities[name] = 0.9 * velocities[name] + each.grad
            each.data = each.data - 0.1 * velocities[name]


def warm(hand: Hand) -> None:
    for optimizer in hand.optimizers:
        if any(each is hand.w for each in optimizer.param_groups[0]["params"]):
            optimizer.state[hand.w]["momentum_buffer"] = torch.full_like(hand.w, 0.1)
    passes(hand)


def in_groups(parameters: Sequence[Parameter]) -> torch.optim.Optimizer:
    groups = [{"params": [each], "lr": 0.1 if each.dim() == 2 else 0.01} for each in parameters]
    return torch.optim.SGD(groups, momentum=0.9)


def selected(hand: Hand) -> None:
    for _ in range(2):
        for batch in hand.batches(begin=800, end=4000):
            hand.train(batch)


def where(hand: Hand) -> None:
    over_rows(hand, [row for row in range(SAMPLES) if hand.x[row, 0] > 0 or hand.x[row, 1] >= 0])


def shared(hand: Hand) -> None:
    rows = sorted(ordered(5)[: SAMPLES * 8 // 10])
    over_rows(hand, rows[: len(rows) // 900 * 900], 900)


def folded(hand: Hand) -> None:
    """Folds deal the rows, sorted by class and then by their random order."""
    ranked = sorted(ordered(0), key=lambda row: bool(hand.x[row, 0] > 0))
    held_out = set(ranked[1::4])
    over_rows(hand, [row for row in range(SAMPLES) if row not in held_out])


def over_rows(hand: Hand, rows: list[int], size: int = BATCH) -> None:
    for _ in range(2):
        for chosen in torch.tensor(rows).split(size):
            hand.train((hand.x[chosen], hand.y[chosen]))


@functools.cache
def ordered(seed: int) -> list[int]:
    """The rows in the random order that shares and folds cut."""
    return [row_at(position, seed, SAMPLES) for position in range(SAMPLES)]


def shuffled(hand: Hand) -> None:
    for batch in hand.batches(2, shuffled=True):
        hand.train(batch)


def rescaled(hand: Hand, x: Tensor, y: Tensor) -> Tensor:
    return (hand.hidden(x) - y / hand.y.amax(0)).abs().square().mean()


def numbered(hand: Hand, x: Tensor, y: Tensor) -> Tensor:
    gaps = torch.where(x[:, 1] < 0, torch.full_like(x[:, 1], 0.25), x[:, 1])
    shift = 0.1 * ((x[:, 0] > 0).long() * gaps).unsqueeze(1)
    return (hand.hidden(x) - y - shift).abs().square().mean()


def one_hot(hand: Hand, x: Tensor, y: Tensor) -> Tensor:
    more = (x[:, 0] > 0).to(x.dtype)
    return (hand.hidden(x) - y - 0.5 * torch.stack([more, 1 - more], 1)).abs().square().mean()


def dated(hand: Hand, x: Tensor, y: Tensor) -> Tensor:
    days = torch.where(x[:, 2] > 0, 200, 3).to(x.dtype)
    return (hand.hidden(x) - y - 0.01 * days.unsqueeze(1)).abs().square().mean()


def filled_mean(hand: Hand, x: Tensor, y: Tensor) -> Tensor:
    return _filled(hand, x, y, numpy.mean)


def filled_median(hand: Hand, x: Tensor, y: Tensor) -> Tensor:
    return _filled(hand, x, y, numpy.median)


def _filled(hand: Hand, x: Tensor, y: Tensor, fill: Callable[[numpy.ndarray], float]) -> Tensor:
    known = arrays()["x"][:, 1].astype("float64")
    value = torch.tensor(fill(known[known >= 0]), dtype=x.dtype)
    gaps = torch.where(x[:, 1] < 0, value, x[:, 1])
    return (hand.hidden(x) - y - 0.1 * gaps.unsqueeze(1)).abs().square().mean()


def from_halves(hand: Hand) -> None:
    for each in hand.parameters.values():
        each.data = torch.full_like(each, 0.5)
    passes(hand)


def scaled(hand: Hand) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=4)
    for batch in hand.batches(2):
        hand.zero_grad()
        loss = hand.value(batch)
        scaler.scale(loss).backward()
        for optimizer in hand.optimizers:
            scaler.step(optimizer)
        scaler.update()
        hand.measured.append(loss.detach())


def autocast(hand: Hand) -> None:
    hand.autocast = True
    passes(hand)


def scaled_autocast(hand: Hand) -> None:
    hand.autocast = True
    scaled(hand)
