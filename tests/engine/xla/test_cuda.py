"""What `engine: xla` promises on a CUDA device. Every test needs one, and JAX for it."""

from __future__ import annotations

import pytest
import torch

import runner
from runner.faults import Faults
from runner.plan.checks.engines.translatable import check_device
from tests.engine.running import rows_of

jax = pytest.importorskip("jax")


def has_cuda() -> bool:
    """Whether torch and JAX both have a CUDA device."""
    if not torch.cuda.is_available():
        return False
    try:
        return bool(jax.devices("cuda"))
    except RuntimeError:
        return False


pytestmark = pytest.mark.skipif(not has_cuda(), reason="torch or JAX has no CUDA device")

NETWORK = """
device: {device}
engine: {engine}
seed: 3
parameters:
  w1: {{shape: [8, 32], init: {{normal: {{std: 0.3}}}}}}
  w2: {{shape: [32, 4], init: {{normal: {{std: 0.3}}}}}}
expression: |
  x = linspace(-1, 1, 128).reshape(16, 8)
  h = {hidden}
  loss = ((h @ w2) ** 2).mean()
optimizer: {{adam: {{lr: 0.01}}}}
steps: 20
"""
DEVICE = "cuda"


def network(engine: str, hidden: str) -> str:
    return NETWORK.format(device=DEVICE, engine=engine, hidden=hidden)


def test_weights_are_those_of_torch_by_hand_up_to_rounding() -> None:
    rows = rows_of(network("xla", "relu(x @ w1)"))
    x = torch.linspace(-1, 1, 128, device=DEVICE).reshape(16, 8)
    w1, w2 = (rows[0][name].clone() for name in ("w1", "w2"))
    optimizer = torch.optim.Adam([w1.requires_grad_(), w2.requires_grad_()], lr=0.01)
    for row in rows[1:]:
        optimizer.zero_grad()
        loss = ((torch.relu(x @ w1) @ w2) ** 2).mean()
        loss.backward()
        optimizer.step()
        for found, expected in zip((row["loss"], row["w1"], row["w2"]), (loss, w1, w2), strict=True):
            assert found.device.type == DEVICE
            torch.testing.assert_close(found, expected.detach(), rtol=1e-3, atol=1e-4)
    assert len(rows) == 21


@pytest.mark.parametrize(
    "hidden",
    [
        "dropout(relu(x @ w1), 0.5)",
        "relu(x @ w1) * rand_like(x @ w1)",
        "relu(x @ w1 + 0.1 * randn(16, 32))",
    ],
)
def test_random_numbers_are_those_of_the_eager_engine(hidden: str) -> None:
    found, expected = (rows_of(network(engine, hidden)) for engine in ("xla", "eager"))
    for mine, theirs in zip(found, expected, strict=True):
        for column in ("w1", "w2"):
            torch.testing.assert_close(mine[column], theirs[column], rtol=1e-3, atol=1e-4)


def test_a_device_that_jax_lacks_is_refused() -> None:
    faults = Faults(runner.loads(network("xla", "x @ w1")).document)
    check_device(f"{DEVICE}:9999", faults)
    (problem,) = faults.problems
    assert problem.message == f"`engine: xla` runs on the devices of JAX, and it has no `{DEVICE}:9999`"
