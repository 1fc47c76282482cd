"""The capabilities of the language, each as a small config and as the same loop written by hand."""
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import Parameter

from tests.promises.goes_with.by_hand import Hand, default_objective
from tests.promises.goes_with.loops import (
    accumulated,
    accumulated_ratio,
    adam,
    assigned,
    autocast,
    clipped,
    clipped_parts,
    counting,
    dated,
    evaluated,
    filled_mean,
    filled_median,
    folded,
    from_halves,
    in_batches,
    in_groups,
    kept_batch,
    masked,
    momentum,
    numbered,
    of_a_gradient,
    of_a_parameter,
    one_hot,
    parts,
    passes,
    patient,
    plateau,
    rescaled,
    ruled,
    scaled_autocast,
    scheduled,
    selected,
    shared,
    short_form,
    shuffled,
    state_assigned,
    stopped,
    warm,
    where,
    with_forward,
    with_slope,
    with_worst,
)

Optimizer = Callable[[Sequence[Parameter]], torch.optim.Optimizer]


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


ADAM = "optimizer: {adam: {lr: 0.05}}\n"
EPOCHS = "steps: {epochs: 2}\n"
EVALUATED = IN_PASSES % "train, {evaluate: valid}"
FILLED = "expression: |\n  h = {h}\n  loss = (h - y - 0.1 * gap.unsqueeze(1)).abs().square().mean()\n"
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
    "`select: {from, to}`": Capability(
        "data:\n  train: {columns: {x: x.npy, y: y.npy}, select: {from: 800, to: 4000}, batch_size: 800}\n", selected
    ),
    "`select: {where}`": Capability(
        "data:\n  train: {file: train.parquet, columns: {x: ['x*'], y: ['y*']}, batch_size: 800, "
        "select: kind == 'more' or gap is not missing}\n",
        where,
    ),
    "`select: {share}`, `drop_last`": Capability(
        "data:\n  train: {columns: {x: x.npy, y: y.npy}, batch_size: 900, drop_last: true, "
        "select: {share: [0, 0.8], seed: 5}}\n",
        shared,
    ),
    "`select: {fold, stratify}`": Capability(
        "data:\n  train: {file: train.parquet, columns: {x: ['x*'], y: ['y*']}, batch_size: 800, "
        "select: {fold: 1, of: 4, stratify: kind}}\n",
        folded,
    ),
    "`shuffle`": Capability(
        "data:\n  train: {columns: {x: x.npy, y: y.npy}, shuffle: true, batch_size: 800}\n", shuffled
    ),
    "tables of text, globs of columns": Capability(TABLE % "csv"),
    "tables in Parquet, globs of columns": Capability(TABLE % "parquet"),
    "`classes`, `fill`": Capability(
        "data:\n  train: {file: train.parquet, columns: {x: ['x*'], y: ['y*'], k: kind, gap: gap}, batch_size: 800, "
        "classes: {k: sorted}, fill: {gap: 0.25}}\n"
        "expression: |\n  h = {h}\n  shift = 0.1 * (k * gap).unsqueeze(1)\n"
        "  loss = (h - y - shift).abs().square().mean()\n",
        objective=numbered,
    ),
    "`one_hot`": Capability(
        "data:\n  train: {file: train.parquet, columns: {x: ['x*'], y: ['y*'], k: kind}, batch_size: 800, "
        "one_hot: {k: [more, less]}}\n"
        "expression: |\n  h = {h}\n  loss = (h - y - 0.5 * k).abs().square().mean()\n",
        objective=one_hot,
    ),
    "`dates`": Capability(
        "data:\n  train: {file: train.parquet, columns: {x: ['x*'], y: ['y*'], d: day}, batch_size: 800, "
        "dates: {d: days}}\n"
        "expression: |\n  h = {h}\n  loss = (h - y - 0.01 * d.unsqueeze(1)).abs().square().mean()\n",
        objective=dated,
    ),
    "`missing` with `fill` of text": Capability(
        "data:\n  train: {file: written.csv, columns: {x: ['x*'], y: ['y*'], gap: gap}, batch_size: 800, "
        "delimiter: ';', decimal: ',', missing: [NA, '-1'], fill: {gap: median}}\n" + FILLED,
        objective=filled_median,
    ),
    "`missing` with `fill` of Parquet": Capability(
        "data:\n  train: {file: train.parquet, columns: {x: ['x*'], y: ['y*'], gap: gap}, batch_size: 800, "
        "missing: [null], fill: {gap: mean}}\n" + FILLED,
        objective=filled_mean,
    ),
    "several files of one source": Capability(
        "data:\n  train: {file: part-*.parquet, columns: {x: ['*'], y: [y0, y1]}, batch_size: 800}\n"
    ),
    "columns in `init`": Capability(
        "constants: {largest: {init: {expression: train.y.amax(0)}}}\n"
        "expression: |\n  h = {h}\n  loss = (h - y / largest).abs().square().mean()\n",
        objective=rescaled,
    ),
    "`from_run`": Capability("from_run: {dtype}.safetensors\n", from_halves),
    "`stacked`": Capability("parameters: {w: {init: {w}, stacked: 1}, b: {init: {b}}}\nlog: {tensors: stats}\n"),
    "`autocast`": Capability("autocast: bfloat16\n", autocast),
    "`loss_scale`": Capability(
        "autocast: {dtype: bfloat16, loss_scale: {init_scale: 1024, growth_interval: 4}}\n", scaled_autocast
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
    "`load_model`": Capability(proof="applied"),
    "`apply` to a file": Capability(
        "expression: |\n  h = {h}\n  size = h.abs()\n  loss = (h - y).abs().square().mean()\n",
        proof="applied to a file",
    ),
    "`report`": Capability(proof="reported"),
    "`sweep`, left out by `run`": Capability("sweep: {grid: {seed: range(4)}}\n"),
    "`halving`": Capability(
        IN_PASSES % "train, {evaluate: valid}"
        + "sweep: {grid: {seed: range(2)}, objective: {minimize: loss}, halving: {at: [4], keep: 1/2}}\n",
        evaluated,
        proof="halved",
    ),
}
