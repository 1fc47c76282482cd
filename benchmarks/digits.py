"""W3: an MLP with layers of 64, 128 and 10, trained on batches of the digits for 20 epochs."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.measure import Workload
from benchmarks.training import losses, start, train
from runner.plan.streams import stream_seed

CONFIG = Path(__file__).with_name("configs") / "mlp.yaml"
DATA = Path(__file__).parents[1] / "configs" / "data" / "digits.npz"
EPOCHS, BATCH = 20, 64
STEPS = EPOCHS * 24


@functools.cache
def initial_weights() -> dict[str, torch.Tensor]:
    names = {"w1": "0.weight", "b1": "0.bias", "w2": "2.weight", "b2": "2.bias"}
    return {names[name]: weight for name, weight in start(CONFIG).items()}


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the images, flattened to 64 numbers each, and their labels."""
    with numpy.load(DATA) as file:
        return torch.from_numpy(file["images"]).float().flatten(1), torch.from_numpy(file["labels"]).long()


def network() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    model.load_state_dict(initial_weights())
    return model


def forward_and_backward() -> None:
    """Runs the minimum of any loop, forward and backward, on the same batch each time."""
    images, labels = (part[:BATCH] for part in digits())
    model = network()
    for _ in range(STEPS):
        F.cross_entropy(model(images), labels).backward()


def by_hand(epochs: int = EPOCHS) -> list[float]:
    """Runs a typical hand-written loop, which indexes batches from tensors in memory."""
    images, labels = digits()
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    losses = []
    for epoch in range(1, epochs + 1):
        generator = torch.Generator().manual_seed(
            stream_seed(0, "shuffle", "train", epoch)
        )  # the order that steprun uses
        for chosen in torch.randperm(len(images), generator=generator).split(BATCH):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images[chosen]), labels[chosen])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


def verify() -> None:
    assert losses(CONFIG) == by_hand(), "the losses of both sides differ"


def workloads() -> list[Workload]:
    what = f"MLP 64-128-10 on digits, Adam, batches of {BATCH}, {EPOCHS} epochs, losses logged"
    ours = functools.partial(train, CONFIG)
    return [Workload("W3", what, "hand-written loop", ours, by_hand, reach=0.70, steps=STEPS, verify=verify)]
