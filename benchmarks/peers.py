"""P1 and P3: the loops of W1 and W3 in other training libraries, each measured if it is installed."""

from __future__ import annotations

import functools
import importlib.util
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import digits, linear
from benchmarks.measure import Workload

NAMES = ("P1", "P3")
RATE = 0.01
RELATIVE = 1e-4  # tolerance between the weights of a peer and of the hand-written loop, which round in different orders

os.environ.setdefault("KERAS_BACKEND", "torch")  # read when keras is imported


@dataclass(frozen=True, slots=True)
class Peer:
    """Another library: its module, and its loops, each of which returns its result."""

    name: str
    module: str
    linear: Callable[[], tuple[float, ...]]  # the three weights after the steps of W1, without logging
    digits: Callable[[], float]  # the loss of the last batch of W3

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.module) is not None


# Lightning


def _lightning(loss: Callable[..., Tensor], parameters: list[Any], optimizer: Any, epochs: int, batches: Any) -> float:
    import logging

    import lightning

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.weights = torch.nn.ParameterList(parameters)
            self.last = 0.0

        def training_step(self, batch: Any, _: int) -> Tensor:
            found = loss(batch)
            self.last = found.detach()
            return found

        def configure_optimizers(self) -> Any:
            return optimizer(self.parameters())

    module = Module()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, batches)
    return float(module.last)


def lightning_linear() -> tuple[float, ...]:
    x1, x2, x3, constant = _linear()
    sgd = functools.partial(torch.optim.SGD, lr=RATE)
    _lightning(
        lambda _: (10 * x1 + 20 * x2 + constant * x3).sum(), [x1, x2, x3], sgd, 1, _Repeated(((),), linear.STEPS)
    )
    return x1.item(), x2.item(), x3.item()


def lightning_digits() -> float:
    model = digits.network()
    return _lightning(
        lambda batch: F.cross_entropy(model(batch[0]), batch[1]),
        list(model.parameters()),
        functools.partial(torch.optim.Adam, lr=0.001),
        digits.EPOCHS,
        _Repeated(tuple(_batches())),
    )


# Ignite


def ignite_linear() -> tuple[float, ...]:
    from ignite.engine import Engine

    x1, x2, x3, constant = _linear()
    optimizer = torch.optim.SGD([x1, x2, x3], lr=RATE)

    def step(_: Engine, __: Any) -> None:
        optimizer.zero_grad()
        f = 10 * x1 + 20 * x2 + constant * x3
        f.backward()
        optimizer.step()

    Engine(step).run(range(linear.STEPS), max_epochs=1)
    return x1.item(), x2.item(), x3.item()


def ignite_digits() -> float:
    from ignite.engine import Engine

    step = _digits_step()
    return float(Engine(lambda _, batch: step(batch)).run(list(_batches()), max_epochs=digits.EPOCHS).output)


# Keras on torch


def keras_linear() -> tuple[float, ...]:
    import keras

    class Linear(keras.Model):
        def build(self, _: Any) -> None:
            self.xs = [self.add_weight(shape=(1,), name=name) for name in ("x1", "x2", "x3")]

        def call(self, inputs: Any) -> Any:
            return 10 * self.xs[0] + 20 * self.xs[1] + inputs * self.xs[2]

    model = Linear()
    model.build((1,))
    for weight, value in zip(model.xs, (100.0, 200.0, 300.0), strict=True):
        weight.assign([value])
    model.compile(keras.optimizers.SGD(RATE), loss=lambda _, predicted: predicted, jit_compile=False)
    constant = torch.full((linear.STEPS, 1), 30.0)
    model.fit(constant, constant, batch_size=1, shuffle=False, verbose=0)
    return tuple(float(weight.numpy()[0]) for weight in model.xs)


def keras_digits() -> float:
    import keras

    weights = {name: weight.numpy() for name, weight in digits.initial_weights().items()}
    model = keras.Sequential([keras.layers.Dense(128, activation="relu"), keras.layers.Dense(10)])
    model.build((None, 64))
    model.set_weights([weights["0.weight"].T, weights["0.bias"], weights["2.weight"].T, weights["2.bias"]])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.001, epsilon=1e-8), loss=loss, jit_compile=False)
    images, labels = digits.digits()
    model.fit(images, labels, batch_size=digits.BATCH, epochs=digits.EPOCHS, shuffle=False, verbose=0)
    *_, last = _batches()
    return float(F.cross_entropy(model(last[0]), last[1]).detach())


# JAX


@functools.cache
def _jax_linear() -> Callable[[Any], Any]:
    import jax

    def objective(x: Any) -> Any:
        return 10 * x[0] + 20 * x[1] + 30 * x[2]

    def step(x: Any, _: None) -> tuple[Any, Any]:
        gradient = jax.grad(objective)(x)
        x = x - RATE * gradient
        return x, (x, gradient)

    return jax.jit(lambda x: jax.lax.scan(step, x, None, length=linear.STEPS))


def jax_linear() -> tuple[float, ...]:
    import jax.numpy as jnp

    x, logged = _jax_linear()(jnp.array([100.0, 200.0, 300.0]))
    logged[0].block_until_ready()
    return tuple(map(float, x))


@functools.cache
def _jax_digits() -> Callable[..., Any]:
    import jax
    import jax.numpy as jnp

    def objective(weights: Any, images: Any, labels: Any) -> Any:
        w1, b1, w2, b2 = weights
        scores = jax.nn.relu(images @ w1.T + b1) @ w2.T + b2
        return -jnp.take_along_axis(jax.nn.log_softmax(scores), labels[:, None], 1).mean()

    def step(weights: Any, first: Any, second: Any, t: Any, images: Any, labels: Any) -> Any:
        loss, gradients = jax.value_and_grad(objective)(weights, images, labels)
        first = [0.9 * m + 0.1 * g for m, g in zip(first, gradients, strict=True)]
        second = [0.999 * v + 0.001 * g * g for v, g in zip(second, gradients, strict=True)]
        rate, root = 0.001 / (1 - 0.9**t), jnp.sqrt(1 - 0.999**t)
        weights = [w - rate * m / (jnp.sqrt(v) / root + 1e-8) for w, m, v in zip(weights, first, second, strict=True)]
        return weights, first, second, loss

    return jax.jit(step)


def jax_digits() -> float:
    import jax.numpy as jnp

    names = ("0.weight", "0.bias", "2.weight", "2.bias")
    weights = [jnp.array(digits.initial_weights()[name].numpy()) for name in names]
    first = [jnp.zeros_like(weight) for weight in weights]
    second, t, loss = list(first), 0.0, None
    batches = [(jnp.array(images.numpy()), jnp.array(labels.numpy())) for images, labels in _batches()]
    for _ in range(digits.EPOCHS):
        for batch in batches:
            t += 1
            weights, first, second, loss = _jax_digits()(weights, first, second, t, *batch)
    return float(loss)


PEERS = (
    Peer("Lightning", "lightning", lightning_linear, lightning_digits),
    Peer("Ignite", "ignite", ignite_linear, ignite_digits),
    Peer("Keras on torch", "keras", keras_linear, keras_digits),
    Peer("JAX", "jax", jax_linear, jax_digits),
)


class Installable(Protocol):
    """A library that may be missing."""

    @property
    def name(self) -> str: ...

    @property
    def installed(self) -> bool: ...


def missing(peers: Iterable[Installable] = PEERS) -> Iterator[str]:
    """Yields a line for each peer that is not installed."""
    for peer in peers:
        if not peer.installed:
            yield f"{peer.name} is not installed: pip install 'steprun[benchmarks]'"


def workloads() -> list[Workload]:
    """Returns the loops of each installed peer against ours, which also record."""
    ours_linear, ours_digits = linear.workloads()[0], digits.workloads()[0]
    found = []
    for peer in filter(lambda peer: peer.installed, PEERS):
        for name, ours, theirs, verify in (
            (NAMES[0], ours_linear, peer.linear, _verify_linear),
            (NAMES[1], ours_digits, peer.digits, _verify_digits),
        ):
            check = functools.partial(verify, peer)
            found.append(replace(ours, name=name, against=peer.name, theirs=theirs, reach=None, verify=check))
    return found


def _verify_linear(peer: Peer) -> None:
    expected = torch.cat([x.detach() for x in linear.by_hand()])
    torch.testing.assert_close(torch.tensor(peer.linear()), expected, rtol=RELATIVE, atol=0)


def _verify_digits(peer: Peer) -> None:
    step = _digits_step()
    losses = [step(batch) for _ in range(digits.EPOCHS) for batch in _batches()]
    assert abs(peer.digits() / losses[-1] - 1) < 0.05, f"{peer.name} does not learn the digits as the others do"


def _digits_step() -> Callable[[tuple[Tensor, Tensor]], float]:
    """Returns a hand-written training step of W3, starting from the initial weights."""
    model = digits.network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)

    def step(batch: tuple[Tensor, Tensor]) -> float:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def _linear() -> tuple[Any, Any, Any, Tensor]:
    x1, x2, x3 = (torch.nn.Parameter(torch.tensor([value])) for value in (100.0, 200.0, 300.0))
    return x1, x2, x3, torch.tensor([30.0])


def _batches() -> Iterator[tuple[Tensor, Tensor]]:
    images, labels = digits.digits()
    yield from zip(images.split(digits.BATCH), labels.split(digits.BATCH), strict=True)


class _Repeated:
    """Batches in memory as an iterable with a length, which can be iterated any number of times."""

    def __init__(self, batches: tuple[Any, ...], times: int = 1) -> None:
        self.batches, self.times = batches, times

    def __len__(self) -> int:
        return len(self.batches) * self.times

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self.times):
            yield from self.batches
