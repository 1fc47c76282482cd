"""Updates of SGD, Adam and AdamW for all lanes, with one learning rate or one for each lane.

They write in place, some lanes at a time, so that a parameter, its state and intermediates stay in the cache. Each
element gets the operations of `torch.optim`'s own loop. Whether it gets their bits in a tensor of lanes is tried first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from runner.engine.lanes.operations.same_bits import same_bits, trial_lanes
from runner.optim.updates import PIECE

Rate = float | Tensor
"""A learning rate, or one for each lane: float64 `(lanes,)`."""

Options = Mapping[str, Any]
Update = Callable[[Options, Tensor, Tensor, Sequence[Tensor], float, Rate], None]
"""Takes `(options, weights, gradients, state, t, rate)`; writes the weights and the state `(lanes, *s)` in place."""

ADAM = ("exp_avg", "exp_avg_sq")
MOMENTUM = ("momentum_buffer",)

_TRIAL_STEP = 3.0
_TRIAL_RATE = 0.1
"""The first rate of a schedule may be 0 or 1, with which any order of operations gives the same bits."""


def update_of(optimizer: Optimizer) -> Update:
    """The update of an optimizer: SGD, Adam or AdamW."""
    return sgd if isinstance(optimizer, SGD) else adam


def sgd(options: Options, weight: Tensor, gradient: Tensor, entries: Sequence[Tensor], t: float, rate: Rate) -> None:
    """The update in the documentation of `torch.optim.SGD`; at `t` 1 the momentum buffer becomes the gradient."""
    if options["maximize"]:
        gradient = -gradient
    if options["weight_decay"] != 0:
        gradient = gradient.add(weight, alpha=options["weight_decay"])
    momentum = options["momentum"]
    if momentum != 0:
        (buffer,) = entries
        if t == 1:
            buffer.copy_(gradient)
        else:
            buffer.mul_(momentum).add_(gradient, alpha=1 - options["dampening"])
        gradient = gradient.add(buffer, alpha=momentum) if options["nesterov"] else buffer
    if isinstance(rate, Tensor):
        weight.addcmul_(gradient, along(-rate, weight).expand_as(weight))
    else:
        weight.add_(gradient, alpha=-rate)


def adam(options: Options, weight: Tensor, gradient: Tensor, entries: Sequence[Tensor], t: float, rate: Rate) -> None:
    """The update in the documentation of `torch.optim.Adam` and `AdamW`, without `amsgrad`."""
    (beta1, beta2), decay = options["betas"], options["weight_decay"]
    average, square = entries
    if options["maximize"]:
        gradient = -gradient
    if decay != 0:
        if options["decoupled_weight_decay"]:
            kept = 1 - rate * decay
            weight.mul_(along(kept, weight) if isinstance(kept, Tensor) else kept)
        else:
            gradient = gradient.add(weight, alpha=decay)
    average.lerp_(gradient, 1 - beta1)
    square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    denominator = square.sqrt().div_((1 - beta2**t) ** 0.5).add_(options["eps"])
    scaled = -(rate / (1 - beta1**t))
    if isinstance(scaled, Tensor):
        weight.addcdiv_(along(scaled, weight) * average, denominator)
    else:
        weight.addcdiv_(average, denominator, value=scaled)


def along(numbers: Tensor, lanes: Tensor) -> Tensor:
    """A number of each lane `(lanes,)` in the dtype and rank of a tensor of lanes."""
    return numbers.to(lanes.dtype).reshape(-1, *[1] * (lanes.dim() - 1))


def update_together(
    update: Update, options: Options, weight: Tensor, gradient: Tensor, entries: Sequence[Tensor], t: float, rate: Rate
) -> None:
    """Update all lanes, some at a time."""
    size = max(1, PIECE // max(1, weight[0].numel()))
    if size >= len(weight):
        update(options, weight, gradient, entries, t, rate)
        return
    parts = [torch.split(each, size) for each in (weight, gradient, *entries)]
    rates = torch.split(rate, size) if isinstance(rate, Tensor) else [rate] * len(parts[0])
    for part, own, *state, each in zip(*parts, rates, strict=True):
        update(options, part, own, state, t, each)


def update_each(
    update: Update, options: Options, weight: Tensor, gradient: Tensor, entries: Sequence[Tensor], t: float, rate: Rate
) -> None:
    """Update one lane after another, each in memory of its own, as a run alone does."""
    rates = rate.tolist() if isinstance(rate, Tensor) else [rate] * len(weight)
    for lane, own in enumerate(rates):
        given = [each[lane].clone() for each in (weight, gradient, *entries)]
        update(options, given[0], given[1], given[2:], t, own)
        for whole, part in zip((weight, *entries), (given[0], *given[2:]), strict=True):
            whole[lane].copy_(part)


def gives_bits(
    update: Update, options: Options, weight: Tensor, gradient: Tensor, entries: Sequence[Tensor], rate: Rate
) -> bool:
    """Whether updating all lanes together gives the bits of each alone, on random numbers of both signs."""
    generator = torch.Generator().manual_seed(0)
    lanes = max(len(weight), trial_lanes(weight[0].numel()))
    rates = rate.repeat(-(-lanes // len(rate)))[:lanes] if isinstance(rate, Tensor) else _TRIAL_RATE

    def random(lanes_of: Tensor) -> Tensor:
        made = torch.empty((lanes, *lanes_of.shape[1:]), dtype=lanes_of.dtype)
        return made.normal_(generator=generator)

    given = [random(weight), random(gradient), *[random(each).abs_() for each in entries]]
    one, other = [each.clone() for each in given], [each.clone() for each in given]
    update_together(update, options, one[0], one[1], one[2:], _TRIAL_STEP, rates)
    update_each(update, options, other[0], other[1], other[2:], _TRIAL_STEP, rates)
    return all(map(same_bits, one, other))
