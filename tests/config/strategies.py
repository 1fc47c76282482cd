"""Texts and values for properties: from noise to configs that are nearly right."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

LINEAR = """\
description: The gradients and one SGD update of a linear expression.
parameters:
  x1: {shape: [1], init: 100}
  x2: {shape: [1], init: {normal: {mean: 0, std: 0.02}}}
  x3: [[1, 2], [3, 4]]
constants:
  constant: {shape: [1], init: 30}
  learning_rate: 0.01
functions:
  double(x): 2 * x
expression: |
  h = double(x1)
  f = 10 * h + 20 * x2
metrics: {m: f.mean()}
optimizer:
  adam: {lr: learning_rate, betas: [0.9, 0.99]}
  groups: [{parameters: x*, weight_decay: 0}]
  state: {x1: {exp_avg: x2}}
steps:
  - backward
  - expect: {x1.grad: 10, constant.grad: null, x2: {value: [1, 2], atol: 1e-3}}
  - repeat:
      times: 3
      steps:
        - train: {accumulate: 2}
        - {stop: , when: f < 3}
        - {clip_grad_norm: 1.0, every: 2}
  - assign: {x1: x1 - 0.1 * x1.grad}
log: {every: 2, include: ["x*"], state: true}
"""
"""A valid config with most of what one may hold."""

WORDS = [
    "name",
    "description",
    "extends",
    "seed",
    "dtype",
    "device",
    "engine",
    "parameters",
    "constants",
    "data",
    "functions",
    "expression",
    "metrics",
    "optimizer",
    "optimizers",
    "steps",
    "log",
    "snapshot",
    "shape",
    "init",
    "requires_grad",
    "file",
    "columns",
    "stacked",
    "normal",
    "expression",
    "zeros",
    "sgd",
    "adam",
    "lr",
    "betas",
    "groups",
    "state",
    "backward",
    "forward",
    "step",
    "zero_grad",
    "train",
    "clip_grad_norm",
    "assign",
    "expect",
    "repeat",
    "times",
    "stop",
    "every",
    "when",
    "value",
    "rtol",
    "objective",
    "gradient",
    "accumulate",
    "max_norm",
    "set_to_none",
    "tensors",
    "include",
    "budget",
    "epochs",
    "rule",
    "x",
    "x1",
    "x1.grad",
    "f(x)",
    "<<",
    "null",
]

INDICATORS = st.text("[]{}:,-?#&*!|>'\"%@` \n\t~.=xyz019_é\u2028\x85\\", max_size=40)

MARKS = [
    "- ",
    ": ",
    "  ",
    "\n",
    "\n  ",
    "[",
    "]",
    "{",
    "}",
    ", ",
    "|\n",
    ">-\n",
    "'",
    '"',
    "&a ",
    "*a",
    "# c",
    "---",
    "\t",
]

PIECES = st.sampled_from([*WORDS, *MARKS, "1e-3", "0x1f", "!t "])

YAML_LIKE = st.lists(PIECES, max_size=60).map("".join)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(WORDS),
)

VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=6), inner, max_size=5)
    ),
    max_leaves=25,
)

STRUCTURED = st.dictionaries(st.sampled_from(WORDS[:20]), VALUES, max_size=8).map(
    lambda value: json.dumps(value, ensure_ascii=False)
)


@st.composite
def mutated(draw: st.DrawFn, text: str = LINEAR) -> str:
    """A valid config with a few pieces cut out, doubled or replaced."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 20)))
        text = text[:start] + draw(PIECES | INDICATORS | st.just(text[start:end] * 2)) + text[end:]
    return text


ANY_TEXT = st.one_of(st.text(max_size=80), INDICATORS, YAML_LIKE, STRUCTURED, mutated())
