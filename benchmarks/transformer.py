"""W4: a transformer of 10.7 million parameters, trained with AdamW for 20 steps."""

from __future__ import annotations

import functools
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.measure import Workload
from benchmarks.training import losses, start, train

CONFIG = Path(__file__).with_name("configs") / "transformer.yaml"
STEPS = 20
CHARACTERS, LENGTH, BATCH, BLOCKS, HEADS, WIDTH = 96, 64, 2, 6, 6, 384


class Block(nn.Module):
    """Causal attention and a hidden layer, each after a layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.norm2 = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, 4 * WIDTH)
        self.down = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part.reshape(BATCH, LENGTH, HEADS, WIDTH // HEADS).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).chunk(3, dim=-1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(BATCH, LENGTH, WIDTH))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.meaning = nn.Embedding(CHARACTERS, WIDTH)
        self.place = nn.Parameter(torch.zeros(LENGTH, WIDTH))
        self.blocks = nn.Sequential(*[Block() for _ in range(BLOCKS)])
        self.norm = nn.LayerNorm(WIDTH)
        self.readout = nn.Linear(WIDTH, CHARACTERS, bias=False)

    def forward(self, text: Tensor) -> Tensor:
        return self.readout(self.norm(self.blocks(self.meaning(text) + self.place)))


@functools.cache
def initial_weights() -> dict[str, Tensor]:
    """Returns the weights that steprun draws, by their names in the module."""
    weights = start(CONFIG)
    found = {
        "meaning.weight": weights["meaning"],
        "place": weights["place"],
        "norm.weight": weights["norm3"],
        "norm.bias": weights["shift3"],
        "readout.weight": weights["readout"],
    }
    layers = {"norm1": "shift1", "norm2": "shift2"} | {name: f"{name}_b" for name in ("qkv", "out", "up", "down")}
    for block in range(BLOCKS):
        for layer, bias in layers.items():
            found[f"blocks.{block}.{layer}.weight"] = weights[f"{layer}_{block}"]
            found[f"blocks.{block}.{layer}.bias"] = weights[f"{bias}_{block}"]
    return found


def by_hand() -> list[float]:
    """Runs a typical hand-written loop; the model is an `nn.Module`."""
    network = Transformer()  # draws its weights, as any module does, then loads those of steprun
    network.load_state_dict(initial_weights())
    text = torch.arange(1, BATCH * LENGTH + 2) ** 3 % 8191 % CHARACTERS
    inputs, targets = text[:-1].reshape(BATCH, LENGTH), text[1:]
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.0003)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(inputs).flatten(0, 1), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def verify() -> None:
    assert losses(CONFIG) == by_hand(), "the losses of both sides differ"


def workloads() -> list[Workload]:
    count = sum(weight.numel() for weight in Transformer().parameters())
    what = f"transformer of {count / 1e6:.1f} M parameters, AdamW, {STEPS} steps, losses logged"
    ours = functools.partial(train, CONFIG)
    return [Workload("W4", what, "the same as an `nn.Module`", ours, by_hand, reach=1.00, steps=STEPS, verify=verify)]
