"""The capabilities of the language, each as a small config and as the same loop written by hand."""
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from sklearn.metrics import f1_score
from torch import Tensor
from torch.nn import Parameter

from tests.promises.goes_with.by_hand import Hand, default_objective

Optimizer = Callable[[Sequence[Parameter]], torch.optim.Optimizer]


def momentum(parameters: Sequence[Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


def adam(parameters: Sequence[Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.05)


def passes(hand: Hand) -> None:
    for batch in hand.batches(2):
        hand.train(batch)


@dataclass(frozen=True, slots=True)
class Capability:
    """A row of the table.

    Its config has `{h}` where the model of a column stands, and `{optimizer}` where its optimizer does.
    """

    config: str = ""  # top-level keys besides those of `SKELETON`, or instead of them
    loop: Callable[[Hand], None] = passes
    objective: Callable[[Hand, Tensor, Tensor], Tensor] = default_objective
    optimizer: Optimizer = momentum
    measured: tuple[str, ...] = ("loss", "valid.loss")
    rounded: bool = False  # whether measured values are compared up to rounding
    as_column: str = ""  # the column whose capability this row is
    proof: str = ""  # what is proved instead of the steps
    instead: Mapping[str, str] = field(default_factory=dict)  # keys that differ in a column


SKELETON = """
seed: 3
parameters: {w: {init: {w}}, b: {init: {b}}}
data:
  train: {columns: {x: x.npy, y: y.npy}, batch_size: 800}
  valid: {columns: {x: x_valid.npy, y: y_valid.npy}}
expression: |
  h = {h}
  loss = (h - y).abs().square().mean()
optimizer: {sgd: {lr: 0.1, momentum: 0.9}}
steps: {epochs: 2}
"""
"""What a capability does not say."""

IN_PASSES = "steps: [{for_each: {data: train, epochs: 2, steps: [%s]}}]\n"


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


def shuffled(hand: Hand) -> None:
    for batch in hand.batches(2, shuffled=True):
        hand.train(batch)


def rescaled(hand: Hand, x: Tensor, y: Tensor) -> Tensor:
    return (hand.hidden(x) - y / hand.y.amax(0)).abs().square().mean()


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


ADAM = "optimizer: {adam: {lr: 0.05}}\n"
EPOCHS = "steps: {epochs: 2}\n"
EVALUATED = IN_PASSES % "train, {evaluate: valid}"
TABLE = "data:\n  train: {file: train.%s, columns: {x: ['x*'], y: ['y*']}, batch_size: 800}\n"

CAPABILITIES: Mapping[str, Capability] = {
    "`train`": Capability(),
    "`backward`, `step`, `zero_grad`": Capability(IN_PASSES % "zero_grad, backward, step", parts),
    "`backward` of a `gradient`": Capability(
        IN_PASSES % "zero_grad, {backward: {objective: loss, gradient: 0.5, parameters: [w]}}, step", of_a_gradient
    ),
    "`clip_grad_norm`, `clip_grad_value`": Capability(
        IN_PASSES % "zero_grad, backward, {clip_grad_norm: 0.05}, {clip_grad_value: 0.02}, step", clipped_parts
    ),
    "`train` with clipping": Capability(IN_PASSES % "{train: {clip_grad_norm: 0.05, clip_grad_value: 0.02}}", clipped),
    "`train` with `accumulate`": Capability(
        "steps: [{repeat: {times: 5, steps: [{train: {accumulate: 5}}]}}]\n", accumulated, measured=()
    ),
    "`forward`": Capability(IN_PASSES % "train, {forward: loss}", with_forward),
    "`assign` of weights": Capability(
        "parameters: {w: {init: {w}}, b: {init: {b}}, average: {init: {expression: w}, requires_grad: false}}\n"
        + IN_PASSES % "train, {assign: {average: 0.9 * average + 0.1 * w}}, {assign: {w: 0.75 * w + 0.25 * average}}",
        assigned,
    ),
    "`assign` of optimizer state": Capability(
        ADAM + IN_PASSES % "train, {assign: {w.exp_avg: 0.5 * w.exp_avg}}", state_assigned, optimizer=adam
    ),
    "`expect`": Capability(
        IN_PASSES % "train, {expect: {loss > 0: true, w: w, b.grad: b.grad + 0, 'b.grad.shape[0]': 2}}"
    ),
    "`evaluate`": Capability(EVALUATED, evaluated),
    "`evaluate` in batches": Capability(
        "data:\n  train: {columns: {x: x.npy, y: y.npy}, batch_size: 800}\n"
        "  valid: {columns: {x: x_valid.npy, y: y_valid.npy}, batch_size: 25}\n"
        "metrics:\n  q: {whole: (h - y).abs().median()}\n  worst: {max: (h - y).abs()}\n"
        "  z: {sum: (h - y) * (y > 0), over: y > 0}\n" + EVALUATED,
        in_batches,
        measured=("valid.loss", "valid.q", "valid.worst", "valid.z"),
        rounded=True,
    ),
    "`checkpoint`": Capability(IN_PASSES % "train, {checkpoint: here, every: 2}"),
    "`every`, `when`, `stop`": Capability(
        IN_PASSES % "train, {evaluate: valid, every: 3}, {stop: , when: iteration == 7}", stopped
    ),
    "`next`, `train` on the same batch": Capability(
        "steps: [{repeat: {times: 5, steps: [next: train, train: {data: null}, train: {data: null}]}}]\n", kept_batch
    ),
    "`reduce_lr_on_plateau`": Capability(
        "parameters: {w: {init: {w}}, b: {init: {b}}, rate: {init: 0.4, requires_grad: false}}\n"
        "optimizer: {sgd: {lr: rate, momentum: 0.9}}\n"
        + IN_PASSES
        % (
            "train, {evaluate: valid}, "
            "{reduce_lr_on_plateau: {rate: rate, 'on': valid.loss, factor: 0.5, patience: 0, threshold: 0.01}}"
        ),
        plateau,
    ),
    "`patience`, `checkpoint` of the best": Capability(
        "steps: [{for_each: {data: train, epochs: 6, steps: [train, {evaluate: valid}, "
        "{checkpoint: {best: valid.loss}}, {patience: {'on': valid, evaluations: 2}}]}}]\n",
        patient,
    ),
    "`steps: {epochs, evaluate, patience}`": Capability(
        "steps: {epochs: 2, evaluate: valid, patience: 5}\n", short_form
    ),
    "`grad(y, x)`": Capability(
        "expression: |\n  h = {h}\n  plain = (h - y).abs().square().mean()\n"
        "  loss = plain + 0.1 * grad(plain, w).abs().square().sum()\n",
        objective=with_slope,
    ),
    "`functions`": Capability(
        "functions: {'distance(a, b)': (a - b).abs().square()}\n"
        "expression: |\n  h = {h}\n  loss = distance(h, y).mean()\n"
    ),
    "`iteration` as a number": Capability(
        "expression: |\n  h = {h}\n  loss = (h - y).abs().square().mean() / iteration\n",
        counting,
        lambda hand, x, y: default_objective(hand, x, y) / hand.iteration,
    ),
    "`iteration` as a condition": Capability(
        "expression: |\n  h = {h}\n  wrong = (h - y).abs()\n"
        "  loss = wrong.mean() if iteration < 4 else wrong.square().mean()\n",
        counting,
        lambda hand, x, y: (
            (hand.hidden(x) - y).abs().mean() if hand.iteration < 4 else (hand.hidden(x) - y).abs().square().mean()
        ),
    ),
    "shapes that depend on data": Capability(
        "expression: |\n  h = {h}\n  loss = (h - y)[x[:, 0] > 0].abs().square().mean()\n",
        objective=lambda hand, x, y: (hand.hidden(x) - y)[x[:, 0] > 0].abs().square().mean(),
    ),
    "`objectives`": Capability(
        "expression: |\n  h = {h}\n  counts = x[:, 0] > 0\n  errors = (h - y).abs().square().sum(1)\n"
        "objectives: {loss: {sum: errors * counts, over: counts}}\n" + EVALUATED,
        evaluated,
        masked,
    ),
    "`objectives` with `accumulate`": Capability(
        "expression: |\n  h = {h}\n  counts = x[:, 0] > 0\n  errors = (h - y).abs().square().sum(1)\n"
        "objectives: {loss: {sum: errors * counts, over: counts}}\n"
        "steps: [{repeat: {times: 5, steps: [{train: {accumulate: 5}}]}}]\n",
        accumulated_ratio,
        masked,
        measured=(),
    ),
    "metrics": Capability(
        "metrics: {worst: {max: (h - y).abs()}, z_f1: 'f1(h[:, 0].abs() > 0.5, y[:, 0] > 0)'}\n" + EVALUATED,
        with_worst,
        measured=("loss", "valid.loss", "valid.worst", "valid.z_f1"),
        rounded=True,
    ),
    "schedules of `t`": Capability("optimizer: {sgd: {lr: 0.1 / t, momentum: 0.9}}\n", scheduled),
    "hyperparameters of parameters": Capability(
        "parameters: {w: {init: {w}}, b: {init: {b}}, rate: {init: 0.1, requires_grad: false}}\n"
        "optimizer: {sgd: {lr: rate * 0.5, momentum: 0.9}}\n" + IN_PASSES % "train, {assign: {rate: rate * 0.9}}",
        of_a_parameter,
    ),
    "parameter groups": Capability(
        "optimizer: {sgd: {lr: 0.1, momentum: 0.9}, groups: [{parameters: [b], lr: 0.01}]}\n",
        optimizer=in_groups,
        instead={
            "two optimizers": "optimizers:\n  first: {sgd: {lr: 0.1, momentum: 0.9}, parameters: [w]}\n"
            "  second: {sgd: {lr: 0.1, momentum: 0.9}, parameters: [b], groups: [{parameters: [b], lr: 0.01}]}\n"
        },
    ),
    "initial state of an optimizer": Capability(
        "optimizer: {sgd: {lr: 0.1, momentum: 0.9}, state: {w: {momentum_buffer: 0.1}}}\n", warm
    ),
    "rules": Capability(
        'optimizer: {rule: {state: {v: 0}, update: "v = 0.9 * v + grad\\nparam = param - 0.1 * v"}}\n', ruled
    ),
    "`select`": Capability(
        "data:\n  train: {columns: {x: x.npy, y: y.npy}, select: {from: 800, to: 4000}, batch_size: 800}\n", selected
    ),
    "`shuffle`": Capability(
        "data:\n  train: {columns: {x: x.npy, y: y.npy}, shuffle: true, batch_size: 800}\n", shuffled
    ),
    "tables of text": Capability(TABLE % "csv"),
    "tables in Parquet": Capability(TABLE % "parquet"),
    "columns in `init`": Capability(
        "constants: {largest: {init: {expression: train.y.amax(0)}}}\n"
        "expression: |\n  h = {h}\n  loss = (h - y / largest).abs().square().mean()\n",
        objective=rescaled,
    ),
    "`from_run`": Capability("from_run: {dtype}.safetensors\n", from_halves),
    "`stacked`": Capability("parameters: {w: {init: {w}, stacked: 1}, b: {init: {b}}}\nlog: {tensors: stats}\n"),
    "`autocast`": Capability("autocast: bfloat16\n", lambda hand: _autocast(hand)),
    "`loss_scale`": Capability(
        "autocast: {dtype: bfloat16, loss_scale: {init_scale: 1024, growth_interval: 4}}\n", lambda hand: _scaled(hand)
    ),
    "`log`": Capability("log: {tensors: stats, state: true, every: 3}\n", measured=()),
    "`health`": Capability(
        "health: {exploding_gradient: 1.0e-3, vanishing_gradient: 1.0e-9, unchanged: 3, update_ratio: [1.0e-6, 0.1]}\n"
    ),
    "`dtype: bfloat16`": Capability(as_column="bfloat16"),
    "complex parameters": Capability(as_column="complex"),
    "several optimizers": Capability(as_column="two optimizers"),
    "`lbfgs`": Capability(as_column="L-BFGS"),
    "random operations": Capability(as_column="random numbers"),
    "data larger than memory": Capability(as_column="larger than memory"),
    "`on_nonfinite`": Capability(
        "expression: |\n  h = {h}\n  loss = (h - y).abs().square().mean() * w.abs().square().sum()\n"
        "optimizer: {sgd: {lr: 1.0e+30}}\n",
        objective=lambda hand, x, y: default_objective(hand, x, y) * hand.w.abs().square().sum(),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e30),
        proof="fails",
    ),
    "`resume` of a longer run": Capability(EPOCHS, proof="longer"),
    "`apply`, `load_model`": Capability(proof="applied"),
}


def _autocast(hand: Hand) -> None:
    hand.autocast = True
    passes(hand)


def _scaled(hand: Hand) -> None:
    hand.autocast = True
    scaled(hand)
