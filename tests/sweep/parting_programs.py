"""Random programs whose lanes part: loops with `stop`, `patience`, `when` on tensors, and rates that follow results."""

from __future__ import annotations

import random
import re

HEAD = """\
parameters: {{w: {{shape: [5], init: {{normal: {{std: 1}}}}}}{declared}}}
constants: {{speed: 0.1, decay: 0.1}}
data:
  valid: {{file: valid.npz, columns: {{x: x}}}}
  train: {{file: valid.npz, columns: {{x: x}}, batch_size: 3, shuffle: true}}
expression: loss = ((x - {model}) ** 2).mean() + decay * w.sum()
optimizer: {optimizer}
steps: {steps}
log: {{every: {every}}}
"""
FROZEN = {"best": "inf", "r": "0.2", "n": "0"}
"""Parameters that steps write, with their initial values; a program declares those that it reads."""

CONDITIONS = (
    *("loss < 0.5", "loss < 0.9", "loss < 1.4", "valid.loss < 0.7", "valid.loss < 1.1", "valid.loss < best"),
    *("w[0] > 0", "n > 2", "iteration % 2 == 0", "w.sum() > 0.5"),
)
ASSIGNED = (
    "best: valid.loss",
    "w: 0.9 * w, n: n + 1",
    "n: n + 1",
    "w.grad: w",
    "r: 0.5 * r",
    "w.exp_avg: 0.5 * w.exp_avg",
)
OPTIMIZERS = ("{adam: {lr: speed}}", "{adam: {lr: r}}", "{adam: {lr: r * 0.9 ** t}}", "{adamw: {lr: speed}}")


def program(seed: int) -> str:
    """A config that may be valid or not, the same for the same seed."""
    drawn = random.Random(seed)
    first = "{forward: loss}, {evaluate: valid}, {train: {data: train}}"
    before = ", ".join(_step(drawn, 0, looped=False) for _ in range(drawn.choice([1, 2, 3])))
    body = ", ".join(_step(drawn, 1, looped=True) for _ in range(drawn.choice([2, 3, 4])))
    after = f", {_step(drawn, 0, looped=False)}" if drawn.random() < 0.6 else ""
    steps = f"[{first}, {before}, {{repeat: {{times: 8, steps: [{body}]}}}}{after}]"
    optimizer = drawn.choice(OPTIMIZERS)
    text = (steps + optimizer).replace("checkpoint: {best", "")
    read = [name for name in FROZEN if re.search(rf"\b{name}\b", text)]
    declared = "".join(f", {name}: {{init: {FROZEN[name]}, requires_grad: false}}" for name in read)
    model = drawn.choice(["w", "w", "sin(w)"])
    return HEAD.format(declared=declared, model=model, optimizer=optimizer, steps=steps, every=drawn.choice([1, 1, 3]))


def _step(drawn: random.Random, depth: int, *, looped: bool) -> str:
    when = f", when: '{drawn.choice(CONDITIONS)}'"
    maybe = when if drawn.random() < 0.5 else ""
    every = f", every: {drawn.choice([2, 3])}" if looped and drawn.random() < 0.2 else ""
    kinds = ["train"] * 6 + [
        "evaluate",
        "forward",
        *["assign"] * 3,
        "plateau",
        "plateau",
        "best",
        "expect",
        "loop",
        "loop",
    ]
    match drawn.choice(kinds + ["stop", "stop", "patience"] * looped):
        case "evaluate":
            return "{evaluate: valid}"
        case "forward":
            return "{forward: loss}"
        case "assign":
            return f"{{assign: {{{drawn.choice(ASSIGNED)}}}{maybe}{every}}}"
        case "stop":
            return f"{{stop: null{when}{every}}}"
        case "patience":
            return f"{{patience: {{'on': valid.loss, evaluations: {drawn.choice([1, 2, 3])}}}}}"
        case "plateau":
            return f"{{reduce_lr_on_plateau: {{rate: r, 'on': valid.loss, patience: 0, factor: 0.5}}{maybe}}}"
        case "best":
            return "{checkpoint: {best: valid.loss}}"
        case "expect":
            return f"{{expect: {{loss < 3: true}}{when}}}"
        case "loop" if depth < 2:
            body = ", ".join(_step(drawn, depth + 1, looped=True) for _ in range(drawn.choice([2, 3])))
            kind = drawn.choice(["repeat: {times: 3", "repeat: {times: 8", "for_each: {data: train, epochs: 2"])
            return f"{{{kind}, steps: [{body}]}}{maybe if drawn.random() < 0.5 else ''}}}"
    return "{train: {data: train}}"
