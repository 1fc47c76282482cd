"""Promise 1, what you read is what ran: the networks of the gallery, written by hand in PyTorch.

These twins draw their initial weights themselves, each from the stream of its name.
"""
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import init

from runner.plan.streams import stream_seed
from tests.configs.long_examples import marked
from tests.twins.trainer import FOLDER, Snapshot, Start, Trainer, Twin, assert_bit_identical


def drawn(
    seed: int, name: str, shape: tuple[int, ...], draw: Callable[[Tensor], Tensor], dtype: torch.dtype = torch.float32
) -> Tensor:
    """A tensor from the stream of its name."""
    tensor = torch.empty(shape, dtype=dtype)
    torch.manual_seed(stream_seed(seed, "init", name))
    return draw(tensor)


def stacked(name: str, shape: tuple[int, ...], draw: Callable[[Tensor], Tensor]) -> Tensor:
    """One stream, from which each leading slice is drawn by itself."""

    def each(tensor: Tensor) -> Tensor:
        for part in tensor:
            draw(part)
        return tensor

    return drawn(0, name, shape, each)


def scaled(std: float) -> Callable[[Tensor], Tensor]:
    return lambda tensor: init.normal_(tensor, std=std)


class Streams:
    """The random numbers of each computation in turn."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.count = 0

    def advance(self) -> None:
        self.count += 1
        torch.manual_seed(stream_seed(self.seed, "expression", "", self.count))


def gan(start: Start) -> Iterator[Snapshot]:
    shapes = {"w1": (2, 32), "b1": (32,), "w2": (32, 32), "b2": (32,), "w3": (32, 2)}
    weights = {}
    for part, last in (("g", (32, 2)), ("d", (32, 1))):
        for name, shape in (shapes | {"w3": last}).items():
            empty = name.startswith("b") or (part, name) == ("g", "w3")
            weights[f"{part}_{name}"] = drawn(0, f"{part}_{name}", shape, init.zeros_ if empty else init.xavier_normal_)
    trainer = Trainer(**weights)
    generator, critic = ([f"{part}_{name}" for name in shapes] for part in "gd")
    centre, spread = torch.tensor([1.0, -0.5]), torch.tensor([0.5, 0.2])
    optimizers = {
        "generator": torch.optim.Adam(trainer.held(*generator), lr=0.002, betas=(0.0, 0.9)),
        "critic": torch.optim.Adam(trainer.held(*critic), lr=0.006, betas=(0.0, 0.9)),
    }
    held = {"generator": generator, "critic": critic}
    rates, lengths = {"generator": 0.002, "critic": 0.006}, {"generator": 220, "critic": 440}
    taken = {"generator": 0, "critic": 0}
    streams = Streams(0)

    def network(part: str, x: Tensor) -> Tensor:
        w1, b1, w2, b2, w3 = trainer.held(*(f"{part}_{name}" for name in shapes))
        return torch.tanh(torch.tanh(x @ w1 + b1) @ w2 + b2) @ w3

    def values(objective: str) -> dict[str, Tensor]:
        streams.advance()
        noise = torch.randn(64, 2)
        fake = network("g", noise)
        found = {"noise": noise, "fake": fake}
        if objective == "generator_loss":
            found["generator_loss"] = -network("d", fake)[:, 0].mean()
        real = centre + spread * torch.randn(64, 2)
        mix = torch.rand(64, 1)
        between = (mix * real + (1 - mix) * fake.detach()).requires_grad_()
        (slope,) = torch.autograd.grad(network("d", between)[:, 0].sum(), between, create_graph=True)
        found |= {"real": real, "mix": mix, "between": between, "slope": slope}
        if objective == "critic_loss":
            penalty = ((torch.linalg.vector_norm(slope, dim=1) - 1) ** 2).mean()
            found["penalty"] = penalty
            scores_of_fake, scores_of_real = (network("d", x)[:, 0].mean() for x in (fake.detach(), real))
            found["critic_loss"] = scores_of_fake - scores_of_real + 0.5 * penalty
        return found

    unseen = ("noise", "fake", "generator_loss", "real", "mix", "between", "slope", "penalty", "critic_loss")

    def train(name: str) -> Snapshot:
        trainer.zero_grad(*held[name])
        found = values(f"{name}_loss")
        found[f"{name}_loss"].backward(inputs=trainer.held(*held[name]))
        optimizers[name].param_groups[0]["lr"] = rates[name] * (1 - taken[name] / lengths[name])
        optimizers[name].step()
        taken[name] += 1
        return trainer.shows("train", *unseen, **found)

    yield trainer.shows("start", *unseen)
    yield train("critic")
    yield train("generator")
    for _ in range(200):
        yield train("critic")
        yield train("critic")
        yield train("generator")
    yield trainer.shows("forward", *unseen, **values("critic_loss"))


def variational_autoencoder(start: Start) -> Iterator[Snapshot]:
    rows = [[float(number >> bit & 1) for bit in range(4)] for number in range(16)]
    stripes = [[row[pixel // 4] for pixel in range(16)] for row in rows]
    bars = [[row[pixel % 4] for pixel in range(16)] for row in rows[1:15]]
    images = torch.tensor(stripes + bars).repeat(4, 1)
    trainer = Trainer(
        encoder_w1=drawn(0, "encoder_w1", (16, 48), init.xavier_normal_),
        encoder_b1=torch.zeros(48),
        encoder_w2=torch.zeros(48, 8),
        encoder_b2=torch.zeros(8),
        decoder_w1=drawn(0, "decoder_w1", (4, 48), init.xavier_normal_),
        decoder_b1=torch.zeros(48),
        decoder_w2=torch.zeros(48, 16),
        decoder_b2=torch.zeros(16),
    )
    optimizer = torch.optim.Adam(trainer.held(), lr=0.02)
    streams = Streams(0)

    def values() -> dict[str, Tensor]:
        streams.advance()
        w1, b1, w2, b2, w3, b3, w4, b4 = trainer.held()
        mean, log_variance = (torch.tanh(images @ w1 + b1) @ w2 + b2).chunk(2, dim=1)
        code = mean + torch.exp(log_variance / 2) * torch.randn_like(mean)
        logits = torch.tanh(code @ w3 + b3) @ w4 + b4
        reconstruction = F.binary_cross_entropy_with_logits(logits, images, reduction="sum") / 120
        divergence = 0.5 * (torch.exp(log_variance) + mean**2 - 1 - log_variance).sum() / 120
        right = ((logits > 0) == (images > 0.5)).float().mean()
        return {
            "seen": images,
            "mean": mean,
            "log_variance": log_variance,
            "code": code,
            "logits": logits,
            "reconstruction": reconstruction,
            "divergence": divergence,
            "right": right,
            "loss": reconstruction + divergence,
        }

    unseen = ("seen", "mean", "log_variance", "code", "logits", "reconstruction", "divergence", "right", "loss")
    yield trainer.shows("start", *unseen)
    for _ in range(301):
        optimizer.zero_grad()
        found = values()
        found["loss"].backward()
        optimizer.step()
        yield trainer.shows("train", **found)
    yield trainer.shows("forward", **values())


def transformer(start: Start) -> Iterator[Snapshot]:
    with (FOLDER / "data" / "letters.csv").open(encoding="utf-8", newline="") as file:
        text = torch.tensor([int(row["letter"]) for row in csv.DictReader(file)])
    blocks, pieces, length, heads, width, letters = 4, 9, 46, 2, 24, 24
    later = torch.ones(length, length).triu(1).bool()
    trainer = Trainer(
        meaning=drawn(0, "meaning", (letters, width), scaled(0.1)),
        place=drawn(0, "place", (length, width), scaled(0.1)),
        norm1=torch.ones(blocks, width),
        qkv=stacked("qkv", (blocks, width, 3 * width), init.xavier_normal_),
        out=stacked("out", (blocks, width, width), init.xavier_normal_),
        norm2=torch.ones(blocks, width),
        up=stacked("up", (blocks, width, 4 * width), init.xavier_normal_),
        down=stacked("down", (blocks, 4 * width, width), lambda part: init.xavier_normal_(part, gain=0.5)),
        norm3=torch.ones(width),
        readout=torch.zeros(width, letters),
    )
    optimizer = torch.optim.Adam(trainer.held(), lr=0.005)

    def by_head(x: Tensor) -> Tensor:
        return x.reshape(pieces, length, heads, width // heads).transpose(1, 2)

    def attend(x: Tensor, i: int) -> Tensor:
        q, k, v = (x @ trainer["qkv"][i]).chunk(3, dim=-1)
        scores = by_head(q) @ by_head(k).mT / math.sqrt(width // heads)
        mixed = F.softmax(scores.masked_fill(later, -math.inf), dim=-1) @ by_head(v)
        return mixed.transpose(1, 2).reshape(pieces, length, width) @ trainer["out"][i]

    def values() -> dict[str, Tensor]:
        with torch.enable_grad():
            first = x = trainer["meaning"][text[:-1].reshape(pieces, length)] + trainer["place"]
            for i in range(blocks):
                x = x + attend(F.layer_norm(x, [width], trainer["norm1"][i]), i)
                x = x + F.gelu(F.layer_norm(x, [width], trainer["norm2"][i]) @ trainer["up"][i]) @ trainer["down"][i]
            scores = F.layer_norm(x, [width], trainer["norm3"]) @ trainer["readout"]
            (from_later,) = torch.autograd.grad((scores[:, :20] ** 2).sum(), first, retain_graph=True)
            (from_before,) = torch.autograd.grad((scores[:, 20:] ** 2).sum(), first, retain_graph=True)
            loss = F.cross_entropy(scores.reshape(-1, letters), text[1:])
        return {
            "first": first,
            "x": x,
            "scores_of_next": scores,
            "from_later": from_later[:, 20:],
            "from_before": from_before[:, :20],
            "loss": loss,
        }

    yield trainer.shows("start", "first", "x", "scores_of_next", "from_later", "from_before", "loss")
    for _ in range(41):
        optimizer.zero_grad()
        found = values()
        found["loss"].backward()
        optimizer.step()
        yield trainer.shows("train", **found)
    for _ in range(3):
        yield trainer.shows("forward", **values())


def damped_oscillator(start: Start) -> Iterator[Snapshot]:
    t = torch.linspace(0, 8, 40, dtype=torch.float64)
    position = torch.exp(-0.25 * t) * torch.cos(2 * t)
    begin = {"amplitude": 0.5, "damping": 0.05, "frequency": 1.7, "phase": 0.3}
    trainer = Trainer(**{name: torch.tensor(value, dtype=torch.float64) for name, value in begin.items()})
    optimizer = torch.optim.LBFGS(
        trainer.held(), max_iter=10, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def forward() -> dict[str, Tensor]:
        amplitude, damping, frequency, phase = trainer.held()
        u = amplitude * torch.exp(-damping * t) * torch.cos(frequency * t + phase)
        return {"u": u, "loss": torch.mean((u - position) ** 2)}

    yield trainer.shows("start", "u", "loss")
    for _ in range(10):
        yield trainer.minimised(optimizer, forward, "loss")
    yield trainer.shows("forward", **forward())


def oscillator_equation(start: Start) -> Iterator[Snapshot]:
    times = torch.linspace(0, 4, 40, dtype=torch.float64)[:, None]
    position = torch.exp(-times / 4) * torch.cos(2 * times)
    trainer = Trainer(
        friction=torch.tensor(0.0, dtype=torch.float64),
        w1=drawn(0, "w1", (1, 12), scaled(1), torch.float64),
        b1=drawn(0, "b1", (12,), scaled(1), torch.float64),
        w2=drawn(0, "w2", (12, 1), scaled(0.1), torch.float64),
    )
    optimizer = torch.optim.LBFGS(trainer.held(), line_search_fn="strong_wolfe")

    def forward() -> dict[str, Tensor]:
        friction, w1, b1, w2 = trainer.held()
        t = times.clone().requires_grad_()
        u = 1 - t / 4 + t**2 * (torch.tanh(t @ w1 + b1) @ w2)
        (velocity,) = torch.autograd.grad(u.sum(), t, create_graph=True)
        (acceleration,) = torch.autograd.grad(velocity.sum(), t, create_graph=True)
        residual = acceleration + friction * velocity + 4.0625 * u
        glimpses = (u - position)[::5]
        return {
            "u": u,
            "velocity": velocity,
            "acceleration": acceleration,
            "residual": residual,
            "glimpses": glimpses,
            "loss": torch.mean(residual**2) + 10 * torch.mean(glimpses**2),
        }

    yield trainer.shows("start", "u", "velocity", "acceleration", "residual", "glimpses", "loss")
    for _ in range(30):
        yield trainer.minimised(optimizer, forward, "loss")
    yield trainer.shows("forward", **forward())


def gradient_accumulation(start: Start) -> Iterator[Snapshot]:
    x = torch.linspace(-1, 1, 32)
    inputs, targets = torch.stack([torch.ones(32), x, x**2], 1), torch.exp(x)
    trainer = Trainer(whole=torch.zeros(3), halves=torch.zeros(3))
    optimizer = torch.optim.SGD(trainer.held(), lr=0.2)

    def backward(objective: str) -> Snapshot:
        whole, halves = trainer.held()
        found = {
            "first": torch.mean((inputs[:16] @ halves - targets[:16]) ** 2) / 2,
            "second": torch.mean((inputs[16:] @ halves - targets[16:]) ** 2) / 2,
            "loss": torch.mean((inputs @ whole - targets) ** 2),
        }
        found[objective].backward()
        return trainer.shows("backward", **found)

    values = ("first", "second", "loss")
    yield trainer.shows("start", *values)
    for _ in range(25):
        optimizer.zero_grad()
        yield trainer.shows("zero_grad", *values)
        yield backward("loss")
        yield backward("first")
        yield backward("second")
        optimizer.step()
        yield trainer.shows("step", *values)


def fine_tuning(start: Start) -> Iterator[Snapshot]:
    x = torch.linspace(-2, 2, 64)[:, None]
    y = torch.sin(2 * x)
    trainer = Trainer(
        frozen_w=drawn(3, "frozen_w", (1, 24), scaled(2)),
        frozen_b=drawn(3, "frozen_b", (24,), lambda tensor: init.uniform_(tensor, -2, 2)),
        body_w=drawn(3, "body_w", (24, 24), init.xavier_normal_),
        head_w=torch.zeros(24, 1),
        head_b=torch.zeros(1),
    )
    for frozen in trainer.held("frozen_w", "frozen_b"):
        frozen.requires_grad_(False)
    body = {"params": trainer.held("body_w"), "lr": 0.0}
    head = {"params": trainer.held("head_w", "head_b"), "lr": 0.05}
    optimizer = torch.optim.SGD([body, head], momentum=0.9)

    def values() -> dict[str, Tensor]:
        features = torch.tanh(x @ trainer["frozen_w"] + trainer["frozen_b"])
        hidden = torch.tanh(features @ trainer["body_w"])
        predicted = hidden @ trainer["head_w"] + trainer["head_b"]
        loss = torch.mean((predicted - y) ** 2)
        return {"features": features, "hidden": hidden, "predicted": predicted, "loss": loss}

    def shows(step: str, *unseen: str, **found: Tensor) -> Snapshot:
        _, row = trainer.shows(step, *unseen, **found)
        for frozen in ("frozen_w", "frozen_b"):  # what is frozen has no column for a gradient
            assert row.pop(f"{frozen}.grad") is None
        return step, row

    yield shows("start", "features", "hidden", "predicted", "loss")
    for t in range(1, 222):
        optimizer.zero_grad()
        found = values()
        found["loss"].backward()
        optimizer.param_groups[0]["lr"] = 0.0 if t <= 20 else 0.02
        optimizer.step()
        yield shows("train", **found)
    yield shows("forward", **values())


def convolution(start: Start) -> Iterator[Snapshot]:
    with np.load(FOLDER / "data" / "strokes.npz") as file:
        arrays = {name: torch.from_numpy(array) for name, array in file.items()}
    images, test_images = arrays["images"].float(), arrays["test_images"].float()

    def kaiming(name: str, shape: tuple[int, ...]) -> Tensor:
        return drawn(0, name, shape, lambda tensor: init.kaiming_uniform_(tensor, nonlinearity="relu"))

    trainer = Trainer(
        filters1=kaiming("filters1", (8, 1, 3, 3)),
        bias1=torch.zeros(8),
        filters2=kaiming("filters2", (16, 8, 3, 3)),
        bias2=torch.zeros(16),
        weights=torch.zeros(64, 4),
        bias=torch.zeros(4),
    )
    optimizer = torch.optim.Adam(trainer.held(), lr=0.01)

    def network(x: Tensor) -> Tensor:
        filters1, bias1, filters2, bias2, weights, bias = trainer.held()
        x = F.max_pool2d(F.relu(F.conv2d(x / 255, filters1, bias1, padding=1)), 2)
        x = F.max_pool2d(F.relu(F.conv2d(x, filters2, bias2, padding=1)), 2)
        return x.flatten(1) @ weights + bias

    def accuracy(scores: Tensor, labels: Tensor) -> Tensor:
        return (scores.argmax(1) == labels).float().mean()

    def values() -> dict[str, Tensor]:
        test_scores, scores = network(test_images), network(images)
        return {
            "test_scores": test_scores,
            "test_accuracy": accuracy(test_scores, arrays["test_labels"]),
            "scores": scores,
            "accuracy": accuracy(scores, arrays["labels"]),
            "loss": F.cross_entropy(scores, arrays["labels"]),
        }

    yield trainer.shows("start", "test_scores", "test_accuracy", "scores", "accuracy", "loss")
    for _ in range(51):
        optimizer.zero_grad()
        found = values()
        found["loss"].backward()
        optimizer.step()
        yield trainer.shows("train", **found)
    yield trainer.shows("forward", **values())


TWINS: Mapping[str, Twin] = {
    "gan": gan,
    "variational-autoencoder": variational_autoencoder,
    "transformer": transformer,
    "damped-oscillator": damped_oscillator,
    "oscillator-equation": oscillator_equation,
    "gradient-accumulation": gradient_accumulation,
    "fine-tuning": fine_tuning,
    "convolution": convolution,
}


@pytest.mark.parametrize("name", marked(TWINS))
def test_what_you_read_is_what_ran(name: str) -> None:
    assert_bit_identical(FOLDER / f"{name}.yaml", TWINS[name])
