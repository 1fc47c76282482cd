"""Promise 1: the eager engine gives bit for bit what the same computation written by hand in torch gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter

import runner
from runner.plan.streams import stream_seed
from tests.engine.running import compiled, copied, numbers, rows_of, same

Weights = Mapping[str, Parameter]
Forward = Callable[[Weights, Mapping[str, Tensor]], dict[str, Tensor]]

STEPS = 5

LINEAR = """\
parameters: {w: {shape: [3, 2], init: normal}, b: {shape: [2], init: zeros}}
constants: {x: {shape: [8, 3], init: normal}, y: {shape: [8, 2], init: uniform}}
expression: |
  out = linear(x, w.T, b)
  loss = mse_loss(out, y)
"""


def linear(p: Weights, c: Mapping[str, Tensor]) -> dict[str, Tensor]:
    out = F.linear(c["x"], p["w"].T, p["b"])
    return {"out": out, "loss": F.mse_loss(out, c["y"])}


MLP = """\
parameters:
  w1: {shape: [4, 16], init: {normal: {std: 0.3}}}
  b1: {shape: [16], init: zeros}
  w2: {shape: [16, 5], init: xavier_uniform}
constants:
  x: {shape: [10, 4], init: normal}
  labels: [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
functions:
  layer(v, w, b): gelu(v @ w + b)
expression: |
  h = layer(x, w1, b1)
  logits = layer_norm(h, [16]) @ w2
  loss = cross_entropy(logits, labels, label_smoothing=0.1)
"""


def mlp(p: Weights, c: Mapping[str, Tensor]) -> dict[str, Tensor]:
    h = F.gelu(c["x"] @ p["w1"] + p["b1"])
    logits = F.layer_norm(h, [16]) @ p["w2"]
    return {"h": h, "logits": logits, "loss": F.cross_entropy(logits, c["labels"], label_smoothing=0.1)}


CONV = """\
parameters:
  kernel: {shape: [4, 1, 3, 3], init: {kaiming_normal: {nonlinearity: relu}}}
  head: {shape: [4, 3], init: normal}
constants:
  images: {shape: [6, 1, 8, 8], init: normal}
  labels: [0, 1, 2, 0, 1, 2]
expression: |
  maps = max_pool2d(relu(conv2d(images, kernel, padding=1)), 2)
  logits = maps.mean(dim=(2, 3)) @ head
  loss = cross_entropy(logits, labels)
"""


def conv(p: Weights, c: Mapping[str, Tensor]) -> dict[str, Tensor]:
    maps = F.max_pool2d(F.relu(F.conv2d(c["images"], p["kernel"], padding=1)), 2)
    logits = maps.mean(dim=(2, 3)) @ p["head"]
    return {"maps": maps, "logits": logits, "loss": F.cross_entropy(logits, c["labels"])}


EMBEDDING = """\
parameters: {table: {shape: [7, 4], init: normal}, head: {shape: [4], init: ones}}
constants: {tokens: [[0, 1, 2], [2, 2, 6]], y: [1.0, -1.0]}
expression: |
  vectors = embedding(tokens, table)
  loss = ((vectors.mean(1) @ head - y) ** 2).sum()
"""


def embedding(p: Weights, c: Mapping[str, Tensor]) -> dict[str, Tensor]:
    vectors = F.embedding(c["tokens"], p["table"])
    return {"vectors": vectors, "loss": ((vectors.mean(1) @ p["head"] - c["y"]) ** 2).sum()}


PENALTY = """\
parameters: {w: {shape: [3], init: normal}, v: {shape: [3], init: normal}}
constants: {x: {shape: [3], init: normal}}
expression: |
  u = tanh(w * x).sum() + (v * w ** 3).sum()
  slope = grad(u, [w, x])
  loss = 0.01 * (u + slope[0].pow(2).sum() + (slope[1] * v).sum())
"""


def penalty(p: Weights, c: Mapping[str, Tensor]) -> dict[str, Tensor]:
    x = c["x"].clone().requires_grad_()
    u = torch.tanh(p["w"] * x).sum() + (p["v"] * p["w"] ** 3).sum()
    slope = torch.autograd.grad(u, [p["w"], x], create_graph=True)
    return {"u": u, "loss": 0.01 * (u + slope[0].pow(2).sum() + (slope[1] * p["v"]).sum())}


UNROLLED = """\
parameters: {w: {shape: [3, 3], init: orthogonal}, h0: {shape: [3], init: ones}}
constants: {n: 4, x: {shape: [4, 3], init: normal}}
expression: |
  h = h0
  for i in range(n):
    h = tanh(h @ w + x[i])
  a, b = chunk(h[:2], 2)
  loss = h.square().sum() + a.sum() * b.sum()
"""


def unrolled(p: Weights, c: Mapping[str, Tensor]) -> dict[str, Tensor]:
    h: Tensor = p["h0"]
    for i in range(4):
        h = torch.tanh(h @ p["w"] + c["x"][i])
    a, b = torch.chunk(h[:2], 2)
    return {"h": h, "a": a, "b": b, "loss": h.square().sum() + a.sum() * b.sum()}


MODELS: dict[str, tuple[str, Forward]] = {
    "linear": (LINEAR, linear),
    "mlp": (MLP, mlp),
    "conv": (CONV, conv),
    "embedding": (EMBEDDING, embedding),
    "double backward": (PENALTY, penalty),
    "unrolled": (UNROLLED, unrolled),
}


def constants_of(plan: runner.Plan) -> dict[str, Tensor]:
    """The constants a run starts from; how they are drawn is tested with the tensors."""
    from runner.engine import initial_state

    return initial_state(plan).constants


def hold_training(
    text: str, forward: Forward, make: Callable[[list[Parameter]], torch.optim.Optimizer], seed: int | None = None
) -> None:
    plan = compiled(text)
    constants = constants_of(plan)
    rows = runner.execute(plan)
    start = numbers(next(rows))
    weights = {name: Parameter(value.clone()) for name in plan.trainable if (value := start[name]) is not None}
    optimizer = make(list(weights.values()))
    for number, row in enumerate(rows, 1):
        if seed is not None:
            torch.manual_seed(stream_seed(seed, "expression", "", number))
        optimizer.zero_grad()
        values = forward(weights, constants)
        values["loss"].backward()
        optimizer.step()
        wanted: dict[str, Tensor | None] = {name: copied(value) for name, value in values.items()}
        for name, weight in weights.items():
            wanted |= {name: copied(weight), f"{name}.grad": copied(weight.grad)}
        wrong = [name for name, value in wanted.items() if not same(row[name], value)]
        assert not wrong, f"row {number}: {wrong}"
    assert number == STEPS


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("model", MODELS)
def test_what_you_read_is_what_ran(model: str, dtype: str) -> None:
    text, forward = MODELS[model]
    if dtype == "bfloat16":
        text = text.replace("init: orthogonal", "init: xavier_normal")
    head = f"dtype: {dtype}\noptimizer: {{sgd: {{lr: 0.05, momentum: 0.9}}}}\nsteps: {STEPS}\n"
    hold_training(head + text, forward, lambda held: torch.optim.SGD(held, lr=0.05, momentum=0.9))


OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, object]]] = {
    "{adadelta: {}}": (torch.optim.Adadelta, {}),
    "{adafactor: {}}": (torch.optim.Adafactor, {}),
    "{adagrad: {lr_decay: 0.1}}": (torch.optim.Adagrad, {"lr_decay": 0.1}),
    "{adam: {amsgrad: true, weight_decay: 0.1}}": (torch.optim.Adam, {"amsgrad": True, "weight_decay": 0.1}),
    "{adam: {betas: [0.8, 0.9]}}": (torch.optim.Adam, {"betas": (0.8, 0.9)}),
    "{adamax: {}}": (torch.optim.Adamax, {}),
    "{adamw: {lr: 0.01}}": (torch.optim.AdamW, {"lr": 0.01}),
    "{asgd: {}}": (torch.optim.ASGD, {}),
    "{nadam: {decoupled_weight_decay: true, weight_decay: 0.1}}": (
        torch.optim.NAdam,
        {"decoupled_weight_decay": True, "weight_decay": 0.1},
    ),
    "{radam: {}}": (torch.optim.RAdam, {}),
    "{rmsprop: {centered: true, momentum: 0.5}}": (torch.optim.RMSprop, {"centered": True, "momentum": 0.5}),
    "{rprop: {}}": (torch.optim.Rprop, {}),
    "{sgd: {lr: 0.1, nesterov: true, momentum: 0.9, maximize: true}}": (
        torch.optim.SGD,
        {"lr": 0.1, "nesterov": True, "momentum": 0.9, "maximize": True},
    ),
    "{sgd: {lr: 0.1, foreach: true}}": (torch.optim.SGD, {"lr": 0.1, "foreach": True}),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_is_torchs_own(optimizer: str) -> None:
    kind, options = OPTIMIZERS[optimizer]
    text = f"optimizer: {optimizer}\nsteps: {STEPS}\n" + MLP
    hold_training(text, mlp, lambda held: kind(held, **options))  # type: ignore[call-arg, arg-type]


DROPOUT = """\
seed: 11
parameters: {w: {shape: [4, 8], init: normal}, v: {shape: [8], init: normal}}
constants: {x: {shape: [6, 4], init: normal}}
expression: |
  h = dropout(relu(x @ w), 0.5, training) + 0.1 * randn(8)
  loss = (h @ v).square().mean()
"""


def test_random_numbers_come_from_the_documented_streams() -> None:
    def forward(p: Weights, c: Mapping[str, Tensor]) -> dict[str, Tensor]:
        h = F.dropout(F.relu(c["x"] @ p["w"]), 0.5, True) + 0.1 * torch.randn(8)
        return {"h": h, "loss": (h @ p["v"]).square().mean()}

    text = DROPOUT + f"optimizer: {{adam: {{}}}}\nsteps: {STEPS}\n"
    hold_training(text, forward, lambda held: torch.optim.Adam(held), seed=11)


def test_complex_parameters() -> None:
    def forward(p: Weights, c: Mapping[str, Tensor]) -> dict[str, Tensor]:
        z = p["z"] * p["a"] + torch.complex(p["a"], p["a"])
        return {"z2": z, "loss": z.abs().square().sum()}

    text = """\
parameters: {z: {shape: [3], init: normal, dtype: complex64}, a: {shape: [3], init: normal}}
expression: |
  z2 = z * a + complex(a, a)
  loss = z2.abs().square().sum()
optimizer: {adam: {lr: 0.1}}
steps: 5
"""
    hold_training(text, forward, lambda held: torch.optim.Adam(held, lr=0.1))


def test_mixed_dtypes() -> None:
    def forward(p: Weights, c: Mapping[str, Tensor]) -> dict[str, Tensor]:
        h = p["a"].to(torch.float64) * p["b"]
        return {"h": h, "loss": h.square().sum()}

    text = """\
parameters: {a: {shape: [3], init: normal}, b: {shape: [3], init: normal, dtype: float64}}
expression: |
  h = a.to(float64) * b
  loss = h.square().sum()
optimizer: {rmsprop: {lr: 0.1}}
steps: 5
"""
    hold_training(text, forward, lambda held: torch.optim.RMSprop(held, lr=0.1))


def test_a_tied_parameter_gets_both_gradients() -> None:
    def forward(p: Weights, c: Mapping[str, Tensor]) -> dict[str, Tensor]:
        h = c["x"] @ p["w"]
        return {"h": h, "loss": (torch.tanh(h) @ p["w"].T - c["x"]).square().sum()}

    text = """\
parameters: {w: {shape: [4, 2], init: normal}}
constants: {x: {shape: [3, 4], init: normal}}
expression: |
  h = x @ w
  loss = (tanh(h) @ w.T - x).square().sum()
optimizer: {sgd: {lr: 0.01}}
steps: 5
"""
    hold_training(text, forward, lambda held: torch.optim.SGD(held, lr=0.01))


def test_a_branch_of_the_iteration_computes_its_own_side_alone() -> None:
    w = Parameter(torch.tensor([1.0, 2.0]))
    wanted = []
    for iteration in range(1, 5):
        w.grad = None
        loss = (w**2).sum() if iteration % 2 else torch.log(w).sum()
        loss.backward()
        wanted.append((copied(loss), copied(w.grad)))
    text = """\
parameters: {w: [1.0, 2.0]}
expression: loss = (w ** 2).sum() if iteration % 2 else log(w).sum()
steps: [{repeat: {times: 4, steps: [zero_grad, backward]}}]
"""
    for row, (loss, gradient) in zip(rows_of(text)[2::2], wanted, strict=True):
        assert same(row["loss"], loss)
        assert same(row["w.grad"], gradient)
